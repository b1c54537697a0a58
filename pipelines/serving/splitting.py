"""The split in force: which side new requests get, and what was counted under it. One per process; reloads keep it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.split import Split
from pipelines.serving.config import Serving
from pipelines.serving.epochs import Bounds, Side
from pipelines.serving.exchange import Exchange
from pipelines.serving.tally import Tally

VARIANTS = frozenset({"stable", "candidate"})
ALL_STABLE = {"stable": 1.0}
Verdict = Callable[[dict[str, str], "UnderWay"], tuple[int, dict[str, Any]]]


class UnderWay(NamedTuple):
    """What a verdict can be made from.

    Attributes:
        root: Folder of the repository.
        serving: The declared file.
        split: In force, or None.
        counters: What this process counted of the rollout.
    """

    root: Path
    serving: Serving
    split: Split | None
    counters: dict[str, Any]


class Splitting:
    """Takes splits, deals by them and counts.

    Args:
        clock: Monotonic, in seconds.

    Attributes:
        process: New with each start, so that no series of Prometheus ever goes back.
        weights: By variant, for routes that take part; another object whenever they change.
        split: In force; None where there is none, and all traffic is stable's.
        tally: Of the last rollout that there was.
        n_refused: Documents that said something else.
        answered_s: When the source of the weights last answered, by the clock; None before it ever did.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.process = f"{time.time_ns():x}"
        self.weights = ALL_STABLE
        self.split: Split | None = None
        self.tally: Tally | None = None
        self.bounds: Bounds = (), ()
        self.n_refused = 0
        self.answered_s: float | None = None
        self._expired: Split | None = None

    def declare(self, serving: Serving) -> None:
        """Take over a declared file: its bounds, for rollouts to come."""
        self.bounds = serving.metrics.latency_bounds_s, serving.metrics.ttft_bounds_s

    def answered(self) -> None:
        """Note that the source of the weights answered; what had expired is in force again."""
        self.answered_s = self._clock()
        if self._expired is not None:
            self.apply(self._expired)

    def expire(self, most_s: float) -> bool:
        """Give all traffic to stable if the source has been silent for longer; return whether that is new."""
        split, age_s = self.split, self.age_s()
        if split is None or age_s is None or age_s <= most_s:
            return False
        self.apply(None)
        self._expired = split
        return True

    def age_s(self) -> float | None:
        """Return the seconds since the source of the weights last answered."""
        return None if self.answered_s is None else self._clock() - self.answered_s

    def apply(self, split: Split | None) -> bool:
        """Deal and count by a split from now on; return whether it is another one."""
        self._expired = None
        if split == self.split:
            return False
        weight = split.weight if split is not None else 0.0
        if (self.split.weight if self.split is not None else 0.0) != weight:
            self.weights = {"stable": 100.0 - weight, "candidate": weight} if weight else ALL_STABLE
        self.split = split
        if split is not None and weight and (self.tally is None or self.tally.rollout != split.rollout):
            self.tally = Tally(split.rollout, self.bounds, self._clock)
        if self.tally is not None:
            self.tally.begin(split)
        return True

    def admit(self, exchange: Exchange, upstream: str, *, is_pinned: bool) -> None:
        """Take a request into the rollout that is under way, if one is."""
        if self.weights is not ALL_STABLE and self.tally is not None:
            side: Side = "candidate" if exchange.variant == "candidate" else "stable"
            exchange.admitted = self.tally.admit(exchange, side, upstream, is_pinned=is_pinned)

    def rated(self, request_id: str, rating: int) -> None:
        """Count a rating, 1 to 5."""
        if self.tally is not None:
            self.tally.rate(request_id, rating)

    def counters(self) -> dict[str, Any]:
        """Return what this process counted of the last rollout."""
        return {} if self.tally is None else self.tally.counters()

    def page(self) -> dict[str, Any] | None:
        """Return `/v1/rollout`; None where no rollout was ever seen."""
        if self.tally is None:
            return None
        split = self.split if self.split is not None and self.split.weight else None
        return {
            "rollout": self.tally.rollout,
            "stage": split.stage if split is not None else "",
            "weight": split.weight if split is not None else 0.0,
            "since": split.since if split is not None else 0.0,
            "process": self.process,
            "counters": self.tally.counters(),
        }
