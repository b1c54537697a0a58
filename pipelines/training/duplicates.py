"""Find every pair of nearly equal texts, exactly, without comparing all pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

Integers = NDArray[np.int64]

# Grams that two rows must share among their rarest before they are compared in full: 8 was
# fastest on messages of about 150 characters (1 took twice as long).
SHARED = 8
# A gram in so many rows joins them one after the other first, so that rows from one pattern cost no quadratic time.
COMMON = 64
BLOCK = 20_000_000  # products of one sparse multiplication, which bounds the memory
PAIRS = 50_000  # pairs compared in full at once


class Grams(NamedTuple):
    """Which n-grams each text has: text i has `tokens[starts[i]:starts[i + 1]]`, the rarest first."""

    tokens: Integers
    starts: Integers
    n_tokens: int

    def sizes(self) -> Integers:
        """Return the number of distinct n-grams per text."""
        return np.diff(self.starts)


def near_duplicate_groups(texts: list[str], *, ngram: int, similarity: float) -> Integers:
    """Group texts that are nearly the same, directly or through others.

    Two texts are near-duplicates if the Jaccard index of their sets of character n-grams is at least `similarity`,
    after case folding and with white space as single spaces. The search is exact: it leaves out only pairs that
    cannot reach the index, by their sizes or by the rarest grams of each (prefix filter of Chaudhuri et al. 2006,
    with several shared grams as in Wang et al. 2012).

    Args:
        texts: Any texts; one shorter than `ngram` counts as a single gram.
        ngram: Characters per gram.
        similarity: Smallest Jaccard index, 0.5 to 1; lower ones would make the filter worthless.

    Returns:
        Number of the group per text, shape (n_texts,).
    """
    places: dict[str, int] = {}
    inverse = np.array([places.setdefault(" ".join(text.casefold().split()), len(places)) for text in texts], np.int64)
    if len(places) < 2:
        return np.zeros(len(texts), np.int64)
    grams = _grams(list(places), ngram)
    owners, tokens = _rarest(grams, similarity)
    groups = joined(len(places), _similar(grams, _chained(owners, tokens), similarity))
    groups = joined(len(places), _rest(grams, owners, tokens, groups, similarity), groups)
    result: Integers = groups[inverse]
    return result


def joined(n: int, pairs: Integers, groups: Integers | None = None) -> Integers:
    """Join groups that pairs connect.

    Args:
        n: Number of items.
        pairs: Connected items, shape (n_pairs, 2).
        groups: Group per item so far, shape (n,); None is every item alone.

    Returns:
        Number of the group per item, shape (n,).
    """
    groups = np.arange(n, dtype=np.int64) if groups is None else groups
    ends = groups[pairs]
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1].astype(np.int64)
    result: Integers = labels[groups]
    return result


def _grams(texts: list[str], ngram: int) -> Grams:
    padded = [text.ljust(ngram, "\0") for text in texts]
    lengths = np.array([len(text) for text in padded], np.int64)
    characters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    n_windows = len(characters) - ngram + 1
    # A random linear hash of 64 bits: among 15 million grams the chance of one collision is below 1e-5.
    factors = np.random.default_rng(0).integers(1, 2**63, ngram, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.zeros(n_windows, np.uint64)
    for place, factor in enumerate(factors):
        hashes += characters[place : place + n_windows] * factor
    whole = owner[:n_windows] == owner[ngram - 1 :]
    tokens, n_tokens = _numbered(hashes[whole])
    keys = np.sort(owner[:n_windows][whole] * n_tokens + tokens)
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]  # twice as fast as np.unique
    owner, tokens = np.divmod(keys, n_tokens)
    rarity = np.empty(n_tokens, np.int64)
    rarity[np.argsort(np.bincount(tokens, minlength=n_tokens), kind="stable")] = np.arange(n_tokens)
    tokens = np.sort(owner * n_tokens + rarity[tokens]) % n_tokens
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(texts)))])
    return Grams(tokens, starts, n_tokens)


def _numbered(values: NDArray[np.uint64]) -> tuple[Integers, int]:
    """Return a number per distinct value, and how many there are."""
    order = np.argsort(values)
    ordered = values[order]
    numbers = np.empty(len(values), np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
    return numbers, int(numbers[order[-1]]) + 1


def _least_shared(sizes: Integers, similarity: float) -> Integers:
    """Return how many grams a set of each size must share with any set as similar as that."""
    least: Integers = np.ceil(sizes * similarity - 1e-9).astype(np.int64)
    return least


def _rarest(grams: Grams, similarity: float) -> tuple[Integers, Integers]:
    """Return (text, token) pairs, by token, of the grams among which similar texts share SHARED or all they share."""
    sizes = grams.sizes()
    lengths = np.minimum(sizes, sizes - _least_shared(sizes, similarity) + SHARED)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    is_rare = np.arange(len(grams.tokens)) - grams.starts[owners] < lengths[owners]
    owners, tokens = owners[is_rare], grams.tokens[is_rare]
    order = np.argsort(tokens, kind="stable")
    return owners[order], tokens[order]


def _chained(owners: Integers, tokens: Integers) -> Integers:
    """Return neighbours among the texts of each common gram, shape (n_pairs, 2)."""
    is_common = np.bincount(tokens)[tokens] > COMMON
    is_pair = is_common[1:] & (tokens[1:] == tokens[:-1])
    return np.unique(np.stack([owners[:-1][is_pair], owners[1:][is_pair]], axis=1), axis=0)


def _rest(grams: Grams, owners: Integers, tokens: Integers, groups: Integers, similarity: float) -> Integers:
    """Return the similar pairs whose texts are in different groups, shape (n_pairs, 2)."""
    # A gram whose texts are all in one group already can join nothing.
    changes = np.zeros(grams.n_tokens, np.int64)
    np.add.at(changes, tokens[1:], (tokens[1:] == tokens[:-1]) & (groups[owners[1:]] != groups[owners[:-1]]))
    useful = changes[tokens] > 0
    owners, tokens = owners[useful], tokens[useful]
    counts = np.bincount(tokens, minlength=grams.n_tokens)
    sizes = grams.sizes()
    shape = (len(sizes), grams.n_tokens)
    matrix = csr_array((np.ones(len(owners), np.int32), (owners, tokens)), shape=shape)
    transposed = csr_array(matrix.T)
    work = np.bincount(owners, weights=counts[tokens], minlength=len(sizes)).cumsum()
    found = [np.zeros((0, 2), np.int64)]
    least = _least_shared(sizes, similarity)
    first = 0
    while first < len(sizes):
        done = work[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(work, done + BLOCK)))
        shared = (matrix[first:last] @ transposed).tocoo()
        left, right = shared.row.astype(np.int64) + first, shared.col.astype(np.int64)
        small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        enough = shared.data >= np.minimum(SHARED, np.maximum(least[left], least[right]))
        # A gram dropped above joins texts of one group only, so it lowers no count that is looked at here.
        keep = (left < right) & enough & (groups[left] != groups[right]) & (small >= large * similarity - 1e-9)
        found.append(_similar(grams, np.stack([left[keep], right[keep]], axis=1), similarity))
        first = last
    return np.concatenate(found)


def _similar(grams: Grams, pairs: Integers, similarity: float) -> Integers:
    """Return the pairs that are near-duplicates, shape (n_similar, 2)."""
    sizes = grams.sizes()
    shape = (len(sizes), grams.n_tokens)
    matrix: Any = csr_array((np.ones(len(grams.tokens), np.int32), grams.tokens, grams.starts), shape=shape)
    found = [np.zeros((0, 2), np.int64)]
    for first in range(0, len(pairs), PAIRS):
        part = pairs[first : first + PAIRS]
        shared = matrix[part[:, 0]].multiply(matrix[part[:, 1]]).sum(axis=1)
        union = sizes[part].sum(axis=1) - shared
        found.append(part[shared >= similarity * union - 1e-9])
    return np.concatenate(found)
