"""The nearest of many unit vectors: exact up to 10,000, only the likeliest compared beyond."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

DIMENSIONS = 384
FIRST_CAPACITY = 16
BRUTE_FORCE = 10_000
N_CELLS = 512
N_PROBED = 24
CANDIDATES = 64
ROUNDING = 1e-4
N_HEAD = 96
"""Dimensions of the first look: a quarter of the numbers is read, and hardly any vector needs the second."""


class Nearest:
    """Vectors by slot. An entry that is looked for in vain costs a call to a model, and nothing else.

    Up to 10,000 entries the search is exact. The vectors' first 96 coordinates in a random basis bound every cosine
    from above (Cauchy and Schwarz: the rest adds at most the product of the rests' lengths), and only those that could
    reach the threshold are compared whole. Beyond 10,000 it is an inverted file (Jegou et al. 2011) that needs no
    training: the first 512 vectors are the cells' centres, every vector belongs to its nearest centre, and the 24
    nearest cells are looked through.
    """

    def __init__(self) -> None:
        self._rows = np.empty((FIRST_CAPACITY, DIMENSIONS), dtype=np.float32)  # (capacity, 384)
        self._heads = np.empty((FIRST_CAPACITY, N_HEAD), dtype=np.float32)  # (capacity, 96)
        self._rests = np.zeros(FIRST_CAPACITY, dtype=np.float32)  # (capacity,)
        self._free: list[int] = []
        self._n = 0
        self._centres: Array | None = None
        self._cells: list[set[int]] = []
        self._cell_of: dict[int, int] = {}

    def __len__(self) -> int:
        return self._n - len(self._free)

    def add(self, vector: Array) -> int:
        """Add a vector of unit length, shape (384,); return its slot."""
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._n
            self._n += 1
            if slot >= len(self._rows):
                self._rows, self._heads, self._rests = map(_grown, (self._rows, self._heads, self._rests))
        self._rows[slot] = vector
        self._heads[slot], self._rests[slot] = _head(vector)
        if self._centres is None and self._n >= N_CELLS:
            self._centres = self._rows[:N_CELLS].copy()
            self._cells = [set() for _ in range(N_CELLS)]
            for earlier in range(N_CELLS):
                self._put(earlier)
        elif self._centres is not None:
            self._put(slot)
        return slot

    def remove(self, slot: int) -> None:
        """Forget a vector; its slot is used again."""
        self._rows[slot], self._heads[slot], self._rests[slot] = 0.0, 0.0, 0.0  # far from everything
        self._free.append(slot)
        if (cell := self._cell_of.pop(slot, None)) is not None:
            self._cells[cell].discard(slot)

    def find(self, vector: Array, min_similarity: float) -> list[tuple[int, float]]:
        """Return slots and cosines of at least so much, the nearest first.

        Args:
            vector: Of unit length, shape (384,).
            min_similarity: Smallest cosine.
        """
        if self._n <= BRUTE_FORCE or self._centres is None:
            head, rest = _head(vector)
            most = self._heads[: self._n] @ head + self._rests[: self._n] * rest  # (n,)
            slots = np.flatnonzero(most >= min_similarity - ROUNDING)
            return _best(self._rows[slots] @ vector, slots, min_similarity)
        probed = np.argpartition(self._centres @ vector, -N_PROBED)[-N_PROBED:]
        slots = np.fromiter((slot for cell in probed for slot in self._cells[cell]), dtype=np.intp)
        return _best(self._rows[slots] @ vector, slots, min_similarity)

    def _put(self, slot: int) -> None:
        assert self._centres is not None
        cell = int(np.argmax(self._centres @ self._rows[slot]))
        self._cells[cell].add(slot)
        self._cell_of[slot] = cell


def _best(cosines: Array, slots: NDArray[np.intp], min_similarity: float) -> list[tuple[int, float]]:
    places = np.flatnonzero(cosines >= min_similarity)
    places = places[np.argsort(-cosines[places], kind="stable")][:CANDIDATES]
    return [(int(slots[place]), float(cosines[place])) for place in places]


@functools.cache
def _basis() -> Array:
    """Return 96 random directions at right angles to each other, always the same, shape (96, 384)."""
    drawn = np.random.default_rng(0).standard_normal((DIMENSIONS, N_HEAD))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].T, dtype=np.float32)


def _head(vector: Array) -> tuple[Array, float]:
    """Return a unit vector's first coordinates, shape (96,), and the length of the rest."""
    head = _basis() @ vector
    return head, max(0.0, 1.0 - float(head @ head)) ** 0.5


def _grown(values: Array) -> Array:
    grown = np.zeros((2 * len(values), *values.shape[1:]), dtype=np.float32)
    grown[: len(values)] = values
    return grown
