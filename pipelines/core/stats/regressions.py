"""Decide a margin against the baseline from rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats import judges, power
from pipelines.core.stats.estimate import Clusters
from pipelines.core.stats.intervals import Interval
from pipelines.core.stats.paired import Gain, paired_gain, quantile_gain
from pipelines.core.stats.quantiles import order_bounds, order_statistic, rows_needed
from pipelines.core.stats.rules import (
    FEWEST_CONTINUOUS,
    Ruling,
    Scale,
    Verdict,
    at,
    both,
    detectable,
    ends,
    hindrance,
    rows_for_clusters,
    undecided,
)

Floats = NDArray[np.float64]


def decide_regression(
    candidate: Floats,
    baseline: Floats,
    margin: float,
    *,
    scale: Scale,
    clusters: Clusters = None,
    alpha: float = 0.05,
) -> Ruling:
    """Hold a candidate against the baseline on the same rows: it may lose at most `margin`.

    Pass if the gain's lower bound is above -margin, fail if its upper bound is below -margin.

    Args:
        candidate: Value per row, NaN where missing, shape (n_rows,), at least one row known on both sides.
        baseline: Same rows in the same order; for a quantile any rows, since quantiles have no pairs.
        margin: Loss that is tolerated, in the metric's unit, at least 0.
        scale: What values the metric can take.
        clusters: Number of the cluster per row, if rows depend on each other.
        alpha: Level of each decision.
    """
    if scale.kind == "quantile":
        return _quantile_regression(candidate, baseline, margin, scale, alpha)
    is_missing = np.isnan(candidate) | np.isnan(baseline)
    known = ~is_missing
    plain = _regression_once(candidate[known], baseline[known], margin, scale, at(clusters, known), alpha)
    if known.all():
        return _with_rows_to_margin(plain, margin, scale, clusters, alpha)
    extremes = ends(scale)
    if extremes is None:
        return undecided(plain, int(is_missing.sum()))
    worst, best = extremes if scale.direction == "higher" else extremes[::-1]

    n_values = int(np.isnan(candidate).sum() + np.isnan(baseline).sum())
    doubt = n_values * (extremes[1] - extremes[0])

    def filled(ours: float, theirs: float) -> Ruling:
        now = np.where(np.isnan(candidate), ours, candidate)
        then = np.where(np.isnan(baseline), theirs, baseline)
        return _regression_once(now, then, margin, scale, clusters, alpha, doubt)

    return both(plain, filled(worst, best), filled(best, worst), int(is_missing.sum()))


def _regression_once(
    candidate: Floats,
    baseline: Floats,
    margin: float,
    scale: Scale,
    clusters: Clusters,
    alpha: float,
    doubt: float = 0.0,
) -> Ruling:
    found = gain_of(candidate, baseline, scale=scale, clusters=clusters, margin=margin, alpha=alpha, doubt=doubt)
    is_fail = found.upper < -margin and found.p_value < alpha
    verdict: Verdict = "pass" if found.lower > -margin else "fail" if is_fail else "manual_review"
    if scale.kind == "continuous" and found.n < FEWEST_CONTINUOUS:
        verdict = "manual_review"
    because = hindrance([candidate, baseline], scale, clusters)
    ruling = Ruling(verdict, found.value, found.lower, found.upper, found.n, 0, found.method, found.p_value)
    return ruling._replace(verdict="manual_review", hindrance=because) if because else ruling


def gain_of(
    candidate: Floats,
    baseline: Floats,
    *,
    scale: Scale,
    clusters: Clusters,
    margin: float,
    alpha: float,
    doubt: float = 0.0,
) -> Gain:
    """Estimate the paired gain of complete rows, corrected for the judge's errors where the metric is judged."""
    assert scale.kind != "quantile", "quantiles have no pairs"
    if scale.is_log:
        return _gain_of_geometric_means(candidate, baseline, scale, clusters, margin, alpha, doubt)
    found = paired_gain(
        candidate,
        baseline,
        direction=scale.direction,
        kind=scale.kind,
        low=scale.low,
        high=scale.high,
        clusters=clusters,
        doubt=doubt,
        has_tail=scale.has_tail,
        margin=margin,
        alpha=alpha,
    )
    if scale.agreement is None:
        return found
    return judges.corrected_gain(found, scale.agreement, margin=margin, alpha=alpha)


def _gain_of_geometric_means(
    candidate: Floats, baseline: Floats, scale: Scale, clusters: Clusters, margin: float, alpha: float, doubt: float
) -> Gain:
    """Estimate the gain in a geometric mean G by the mean of G (1 + log x - log G) on each side (delta method)."""
    assert scale.low, "a metric with logarithms is above 0"
    logs = [np.log(np.maximum(side, scale.low)) for side in (candidate, baseline)]
    means = [math.exp(float(side.mean())) for side in logs]
    now, then = (mean * (1 + side - side.mean()) for side, mean in zip(logs, means, strict=True))
    width = None if scale.high is None else max(means) * math.log(scale.high / scale.low)
    found = gain_of(
        now,
        then,
        scale=scale._replace(is_log=False, low=None if width is None else 0.0, high=width),
        clusters=clusters,
        margin=margin,
        alpha=alpha,
        doubt=0.0 if width is None or scale.high is None else doubt * width / (scale.high - scale.low),
    )
    # The width of the tangent is none of the geometric mean's, so that a bound clipped to it says nothing.
    lower = -math.inf if width is not None and found.lower <= -width else found.lower
    return found._replace(lower=lower, method=f"log-{found.method}")


def _with_rows_to_margin(ruling: Ruling, margin: float, scale: Scale, clusters: Clusters, alpha: float) -> Ruling:
    half_width = max(ruling.upper - ruling.value, ruling.value - ruling.lower)
    seen = detectable(half_width, alpha)
    if ruling.verdict != "manual_review" or ruling.hindrance in ("no-range", "beyond-range"):
        return ruling._replace(smallest_detectable=seen)
    side = ruling.value - ruling.lower if ruling.value >= -margin else ruling.upper - ruling.value
    more = power.rows_to_decide(ruling.n, side, abs(ruling.value + margin), alpha=alpha)
    if scale.kind == "continuous" and ruling.n < FEWEST_CONTINUOUS:
        more = max(more or 0, FEWEST_CONTINUOUS - ruling.n)
    if lacking := rows_for_clusters(ruling.n, clusters):
        more = max(more or 0, lacking)
    return ruling._replace(n_to_decide=more, smallest_detectable=seen)


def _quantile_regression(candidate: Floats, baseline: Floats, margin: float, scale: Scale, alpha: float) -> Ruling:
    """Compare two quantiles through bounds of each at alpha / 2; a missing value may be anything of the range."""
    quantile = scale.quantile
    assert quantile is not None, "a quantile metric declares its quantile"
    extremes = ends(scale) or (-math.inf, math.inf)
    ours, theirs = (
        [np.sort(np.where(np.isnan(side), end, side)) for end in extremes] for side in (candidate, baseline)
    )

    def side_bounds(fillings: list[Floats], level: float) -> Interval:
        return Interval(
            order_bounds(fillings[0], quantile, alpha=level / 2).lower,
            order_bounds(fillings[1], quantile, alpha=level / 2).upper,
        )

    def bounds(level: float) -> Interval:
        fall = quantile_gain(side_bounds(ours, level), side_bounds(theirs, level))
        return fall if scale.direction == "lower" else Interval(-fall.upper, -fall.lower)

    lower, upper = bounds(alpha)
    is_fail = upper < -margin
    verdict: Verdict = "pass" if lower > -margin else "fail" if is_fail else "manual_review"
    p_value = _smallest_level(lambda level: bounds(level).upper < -margin, alpha) if is_fail else 1.0
    now, then = (order_statistic(side[~np.isnan(side)], quantile) for side in (candidate, baseline))
    gain = then - now if scale.direction == "lower" else now - then
    n_missing = int(np.isnan(candidate).sum() + np.isnan(baseline).sum())
    ruling = Ruling(verdict, gain, lower, upper, len(candidate), n_missing, "order-statistics", p_value)
    if verdict != "manual_review" or n_missing:
        return ruling
    side = gain - lower if gain >= -margin else upper - gain
    more = power.rows_to_decide(ruling.n, side, abs(gain + margin), alpha=alpha / 2)
    lacking = max(rows_needed(tail, alpha=alpha / 2) for tail in (quantile, 1 - quantile)) - ruling.n
    return ruling._replace(n_to_decide=lacking if lacking > 0 and not math.isfinite(side) else more)


def _smallest_level(rejects: Callable[[float], bool], alpha: float) -> float:
    """Return the smallest level (to 1 %) at which a test still rejects, by halving its logarithm."""
    below, above = alpha * 1e-6, alpha
    while above / below > 1.01:
        middle = math.sqrt(below * above)
        below, above = (below, middle) if rejects(middle) else (middle, above)
    return above
