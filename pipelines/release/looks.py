"""What one look at a rollout shows, as plain values: the terminal draws them, and a recorded rollout gives the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pipelines.release.history import Event

Progress = Literal["done", "now", "next", "failed"]
LARGEST_E = 1e12  # beyond, an e-value is only "very large"


class Gate(NamedTuple):
    """One limit, or one comparison with stable, as a verdict tells it.

    Attributes:
        name: As declared.
        kind: `limit` or `ratio`.
        events: What was counted against the candidate.
        n: Among how many.
        value: Rate, ratio or mean rating; None where nothing was counted.
        lower: Bound that holds at every look; None where there is none.
        upper: Likewise.
        limit: What it is held against, in the same unit.
        harm: E-value against "keeps the limit".
        proof: E-value against "misses the limit".
        status: `failed`, `proven` or `open`.
        is_to_prove: Whether a stage can wait for it.
        bound_ms: Of a percentile: milliseconds that the limit's share may exceed; None where it is not told.
    """

    name: str
    kind: str
    events: float
    n: float
    value: float | None
    lower: float | None
    upper: float | None
    limit: float
    harm: float
    proof: float
    status: str
    is_to_prove: bool
    bound_ms: float | None = None


class Compared(NamedTuple):
    """One metric of an A/B test, with the names of `abtest.Comparison`; None where there is no number."""

    metric: str
    n_candidate: float | None
    n_stable: float | None
    mean_candidate: float | None
    mean_stable: float | None
    gain: float | None
    lower: float | None
    upper: float | None
    margin: float | None
    p_harm: float | None
    p_safe: float | None
    adjusted_p_harm: float | None
    welch_t: float | None
    welch_p: float | None
    cohens_d: float | None


class Told(NamedTuple):
    """A verdict and what it rests on.

    Attributes:
        verdict: advance, rollback, hold, unknown or invalid.
        reasons: One sentence each, the weightiest first; not yet made safe.
        gates: What the canary's gates see.
        compared: What the A/B test sees.
        candidate: Requests of the candidate since the rollout began; None where they were not counted.
        stable: Likewise of stable.
        n_stage: Candidate requests in the stage, or None.
        more: Further candidate requests until the stage is decided, or None.
        closed: Closed outcomes of the A/B test's first metric: of the candidate, of stable; None outside of it.
        min_per_arm: So many of each side it needs at least, or None.
        split_p: p-value that users are split as declared.
        alpha: Most false rollbacks; e-values decide at 1 / alpha. None where it is not told.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    compared: tuple[Compared, ...] = ()
    candidate: float | None = None
    stable: float | None = None
    n_stage: float | None = None
    more: float | None = None
    closed: tuple[float, float] | None = None
    min_per_arm: float | None = None
    split_p: float | None = None
    alpha: float | None = None


class Rung(NamedTuple):
    """One step of the ladder, and how far it is."""

    name: str
    progress: Progress


class Look(NamedTuple):
    """One look at a release.

    Attributes:
        tag: What is on its way.
        instead: Tag of the stable version; empty at the first release.
        rungs: The whole ladder.
        stage: Name of the step that is due.
        weight: Share of traffic that the candidate is to have, 0 to 1.
        told: The verdict; None where nothing is judged.
        waiting: What is waited for where nothing is judged.
        total_s: Since the release began, seconds.
        elapsed_s: Since the step began, less any pause.
        most_s: Longest time of the step; None where nothing limits it.
        blind_s: Since nothing can be measured; 0 where something can.
        held: Who holds the rollout, and why; empty where nobody does.
        end: How it ended, one sentence; empty while it is under way.
    """

    tag: str
    instead: str
    rungs: tuple[Rung, ...]
    stage: str
    weight: float
    told: Told | None = None
    waiting: str = ""
    total_s: float = 0.0
    elapsed_s: float = 0.0
    most_s: float | None = None
    blind_s: float = 0.0
    held: str = ""
    end: str = ""


# --- from what a verdict says, or a history holds: a file may say anything -------------------------------------


def told_of(event: Event) -> Told | None:
    """Return what an event says of a verdict, or nothing where it judged nothing."""
    return None if event.verdict is None else told(event.verdict, event.counters, event.stage)


def told(
    verdict: Mapping[str, Any], counters: Mapping[str, Any] | None, stage: Mapping[str, Any] | None = None
) -> Told:
    """Read a verdict's plain values; what is missing or no number is left out.

    Args:
        verdict: As `Verdict.as_json` writes it.
        counters: What it was made from, or None.
        stage: What was judged, as `Stage.as_json` writes it; its rules tell the declared limits.
    """
    rules = (stage or {}).get("rules")
    limits = rules.get("gates") if isinstance(rules, dict) else None
    n_candidate, n_stable = requests_of(counters or {})
    reasons = verdict.get("reasons")
    return Told(
        verdict=str(verdict.get("name", "")),
        reasons=tuple(str(one) for one in reasons) if isinstance(reasons, list | tuple) else (),
        gates=tuple(_gate(one, limits) for one in _objects(verdict.get("checks"))),
        compared=tuple(_compared(one) for one in _objects(verdict.get("comparisons"))),
        candidate=n_candidate,
        stable=n_stable,
        n_stage=_number(verdict.get("n_requests")),
        more=_number(verdict.get("requests_to_decide")),
        closed=closed_of(counters or {}) if (stage or {}).get("kind") == "ab_test" else None,
        min_per_arm=_number(rules.get("min_per_arm")) if isinstance(rules, dict) else None,
        split_p=_number(verdict.get("sample_ratio_p")),
        alpha=_number(verdict.get("alpha")),
    )


def requests_of(counters: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the requests of candidate and stable over all epochs; None where they were not counted."""
    canary = counters.get("canary")
    epochs = list(_objects(canary.get("epochs"))) if isinstance(canary, dict) else []
    if not epochs:
        return None, None
    sides = ([epoch.get(side) for epoch in epochs] for side in ("candidate", "stable"))
    found = [sum(_number(arm.get("requests")) or 0.0 for arm in arms if isinstance(arm, dict)) for arms in sides]
    return found[0], found[1]


def closed_of(counters: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the closed outcomes of candidate and stable, of the metric that has most; None without any."""
    test = counters.get("ab_test")
    outcomes = test.get("outcomes") if isinstance(test, dict) else None
    found = []
    for sides in outcomes.values() if isinstance(outcomes, dict) else ():
        arms = [sides.get(side) for side in ("candidate", "stable")] if isinstance(sides, dict) else []
        numbers = [_number(arm[0]) for arm in arms if isinstance(arm, list) and arm]
        if len(numbers) == 2 and None not in numbers:
            found.append((numbers[0] or 0.0, numbers[1] or 0.0))
    return max(found, default=None)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list | tuple):
        yield from (one for one in value if isinstance(one, dict))


def _gate(value: Mapping[str, Any], limits: Any) -> Gate:
    status, name = str(value.get("status")), str(value.get("gate", ""))
    has_bound = isinstance(limits, dict) and name.endswith("_ms")
    return Gate(
        name=name,
        kind="ratio" if value.get("kind") == "ratio" else "limit",
        events=_number(value.get("events")) or 0.0,
        n=_number(value.get("n")) or 0.0,
        value=_number(value.get("value")),
        lower=_number(value.get("lower")),
        upper=_number(value.get("upper")),
        limit=_number(value.get("limit")) or 0.0,
        harm=_e_value(value.get("log_e_fail")),
        proof=_e_value(value.get("log_e_pass")),
        status=status if status in ("failed", "proven") else "open",
        is_to_prove=value.get("is_to_prove") is True,
        bound_ms=_number(limits.get(name)) if has_bound else None,
    )


def _compared(value: Mapping[str, Any]) -> Compared:
    numbers = {name: _number(value.get(name)) for name in Compared._fields if name != "metric"}
    return Compared(metric=str(value.get("metric", "")), **numbers)


def _e_value(log_e: Any) -> float:
    found = _number(log_e)
    return 0.0 if found is None else min(LARGEST_E, math.exp(min(found, 60.0)))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
