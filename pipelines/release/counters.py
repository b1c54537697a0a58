"""What is counted of the two sides of a rollout: the only thing that a verdict reads.

Each stage and weight has an epoch of its own, because shares change with it. All counts only grow.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from pipelines.core.errors import ConfigError, one_line

EVENTS = ("errors", "refusals", "truncations", "schema_failures", "rejections")
PER_LEVEL = ("latency", "ttft", "ratings")
ROUNDING = 0.5  # percent: a cluster's weights are whole numbers
MOST = 2**53  # beyond which floats no longer count one by one
SAME_BOUND = 1e-9  # relative: 0.1 s is 100 ms, whatever binary fractions say
Levels = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """Counts of one side.

    Cache hits are no requests of either side; a request counts once its outcome is known or its time is up, for the
    side that it was admitted to, and no more than the declared number of one user in one stage.

    Attributes:
        requests: Requests with a known outcome.
        errors: Those that failed.
        refusals: Those that a guardrail refused.
        truncations: Those whose answer was cut off at the most tokens.
        schema_failures: Those whose answer did not fit its schema.
        users: Distinct users at the door, counted at their first request of the epoch; users who are pinned to a side
            do not count.
        latency: Cumulative histogram: (upper bound in seconds, requests that took at most that long), by bound.
        ttft: Likewise, of the time to the first token.
        streams: Requests that had a first token to wait for.
        ratings: (rating, how often it was given), by rating.
        rejections: Requests that the side's model called wrong (400, 413, 422), none of which is an error.
        departures: Further requests, whose client left before their outcome was known.
    """

    requests: float = 0
    errors: float = 0
    refusals: float = 0
    truncations: float = 0
    schema_failures: float = 0
    users: float = 0
    latency: Levels = ()
    ttft: Levels = ()
    streams: float = 0
    ratings: Levels = ()
    rejections: float = 0
    departures: float = 0

    def plus(self, other: Arm) -> Arm:
        """Return both together."""
        values: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            values[field.name] = _added(mine, theirs) if isinstance(mine, tuple) else mine + theirs
        return Arm(**values)

    def problems(self) -> Iterator[str]:
        """Say what cannot be true of these counts."""
        for field in fields(self):
            value = getattr(self, field.name)
            counts = [count for _, count in value] if isinstance(value, tuple) else [value]
            if not all(0 <= count <= MOST for count in counts):
                yield f"{field.name} is negative or no count"
        for name in EVENTS:
            if getattr(self, name) > self.requests:
                yield f"{name} ({getattr(self, name):g}) exceed requests ({self.requests:g})"
        for name, most in (("latency", self.requests), ("ttft", self.streams)):
            counts = [count for _, count in getattr(self, name)]
            if counts != sorted(counts):
                yield f"{name}: counts of a cumulative histogram must grow with the bound"
            elif counts and counts[-1] > most:
                yield f"{name}: {counts[-1]:g} within a bound exceed the {most:g} that there are"


@dataclass(frozen=True, slots=True)
class Epoch:
    """Both sides while one weight was in force.

    Attributes:
        weight: The candidate's percent of the users.
        candidate: Its counts.
        stable: Its counts.
        stage: `ab_test`, or `canary-1` and so on; empty where only the weight is known.
    """

    weight: float
    candidate: Arm = Arm()
    stable: Arm = Arm()
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything counted since a rollout began.

    Attributes:
        epochs: One per stage and weight so far, in their order; the last one is in force.
    """

    epochs: tuple[Epoch, ...] = ()

    def candidate(self) -> Arm:
        """Return the candidate's counts of all epochs."""
        return _sum(epoch.candidate for epoch in self.epochs)

    def stable(self) -> Arm:
        """Return stable's counts of all epochs."""
        return _sum(epoch.stable for epoch in self.epochs)

    def at(self, weight: float, stage: str = "") -> Epoch:
        """Return what was counted in a stage while it had its weight; a rollout that was resumed may have several.

        In a cluster a stage begins at the weight of the one before, until new pods are there.

        Args:
            weight: Of the stage, in whole percent where a cluster holds it; NaN for any.
            stage: Its name, as epochs have it; those that have none are found by their weight alone.
        """
        found = [
            epoch
            for epoch in self.epochs
            if epoch.stage in (stage, "") and (math.isnan(weight) or abs(epoch.weight - weight) <= ROUNDING)
        ]
        return Epoch(weight, _sum(epoch.candidate for epoch in found), _sum(epoch.stable for epoch in found), stage)

    def grown(self, weight: float, candidate: Arm, stable: Arm, stage: str = "") -> Counters:
        """Return these counters with more of an epoch: the last one, if weight and stage agree, else a new one."""
        if self.epochs and (self.epochs[-1].weight, self.epochs[-1].stage) == (weight, stage):
            last = self.epochs[-1]
            more = Epoch(weight, last.candidate.plus(candidate), last.stable.plus(stable), stage)
            return Counters((*self.epochs[:-1], more))
        return Counters((*self.epochs, Epoch(weight, candidate, stable, stage)))

    def problems(self) -> list[str]:
        """Say what cannot be true of these counters; no verdict may rest on such."""
        found = [f"epoch {i}: weight {epoch.weight:g}" for i, epoch in enumerate(self.epochs) if not _is_weight(epoch)]
        for index, epoch in enumerate(self.epochs):
            for side in ("candidate", "stable"):
                found += [f"epoch {index}, {side}: {text}" for text in getattr(epoch, side).problems()]
        return found

    def to_json(self) -> str:
        """Write the counters as JSON; the same counters give the same bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))


def from_json(text: str | bytes, shown: str = "counters") -> Counters:
    """Read counters.

    Args:
        text: As written by `to_json`.
        shown: Name of the source in messages.

    Raises:
        ConfigError: It is no JSON, or has another shape; numbers that make no sense are left to `Counters.problems`.
    """
    try:
        return of_values(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = one_line(f"{type(error).__name__}: {error}", 120)
        raise ConfigError(f"{shown}: are no counters ({said}); write them with Counters.to_json") from None


def of_values(value: Any) -> Counters:
    """Read counters from plain values.

    Raises:
        ValueError: They are of another shape; likewise TypeError and KeyError.
    """
    only(value, {"epochs"})
    return Counters(tuple(_epoch(epoch) for epoch in value["epochs"]))


def _epoch(value: Any) -> Epoch:
    only(value, {"weight", "candidate", "stable", "stage"})
    stage = value.get("stage", "")
    if not isinstance(stage, str):
        raise TypeError(f"the name of a stage is needed, found {type(stage).__name__}")
    return Epoch(number(value["weight"]), _arm(value["candidate"]), _arm(value["stable"]), stage)


def _arm(value: Any) -> Arm:
    only(value, {field.name for field in fields(Arm)})
    values: dict[str, Any] = {name: (_levels if name in PER_LEVEL else number)(part) for name, part in value.items()}
    return Arm(**values)


def _levels(value: Any) -> Levels:
    if not isinstance(value, list):
        raise TypeError(f"a list of [level, count] is needed, found {type(value).__name__}")
    found = {number(level): number(count) for level, count in value}
    if len(found) < len(value):
        raise ValueError("a level is there twice")
    return tuple(sorted(found.items()))


def number(value: Any) -> float:
    """Return a value that is a number; raises TypeError or ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number is needed, found {type(value).__name__}")
    if isinstance(value, int) and abs(value) > MOST:
        raise ValueError("a number is too large to be a count")
    return value


def only(value: Any, names: set[str]) -> None:
    """Refuse what is no object of these keys; raises TypeError or ValueError."""
    if not isinstance(value, dict):
        raise TypeError(f"an object is needed, found {type(value).__name__}")
    if unknown := sorted(set(value) - names):
        raise ValueError(f"unknown key {unknown[0]!r}")


def _added(mine: Levels, theirs: Levels) -> Levels:
    found = dict(mine)
    for level, count in theirs:
        found[level] = found.get(level, 0) + count
    return tuple(sorted(found.items()))


def _sum(arms: Iterator[Arm]) -> Arm:
    total = Arm()
    for arm in arms:
        total = total.plus(arm)
    return total


def _is_weight(epoch: Epoch) -> bool:
    return math.isfinite(epoch.weight) and 0 <= epoch.weight <= 100


def within(histogram: Levels, bound_s: float) -> float | None:
    """Return how many requests took at most `bound_s` seconds; None if the histogram has no such bound."""
    for bound, count in histogram:
        if math.isclose(bound, bound_s, rel_tol=SAME_BOUND):
            return count
    return None
