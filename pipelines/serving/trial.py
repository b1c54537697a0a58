"""What an A/B test compares: one mean per user (or request) and metric, entered once, when its window is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, get_args

from pipelines.core.rollout import Outcome
from pipelines.serving.epochs import Side

METRICS = get_args(Outcome)
RATING = METRICS.index("rating")
MOST_OPEN = 100_000
"""Windows at once, about 70 MB. Who comes while so many are open takes no part, whatever their side."""


class Unit:
    """One user (or request) in the test.

    Attributes:
        side: Theirs.
        n_open: Requests under way: their outcomes are waited for, or slow ones would be left out.
        is_over: The window is.
    """

    __slots__ = ("counts", "is_over", "n_open", "side", "sums")

    def __init__(self, side: Side) -> None:
        self.side: Side = side
        self.n_open = 1
        self.is_over = False
        self.sums = [0.0] * len(METRICS)
        self.counts = [0] * len(METRICS)

    def add(self, values: Sequence[float | None]) -> None:
        """Add a request's outcome, in the order of `METRICS`; None is not known of it."""
        for index, value in enumerate(values):
            if value is not None:
                self.sums[index] += value
                self.counts[index] += 1

    def rate(self, rating: float, before: float | None) -> None:
        """Add a rating, 0 to 1, in the place of the one before."""
        self.sums[RATING] += rating - (before or 0.0)
        self.counts[RATING] += before is None


class Trial:
    """The A/B test of one rollout.

    Args:
        weight: The candidate's percent in it.
        most_open: Windows at once.
    """

    def __init__(self, weight: float, most_open: int = MOST_OPEN) -> None:
        self.weight = weight
        self._most_open = most_open
        self._open: dict[int | str, Unit] = {}
        self._due: deque[tuple[float, int | str]] = deque()  # in the order in which windows began
        self.admitted: dict[Side, int] = {"candidate": 0, "stable": 0}
        self.outcomes = {metric: {side: [0, 0.0, 0.0] for side in self.admitted} for metric in METRICS}

    def __len__(self) -> int:
        return len(self._open)

    def find(self, key: int | str, now: float) -> Unit | None:
        """Return the unit whose window is open, with one request more under way."""
        if self._due and self._due[0][0] <= now:
            self.close_due(now)
        unit = self._open.get(key)
        if unit is None or unit.is_over:
            return None
        unit.n_open += 1
        return unit

    def begin(self, key: int | str, side: Side, now: float, window_s: float) -> Unit | None:
        """Open a unit's window with its first request; None where there is no room for one more."""
        if len(self._open) >= self._most_open:
            return None
        unit = self._open[key] = Unit(side)
        self._due.append((now + window_s, key))
        self.admitted[side] += 1
        return unit

    def end(self, key: int | str, unit: Unit) -> None:
        """Note that a request's outcome is known."""
        unit.n_open -= 1
        if unit.is_over and not unit.n_open:
            self._close(key, unit)

    def close_due(self, now: float) -> None:
        """Close the windows that are over."""
        while self._due and self._due[0][0] <= now:
            _, key = self._due.popleft()
            unit = self._open[key]
            unit.is_over = True
            if not unit.n_open:
                self._close(key, unit)

    def _close(self, key: int | str, unit: Unit) -> None:
        del self._open[key]
        for metric, total, n in zip(METRICS, unit.sums, unit.counts, strict=True):
            if n:
                mean = total / n
                sums = self.outcomes[metric][unit.side]
                sums[0] += 1
                sums[1] += mean
                sums[2] += mean * mean

    def as_json(self) -> dict[str, Any]:
        """Return plain values: who was admitted, and per metric and side [n, total, sum of squares]."""
        outcomes = {metric: {side: list(sums) for side, sums in both.items()} for metric, both in self.outcomes.items()}
        return {"admitted": dict(self.admitted), "outcomes": outcomes}
