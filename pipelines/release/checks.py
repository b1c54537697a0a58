"""What a rollout's gates see in its counters: each limit and each comparison with stable is one check."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

from pipelines.core.rollout import CanaryRule, LatencyRule, RateRule, RatingRule, Rollout
from pipelines.release import ratings
from pipelines.release.counters import Arm, Counters, within
from pipelines.release.evidence import (
    HARM,
    PROOF,
    Record,
    bounds,
    growth_to,
    log_e,
    log_odds,
    of_rate,
    of_ratio,
    rate_at,
)
from pipelines.release.ratings import Ratings, scaled

SLOW_SHARE = 0.05  # of a 95th percentile: so many requests may be slower than its limit
EVENT_OF = {
    "error_rate": "errors",
    "schema_failure_rate": "schema_failures",
    "refusal_rate": "refusals",
    "truncation_rate": "truncations",
}


class Check(NamedTuple):
    """One limit or one comparison, what was counted for it, and how surely it is kept or missed.

    Attributes:
        gate: Name of the gate, as declared.
        kind: `limit` (the candidate alone) or `ratio` (candidate's rate over stable's).
        events: What was counted against the candidate; for a rating's limit the number of ratings.
        n: Among how many; for a ratio the events of both sides.
        value: Rate, ratio or mean rating; None where nothing was counted.
        lower: Bound that holds at every look.
        upper: Likewise; infinite where nothing is bounded.
        limit: What is compared with, in the same unit.
        log_e_fail: Log of the e-value against "keeps the limit".
        log_e_pass: Log of the e-value against "misses the limit".
        status: `failed`, `proven` or `open`.
        is_to_prove: A `proven` stage waits for it.
        requests_to_decide: Further candidate requests until it is proven or failed, if all goes on in the same shares;
            None if it is decided or need not be, or if no affordable number decides.
    """

    gate: str
    kind: Literal["limit", "ratio"]
    events: float
    n: float
    value: float | None
    lower: float
    upper: float
    limit: float
    log_e_fail: float
    log_e_pass: float
    status: Literal["failed", "proven", "open"]
    is_to_prove: bool
    requests_to_decide: int | None


class Bars(NamedTuple):
    """Logs of the e-values that decide: `fail` fails one of all checks, `passes` proves one."""

    fail: float
    passes: float


Curve = Callable[[float], tuple[float, float]]  # growth of the counts: log e-values of failure and of proof


def bars(rollout: Rollout) -> Bars:
    """Return the bars of a rollout: log(G / alpha) for one of G ways to fail, log(1 / alpha) to prove."""
    return Bars(math.log(n_ways_to_fail(rollout) / rollout.alpha), math.log(1 / rollout.alpha))


def n_ways_to_fail(rollout: Rollout) -> int:
    """Return G: every limit and every comparison with stable can cause a rollback."""
    return sum(has_limit(rule) + (rule.max_ratio is not None) for rule in rollout.gates.rules().values())


def has_limit(rule: CanaryRule) -> bool:
    """Tell whether a rule limits the candidate by itself."""
    return not isinstance(rule, RateRule) or rule.ceiling is not None


def limit_of(rule: RateRule | LatencyRule) -> float:
    """Return the largest share of requests that may miss what a rule asks for; it must have a limit."""
    if isinstance(rule, LatencyRule):
        return SLOW_SHARE
    assert rule.ceiling is not None, "the caller asked has_limit"
    return rule.ceiling


def check_all(counters: Counters, rollout: Rollout) -> list[Check]:
    """Hold the counters of a rollout against its gates; counts of all its epochs add up.

    Raises:
        ValueError: A histogram lacks the bound of a limit, or a rating lies outside the declared scale.
    """
    at, total, rules = bars(rollout), counters.candidate(), rollout.gates.rules()
    return [check for name, rule in rules.items() for check in _checks(name, rule, counters, total, at)]


def _checks(name: str, rule: CanaryRule, counters: Counters, total: Arm, at: Bars) -> Iterator[Check]:
    if has_limit(rule):
        to_prove = rule.prove in ("limit", "all")
        if isinstance(rule, RatingRule):
            yield _of_rating(name, rule, total, at, to_prove)
        else:
            yield _of_record(name, "limit", of_rate(*counted(name, rule, total)), limit_of(rule), total, at, to_prove)
    if rule.max_ratio is not None:
        seen = partial(counted, name, rule, is_compared=True)
        sides = [(*seen(epoch.candidate), *seen(epoch.stable)) for epoch in counters.epochs]
        yield _of_record(name, "ratio", of_ratio(sides), rule.max_ratio, total, at, rule.prove == "all")


def counted(name: str, rule: CanaryRule, arm: Arm, *, is_compared: bool = False) -> tuple[float, float]:
    """Return the events that count against one side, and among how many.

    What a model calls wrong may be its clients' mistake, and clients leave for reasons of their own: stable shows how
    often. So rejections are errors where error rates are compared with stable's, and departures are slow where slow
    requests are; against the limit rejections count only where nothing is compared, and departures never.

    Raises:
        ValueError: A histogram lacks the bound of the limit, or a rating lies outside the declared scale.
    """
    if isinstance(rule, RatingRule):
        low, high = rule.scale
        found = scaled(arm.ratings, low, high)
        return found.below((rule.floor - low) / (high - low)), found.n
    if isinstance(rule, LatencyRule):
        histogram, n = (arm.ttft, arm.streams) if name == "ttft_p95_ms" else (arm.latency, arm.requests)
        fast = within(histogram, rule.ceiling / 1000)
        if fast is None and n > 0:
            raise ValueError(f"{name}: the histogram has no bound at {rule.ceiling / 1000:g} s; limits must be bounds")
        if is_compared and name == "latency_p95_ms":
            n += arm.departures
        return n - (fast or 0), n
    has_rejected = name == "error_rate" and (is_compared or rule.max_ratio is None)
    return getattr(arm, EVENT_OF[name]) + (arm.rejections if has_rejected else 0), arm.requests


def _of_record(
    name: str, kind: Literal["limit", "ratio"], record: Record, limit: float, total: Arm, at: Bars, to_prove: bool
) -> Check:
    is_ratio = kind == "ratio"
    x = math.log(limit) if is_ratio else log_odds(limit)

    def curve(growth: float) -> tuple[float, float]:
        more = record.grown(growth)
        return log_e(more, x, HARM), log_e(more, x, PROOF)

    found = bounds(record, fail_bar=at.fail, pass_bar=at.passes)
    ends = (math.exp(found.lower), math.exp(found.upper)) if is_ratio else (_rate(found.lower), _rate(found.upper))
    n = sum(exposure.n for exposure in record.exposures)
    value = _ratio(record) if is_ratio else record.events / n if n else None
    return _judged(name, kind, (record.events, n), value, ends, limit, curve, total, at, to_prove)


def _of_rating(name: str, rule: RatingRule, total: Arm, at: Bars, to_prove: bool) -> Check:
    low, high = rule.scale
    found, floor = scaled(total.ratings, low, high), (rule.floor - low) / (high - low)

    def curve(growth: float) -> tuple[float, float]:
        more: Ratings = found.grown(growth)
        return ratings.log_e_low(more, floor), ratings.log_e_high(more, floor)

    bound = ratings.bounds(found, fail_bar=at.fail, pass_bar=at.passes)
    ends = (low + (high - low) * bound.lower, low + (high - low) * bound.upper)
    value = low + (high - low) * found.mean if found.n else None
    return _judged(name, "limit", (found.n, found.n), value, ends, rule.floor, curve, total, at, to_prove)


def _judged(
    name: str,
    kind: Literal["limit", "ratio"],
    counts: tuple[float, float],
    value: float | None,
    ends: tuple[float, float],
    limit: float,
    curve: Curve,
    total: Arm,
    at: Bars,
    to_prove: bool,
) -> Check:
    fail, proof = curve(1.0)
    status: Literal["failed", "proven", "open"] = "open"
    more = None
    if fail >= at.fail:
        status = "failed"
    elif proof >= at.passes:
        status = "proven"
    elif to_prove and counts[1] > 0:
        # The one of the two that grows is the one to wait for.
        growth = growth_to(lambda g: max(curve(g)[0] - at.fail, curve(g)[1] - at.passes))
        more = None if growth is None else max(1, math.ceil(total.requests * (growth - 1)))
    return Check(name, kind, *counts, value, *ends, limit, fail, proof, status, to_prove, more)


def _rate(x: float) -> float:
    return 0.0 if x == -math.inf else 1.0 if x == math.inf else rate_at(x)


def _ratio(record: Record) -> float | None:
    """Return the ratio at which the candidate's share of the events is what was seen: the maximum of the likelihood."""
    n = sum(exposure.n for exposure in record.exposures)
    if not n:
        return None
    if record.events >= n:
        return math.inf
    low, high = -30.0, 30.0
    for _ in range(32):
        middle = (low + high) / 2
        expected = sum(part * rate_at(middle + offset) for part, offset in record.exposures)
        low, high = (middle, high) if expected < record.events else (low, middle)
    return math.exp(low) if record.events else 0.0
