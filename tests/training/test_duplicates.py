"""Near-duplicates: the fast search finds exactly what comparing all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training import duplicates
from pipelines.training.duplicates import joined, near_duplicate_groups


def by_all_pairs(texts: list[str], ngram: int, similarity: float) -> list[int]:
    sets = []
    for text in texts:
        plain = " ".join(text.casefold().split()).ljust(ngram, "\0")
        sets.append({plain[i : i + ngram] for i in range(len(plain) - ngram + 1)})
    pairs = [
        (i, j)
        for i in range(len(sets))
        for j in range(i)
        if len(sets[i] & sets[j]) >= similarity * len(sets[i] | sets[j]) - 1e-9
    ]
    return renumbered(joined(len(sets), np.array(pairs, np.int64).reshape(-1, 2)))


def renumbered(groups: np.ndarray) -> list[int]:
    seen: dict[int, int] = {}
    return [seen.setdefault(group, len(seen)) for group in groups.tolist()]


@given(
    texts=st.lists(st.text(alphabet="abc D\té😀", max_size=14), min_size=1, max_size=40),
    ngram=st.integers(1, 5),
    similarity=st.sampled_from([0.5, 0.6, 0.8, 0.9, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_the_search_finds_what_comparing_all_pairs_finds(texts: list[str], ngram: int, similarity: float) -> None:
    found = renumbered(near_duplicate_groups(texts, ngram=ngram, similarity=similarity))
    assert found == by_all_pairs(texts, ngram, similarity)


def test_rows_from_one_pattern_are_found_through_the_common_grams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 500)  # several sparse products, as large data has
    pattern = "Hello, my name is {} and my order has not arrived yet, please tell me where it is today."
    texts = [pattern.format(name) for name in (f"n{i % 97}x{i}" for i in range(200))] + ["Something else entirely."]
    found = renumbered(near_duplicate_groups(texts, ngram=5, similarity=0.7))
    assert found == by_all_pairs(texts, 5, 0.7)
    assert len(set(found)) == 2


@pytest.mark.parametrize(("similarity", "n_groups"), [(0.66, 1), (2 / 3, 1), (0.67, 2)])
def test_a_pair_counts_from_the_declared_similarity_on(similarity: float, n_groups: int) -> None:
    # grams of one character: {a..d, e} and {a..d, f}, four of six shared
    assert len(set(near_duplicate_groups(["abcde", "abcdf"], ngram=1, similarity=similarity).tolist())) == n_groups


def test_case_and_white_space_make_no_difference() -> None:
    assert len(set(near_duplicate_groups(["Hello  THERE\n", "hello there"], ngram=5, similarity=1.0).tolist())) == 1


def test_two_rows_are_one_group_through_a_third() -> None:
    chain = ["abcdefghij", "abcdefghik", "abcdefghlk"]
    assert len(set(near_duplicate_groups(chain, ngram=1, similarity=0.8).tolist())) == 1
    assert len(set(near_duplicate_groups([chain[0], chain[2]], ngram=1, similarity=0.8).tolist())) == 2


def test_texts_shorter_than_a_gram_are_equal_or_different() -> None:
    assert renumbered(near_duplicate_groups(["", "a", "A ", "b", ""], ngram=5, similarity=0.5)) == [0, 1, 1, 2, 0]


def test_one_text_is_one_group() -> None:
    assert near_duplicate_groups(["alone"], ngram=5, similarity=0.8).tolist() == [0]
