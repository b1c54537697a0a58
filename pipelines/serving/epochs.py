"""Counts of both sides of a rollout, an epoch for each weight of each stage."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Literal

from pipelines.serving.exposition import Histogram

Side = Literal["candidate", "stable"]
Bounds = tuple[tuple[float, ...], tuple[float, ...]]
"""Of the histograms of latency and of the time to the first token, in seconds."""
RATINGS = tuple((rating - 1) / 4 for rating in range(1, 6))


class Arm:
    """Counts of one side of one epoch; see `pipelines/release/counters.py`.

    Attributes:
        rejections: Requests that the side's upstream called wrong (400, 413, 422): its client's mistake, or its own.
        departures: Requests whose client left before the outcome was known; they are in no other count.
        ratings: That were given, by level, 0 to 1.
        withdrawn: Those of them that were changed since: neither count ever falls.
    """

    __slots__ = (
        "departures",
        "errors",
        "latency",
        "ratings",
        "refusals",
        "rejections",
        "requests",
        "schema_failures",
        "truncations",
        "ttft",
        "users",
        "withdrawn",
    )

    def __init__(self, bounds: Bounds) -> None:
        self.requests = self.errors = self.refusals = self.truncations = self.schema_failures = self.users = 0
        self.rejections = self.departures = 0
        self.latency, self.ttft = Histogram(bounds[0]), Histogram(bounds[1])
        self.ratings = dict.fromkeys(RATINGS, 0)
        self.withdrawn = dict.fromkeys(RATINGS, 0)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "refusals": self.refusals,
            "truncations": self.truncations,
            "schema_failures": self.schema_failures,
            "rejections": self.rejections,
            "departures": self.departures,
            "users": self.users,
            "latency": _cumulative(self.latency),
            "ttft": _cumulative(self.ttft),
            "streams": sum(self.ttft.counts),
            "ratings": [[level, n - self.withdrawn[level]] for level, n in self.ratings.items()],
        }


class Epoch:
    """Both sides while one weight of one stage is in force."""

    __slots__ = ("candidate", "index", "stable", "stage", "weight")

    def __init__(self, index: int, stage: str, weight: float, bounds: Bounds) -> None:
        self.index = index
        self.stage = stage
        self.weight = weight
        self.candidate, self.stable = Arm(bounds), Arm(bounds)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        arms = {"candidate": self.candidate.as_json(), "stable": self.stable.as_json()}
        return {"stage": self.stage, "weight": self.weight, **arms}


def _cumulative(histogram: Histogram) -> list[list[float]]:
    counts = accumulate(histogram.counts)
    return [[bound, count] for bound, count in zip(histogram.bounds, counts, strict=False)]
