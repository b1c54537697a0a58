"""What a splitter counts for a rollout, as plain values: read it, and make one of what several processes counted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.release.abtest import RANGES, Pair
from pipelines.release.counters import Counters, Epoch, number, of_values, only
from pipelines.release.sequences import Moments

SIDES = ("candidate", "stable")
NOTHING: Mapping[str, Any] = {}


class Tally(NamedTuple):
    """Everything counted since a rollout began.

    Attributes:
        canary: Requests, by epoch.
        admitted: Users (or requests, where these are the unit) that the A/B test admitted: of the candidate, of stable.
        outcomes: Closed outcomes of the A/B test, by metric.
    """

    canary: Counters = Counters()
    admitted: tuple[float, float] = (0, 0)
    outcomes: Mapping[str, Pair] = {}

    def as_json(self) -> dict[str, Any]:
        """Return plain values, as `read` takes them."""
        outcomes = {
            name: {side: list(arm) for side, arm in pair._asdict().items()} for name, pair in self.outcomes.items()
        }
        test = {"admitted": dict(zip(SIDES, self.admitted, strict=True)), "outcomes": outcomes}
        return {"canary": json.loads(self.canary.to_json()), "ab_test": test}


def read(value: Any, shown: str = "counters") -> Tally:
    """Read what a splitter counted; every key may be missing, and numbers that make no sense are left to the judge.

    Args:
        value: Plain values: `canary` as `Counters.to_json` writes it, and `ab_test` with `admitted` and `outcomes`.
        shown: Name of the source in messages.

    Raises:
        ConfigError: It has another shape.
    """
    try:
        only(value, {"canary", "ab_test"})
        test = value.get("ab_test", NOTHING)
        only(test, {"admitted", "outcomes"})
        admitted, outcomes = test.get("admitted", NOTHING), test.get("outcomes", NOTHING)
        only(admitted, set(SIDES))
        only(outcomes, set(RANGES))
        candidate, stable = (number(admitted.get(side, 0)) for side in SIDES)
        return Tally(
            of_values(value.get("canary", {"epochs": []})),
            (candidate, stable),
            {name: _pair(sides) for name, sides in outcomes.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = one_line(f"{type(error).__name__}: {error}", 120)
        raise ConfigError(f"{shown}: is not what a splitter counts ({said})") from None


def merged(tallies: Sequence[Mapping[str, Any]], unit: Literal["user", "request"] = "user") -> dict[str, Any]:
    """Return what several processes counted together: sums per stage and weight, in the order of the stages.

    A user who met several processes was counted by each, so the sums look like more evidence than there is: counts of
    users, and outcomes per user, are divided by the most that they can repeat themselves (`overlap`). Without this
    three replicas would find a wrong split several times as often as declared.

    Args:
        tallies: One per process; one that was started again is another.
        unit: Of the A/B test; a request is only ever counted by one process.

    Raises:
        ConfigError: One of them has another shape.
    """
    found = [read(value, f"counters of process {index}") for index, value in enumerate(tallies, start=1)]
    epochs = defaultdict[tuple[str, float], list[Epoch]](list)
    for epoch in (epoch for tally in found for epoch in tally.canary.epochs):
        epochs[epoch.stage, epoch.weight].append(epoch)
    canary = Counters(tuple(_epoch(epochs[key]) for key in sorted(epochs, key=_order)))
    names = dict.fromkeys(name for tally in found for name in tally.outcomes)
    pairs = {name: [tally.outcomes[name] for tally in found if name in tally.outcomes] for name in names}
    is_user = unit == "user"
    by = overlap([sum(tally.admitted) for tally in found]) if is_user else 1.0
    candidate, stable = (sum(tally.admitted[side] for tally in found) / by for side in (0, 1))
    return Tally(canary, (candidate, stable), {name: _pooled(each, is_user) for name, each in pairs.items()}).as_json()


def overlap(counts: Sequence[float]) -> float:
    """Return how often a user was counted at most, on average over what was counted: from 1 to the number of counts.

    With n_i users counted by process i, the variance of a sum over them is at most that of independent users times
    sum_ij min(n_i, n_j) / sum_i n_i, for no more than min(n_i, n_j) users can have met both. It is the design effect
    (Kish 1965) of the worst case: R for R processes that met the same users, near 1 where one counted nearly all.
    """
    total = sum(counts)
    if not total > 0:
        return 1.0
    pairs = sum(n * (2 * (len(counts) - index) - 1) for index, n in enumerate(sorted(counts)))
    return max(1.0, pairs / total)


def _epoch(found: list[Epoch]) -> Epoch:
    both = Counters(tuple(found))
    candidate, stable = both.candidate(), both.stable()
    by = overlap([epoch.candidate.users + epoch.stable.users for epoch in found])
    return Epoch(
        found[0].weight,
        replace(candidate, users=candidate.users / by),
        replace(stable, users=stable.users / by),
        found[0].stage,
    )


def _pooled(pairs: list[Pair], is_user: bool) -> Pair:
    by = overlap([pair.candidate.n + pair.stable.n for pair in pairs]) if is_user else 1.0
    sides = (Moments(*(sum(parts) / by for parts in zip(*arms, strict=True))) for arms in zip(*pairs, strict=True))
    return Pair(*sides)


def _order(key: tuple[str, float]) -> tuple[float, str, float]:
    """Sort the A/B test first, then the canary stages by number."""
    stage, weight = key
    digits = stage.removeprefix("canary-")
    place = 0.0 if stage == "ab_test" else float(digits) if digits.isascii() and digits.isdigit() else float("inf")
    return place, stage, weight


def _pair(sides: Any) -> Pair:
    only(sides, set(SIDES))
    return Pair(*(_moments(sides.get(side, (0, 0, 0))) for side in SIDES))


def _moments(value: Any) -> Moments:
    n, total, squares = value
    return Moments(number(n), number(total), number(squares))
