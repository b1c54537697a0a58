"""Compare candidate and stable on one metric that was named before, and guard the others; valid at every look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pipelines.core.rollout import AbMetric, AbRun, AbTest
from pipelines.release import figures
from pipelines.release.canary import Word
from pipelines.release.counters import MOST
from pipelines.release.sample_ratio import Split
from pipelines.release.sample_ratio import p_value as p_of_split
from pipelines.release.sequences import Moments, difference, half_width, p_value, tuning
from pipelines.release.student import two_sided_p

# Range of what a user's mean can be; None where it has no upper end.
RANGES: dict[str, tuple[float, float] | None] = {
    "error_rate": (0.0, 1.0),
    "schema_failure_rate": (0.0, 1.0),
    "refusal_rate": (0.0, 1.0),
    "truncation_rate": (0.0, 1.0),
    "rating": (0.0, 1.0),
    "latency_ms": None,
    "ttft_ms": None,
    "cost_usd": None,
}
LARGEST = 1e100  # sum of squares that can still be multiplied
HIGHER_IS_BETTER = {"rating"}


class Pair(NamedTuple):
    """Closed outcomes of one metric."""

    candidate: Moments
    stable: Moments


class Comparison(NamedTuple):
    """One metric, side by side.

    Attributes:
        metric: Name.
        n_candidate: Closed outcomes with this metric.
        n_stable: Likewise.
        mean_candidate: Mean per user.
        mean_stable: Likewise.
        gain: How much better the candidate is, in the metric's unit; below 0 it is worse.
        lower: Bound of the gain, one-sided, valid at every look.
        upper: Likewise.
        margin: Largest loss that is allowed.
        p_harm: p-value against "the loss is within the margin", valid at every look.
        p_safe: p-value against "the loss is beyond the margin", likewise.
        adjusted_p_harm: After Holm over the secondaries; for the primary p_harm itself.
        welch_t: Welch's t of the gain against 0: for readers who expect it, valid for a single look only.
        welch_p: Its two-sided p-value.
        cohens_d: Gain in pooled standard deviations.
    """

    metric: str
    n_candidate: float
    n_stable: float
    mean_candidate: float
    mean_stable: float
    gain: float
    lower: float
    upper: float
    margin: float
    p_harm: float
    p_safe: float
    adjusted_p_harm: float
    welch_t: float
    welch_p: float
    cohens_d: float


class AbVerdict(NamedTuple):
    """What to do after an A/B test, and why.

    Attributes:
        verdict: As a canary's: advance (not worse by more than the margin), rollback, hold or invalid.
        reasons: One sentence each.
        comparisons: The primary metric first; only those with enough outcomes.
        sample_ratio_p: p-value that users were split as declared, valid at every look.
    """

    verdict: Word
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    sample_ratio_p: float = 1.0


def verdict(outcomes: Mapping[str, Pair], users: Split, test: AbTest, run: AbRun) -> AbVerdict:
    """Decide an A/B test.

    Args:
        outcomes: Per metric, what the users whose window is over add up to.
        users: Users (or requests, where these are the unit) that were admitted to each side, with the declared share.
        test: What is compared.
        run: How the target runs it.
    """
    if problem := _problem(outcomes, users):
        return AbVerdict("invalid", (problem,))
    p_split = p_of_split([users], 1)
    metrics = (test.primary, *test.secondaries)
    found = [_compared(metric, outcomes, test, run) for metric in metrics]
    primary, secondaries = found[0], adjusted([one for one in found[1:] if one], len(test.secondaries))
    shown = (*([primary] if primary else []), *secondaries)
    if p_split <= test.sample_ratio_alpha:
        reason = f"the split is not the declared one (p = {p_split:.2g}); the sides cannot be compared"
        return AbVerdict("invalid", (reason,), shown, p_split)
    word, reasons = _decide(primary, secondaries, test, run)
    return AbVerdict(word, reasons, shown, p_split)


def _decide(
    primary: Comparison | None, secondaries: list[Comparison], test: AbTest, run: AbRun
) -> tuple[Word, tuple[str, ...]]:
    harmed = [one for one in secondaries if one.adjusted_p_harm <= test.alpha]
    if primary is not None and primary.upper < -primary.margin:
        harmed.insert(0, primary)
    if harmed:
        return "rollback", tuple(f"worse by more than the margin: {describe(one)}" for one in harmed)
    if primary is None:
        name = test.primary.metric
        return "hold", (f"{name}: fewer than {run.min_per_arm} closed outcomes on a side, or all of them the same",)
    if primary.lower > -primary.margin:
        return "advance", (f"not worse by more than the margin: {describe(primary)}",)
    return "hold", (f"undecided: {describe(primary)}",)


def _compared(metric: AbMetric, outcomes: Mapping[str, Pair], test: AbTest, run: AbRun) -> Comparison | None:
    """Compare one metric; None if there are too few outcomes, or an unbounded one never varied."""
    pair = outcomes.get(metric.metric)
    if pair is None or min(pair.candidate.n, pair.stable.n) < run.min_per_arm:
        return None
    sign = 1.0 if metric.metric in HIGHER_IS_BETTER else -1.0
    ends = RANGES[metric.metric]
    arms = pair if ends is None else Pair(*(arm.with_ends(*ends) for arm in pair))
    if arms.candidate.variance + arms.stable.variance == 0:
        return None
    joint = difference(arms.candidate, arms.stable)  # the ends widen the bounds; they do not move the centre
    gain, r2 = sign * (pair.candidate.mean - pair.stable.mean), tuning(min(0.49, 2 * test.alpha), run.n_opt)
    half = half_width(joint.deviation, joint.n, r2, test.alpha)
    p_harm = p_value(-metric.margin - gain, joint.deviation, joint.n, r2)
    p_safe = p_value(gain + metric.margin, joint.deviation, joint.n, r2)
    t, p = welch(pair, sign)
    means = (pair.candidate.n, pair.stable.n, pair.candidate.mean, pair.stable.mean)
    ends_of_gain = (gain, gain - half, gain + half, metric.margin)
    return Comparison(metric.metric, *means, *ends_of_gain, p_harm, p_safe, p_harm, t, p, cohens_d(pair, sign))


def adjusted(secondaries: list[Comparison], n_declared: int) -> list[Comparison]:
    """Adjust p-values of harm as core.stats.multiple.holm does, without NumPy: the gateway judges too.

    All that are declared count from the first look on: one without enough outcomes yet has a p-value of 1.
    """
    found, highest = dict[str, float](), 0.0
    for rank, one in enumerate(sorted(secondaries, key=lambda one: one.p_harm)):
        highest = max(highest, min(1.0, one.p_harm * (n_declared - rank)))
        found[one.metric] = highest
    return [one._replace(adjusted_p_harm=found[one.metric]) for one in secondaries]


def welch(pair: Pair, sign: float = 1.0) -> tuple[float, float]:
    """Return Welch's t (1947) of the difference and its two-sided p-value, with Satterthwaite's degrees of freedom.

    Outcomes that all agree on both sides have no t: NaN.
    """
    parts = [arm.variance / arm.n for arm in pair]
    error = math.sqrt(sum(parts))
    if not error > 0:
        return math.nan, math.nan
    shares = [part / sum(parts) for part in parts]
    degrees = 1 / sum(share**2 / (arm.n - 1) for share, arm in zip(shares, pair, strict=True))
    t = sign * (pair.candidate.mean - pair.stable.mean) / error
    return t, two_sided_p(t, degrees)


def cohens_d(pair: Pair, sign: float = 1.0) -> float:
    """Return the difference in pooled standard deviations (Cohen 1988); NaN if nothing varied."""
    degrees = pair.candidate.n + pair.stable.n - 2
    pooled = math.sqrt(sum(arm.variance * (arm.n - 1) for arm in pair) / degrees)
    return sign * (pair.candidate.mean - pair.stable.mean) / pooled if pooled else math.nan


def _problem(outcomes: Mapping[str, Pair], users: Split) -> str:
    if not all(0 <= value <= MOST for value in users):
        return "the number of users is negative or no count"
    for name, pair in outcomes.items():
        for side, arm in zip(Pair._fields, pair, strict=True):
            if not (0 <= arm.n <= MOST and 0 <= arm.squares <= LARGEST and abs(arm.total) <= LARGEST):
                return f"{name}: the {side}'s sums are negative, too large or no numbers"
            if arm.total * arm.total > arm.n * arm.squares * (1 + 1e-9) + 1e-12:
                return f"{name}: no {arm.n:g} outcomes of the {side} have such sums"
    return ""


def describe(one: Comparison) -> str:
    """Say what was measured of a metric, in which bounds, against what."""
    candidate, stable, margin = (
        figures.measure(one.metric, value) for value in (one.mean_candidate, one.mean_stable, one.margin)
    )
    gain, low, high = (
        figures.measure(one.metric, value, is_signed=True).replace(figures.MINUS, "-")
        for value in (one.gain, one.lower, one.upper)
    )
    return f"{one.metric}: {candidate} against {stable}, gain {gain} ({figures.span(low, high)}), margin {margin}"
