"""Decide a floor or a ceiling from rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats import judges, power
from pipelines.core.stats.clusters import effective_clusters, spread
from pipelines.core.stats.estimate import Clusters, Estimate, counts, ends_of, estimate, mean_bell, raised
from pipelines.core.stats.intervals import clopper_pearson, p_rate_at_least, p_rate_at_most
from pipelines.core.stats.quantiles import p_quantile_at_least, p_quantile_at_most, rows_needed
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


def decide_limit(
    values: Floats, limit: float, *, is_floor: bool, scale: Scale, clusters: Clusters = None, alpha: float = 0.05
) -> Ruling:
    """Hold a metric against a floor or a ceiling.

    Pass if the bound nearer to the limit keeps it; fail if the evidence against it has a p-value below alpha (for
    rates: the Clopper-Pearson bound, since Wilson's fails a candidate on a floor near 1 up to 20 % of the time).

    Args:
        values: One number per row, NaN where missing; shape (n_rows,), at least one known.
        limit: The floor or ceiling.
        is_floor: A floor; else a ceiling.
        scale: What values the metric can take.
        clusters: Number of the cluster per row, if rows depend on each other.
        alpha: Level of each decision.
    """
    if scale.is_log:
        return _limit_of_logs(values, limit, is_floor, scale, clusters, alpha)
    is_missing = np.isnan(values)
    known = _limit_once(values[~is_missing], limit, is_floor, scale, at(clusters, ~is_missing), alpha)
    if not is_missing.any():
        return _with_rows_to_limit(known, values, limit, is_floor, scale, clusters, alpha)
    extremes = ends(scale)
    if extremes is None:
        return undecided(known, int(is_missing.sum()))
    bad, good = extremes if is_floor else extremes[::-1]
    doubt = int(is_missing.sum()) * (extremes[1] - extremes[0])
    return both(
        known,
        _limit_once(np.where(is_missing, bad, values), limit, is_floor, scale, clusters, alpha, doubt),
        _limit_once(np.where(is_missing, good, values), limit, is_floor, scale, clusters, alpha, doubt),
        int(is_missing.sum()),
    )


def _limit_of_logs(
    values: Floats, limit: float, is_floor: bool, scale: Scale, clusters: Clusters, alpha: float
) -> Ruling:
    """Decide a geometric mean by the mean of the logarithms, and write the ruling in the metric's own unit."""
    assert scale.low, "a metric with logarithms is above 0"
    logs = scale._replace(
        is_log=False, low=math.log(scale.low), high=None if scale.high is None else math.log(scale.high)
    )
    least = scale.low
    found = decide_limit(
        np.log(np.maximum(values, least)),
        math.log(max(limit, least * 1e-6)),
        is_floor=is_floor,
        scale=logs,
        clusters=clusters,
        alpha=alpha,
    )
    value, lower, upper = (raised(part) for part in (found.value, found.lower, found.upper))
    seen = None if found.smallest_detectable is None else value * math.expm1(min(found.smallest_detectable, 700.0))
    return found._replace(value=value, lower=lower, upper=upper, method=f"log-{found.method}", smallest_detectable=seen)


def _limit_once(
    values: Floats,
    limit: float,
    is_floor: bool,
    scale: Scale,
    clusters: Clusters,
    alpha: float,
    doubt: float = 0.0,
) -> Ruling:
    found, p_value = _evidence(values, limit, is_floor, scale, clusters, alpha, doubt)
    keeps = found.lower >= limit if is_floor else found.upper <= limit
    verdict: Verdict = "pass" if keeps else "fail" if p_value < alpha else "manual_review"
    if scale.kind == "continuous" and found.n < FEWEST_CONTINUOUS:
        verdict = "manual_review"
    because = hindrance([values], scale, clusters)
    # A mean shown to be above its ceiling stays so whatever large value the rows lack.
    if because == "few-clusters" or (because and not (verdict == "fail" and not is_floor)):
        verdict = "manual_review"
    ruling = Ruling(verdict, found.value, found.lower, found.upper, found.n, 0, found.method, p_value)
    return ruling._replace(hindrance=because if verdict == "manual_review" else "")


def _evidence(
    values: Floats, limit: float, is_floor: bool, scale: Scale, clusters: Clusters, alpha: float, doubt: float
) -> tuple[Estimate, float]:
    """Return the estimate and the p-value of the hypothesis that the limit is kept."""
    if scale.agreement is not None:
        successes, rows = counts(values, clusters, doubt)
        if clusters is not None:  # no pseudo-clusters here, so that each cluster counts once
            share = min(1.0, effective_clusters(clusters) / rows)
            successes, rows = successes * share, rows * share
        bell = judges.corrected_rate(successes, rows, scale.agreement, alpha=alpha).bell
        found = judges.corrected_estimate(successes, rows, scale.agreement, alpha=alpha)
        return found._replace(n=len(values)), bell.p_at_least(limit) if is_floor else bell.p_at_most(limit)
    found = estimate(
        values,
        kind=scale.kind,
        low=scale.low,
        high=scale.high,
        is_exact=scale.is_exact,
        quantile=scale.quantile,
        clusters=clusters,
        doubt=doubt,
        alpha=alpha,
    )
    if scale.kind == "quantile":
        assert scale.quantile is not None, "a quantile metric declares its quantile"
        at_least, at_most = p_quantile_at_least, p_quantile_at_most
        return found, (at_least if is_floor else at_most)(values, scale.quantile, limit)
    if scale.kind == "binary":
        p_value = (p_rate_at_least if is_floor else p_rate_at_most)(limit, *counts(values, clusters, doubt))
    else:
        bell = mean_bell(values, scale.low, scale.high, clusters, doubt)
        p_value = bell.p_at_least(limit) if is_floor else bell.p_at_most(limit)
    if clusters is not None:
        ends = ends_of(scale.kind, scale.low, scale.high)
        bell = spread(values, clusters, ends=ends, doubt=doubt).bell
        p_value = max(p_value, bell.p_at_least(limit) if is_floor else bell.p_at_most(limit))
    return found, p_value


def _with_rows_to_limit(
    ruling: Ruling, values: Floats, limit: float, is_floor: bool, scale: Scale, clusters: Clusters, alpha: float
) -> Ruling:
    """Add how many more rows would decide, in clusters as large as these, and what so many rows can see."""
    if scale.kind == "quantile":
        return _with_rows_to_quantile(ruling, values, limit, is_floor, scale, alpha)
    half_width = max(ruling.upper - ruling.value, ruling.value - ruling.lower)
    seen = detectable(half_width, alpha)
    if ruling.verdict != "manual_review":
        return ruling._replace(smallest_detectable=seen)
    if ruling.hindrance in ("no-range", "beyond-range"):  # no number of rows would do
        return ruling._replace(smallest_detectable=seen)
    is_above = ruling.value >= limit
    side = ruling.value - ruling.lower if is_above else ruling.upper - ruling.value
    more = power.rows_to_decide(ruling.n, side, abs(ruling.value - limit), alpha=alpha)
    flawless = 1.0 if is_floor else 0.0
    if scale.kind == "binary" and scale.agreement is None and ruling.value == flawless:
        distance = 1 - limit if is_floor else limit
        if clusters is None:
            needed = power.rows_to_bound_zero(distance, alpha=alpha, is_exact=scale.is_exact)
        else:
            units = power.clusters_to_bound_zero(distance, alpha=alpha, is_exact=scale.is_exact)
            needed = None if units is None else math.ceil(units * ruling.n / effective_clusters(clusters) - 1e-9)
        more = None if needed is None else max(1, needed - ruling.n)
    if scale.kind == "continuous" and ruling.n < FEWEST_CONTINUOUS:
        more = max(more or 0, FEWEST_CONTINUOUS - ruling.n)
    if lacking := rows_for_clusters(ruling.n, clusters):
        more = max(more or 0, lacking)
    return ruling._replace(n_to_decide=more, smallest_detectable=seen)


def _with_rows_to_quantile(
    ruling: Ruling, values: Floats, limit: float, is_floor: bool, scale: Scale, alpha: float
) -> Ruling:
    """Count rows as for a rate: a quantile keeps its ceiling where the share of rows above is small enough."""
    assert scale.quantile is not None, "a quantile metric declares its quantile"
    if ruling.verdict != "manual_review":
        return ruling
    tail = 1 - scale.quantile if is_floor else scale.quantile
    n_kept = int(np.count_nonzero(values >= limit if is_floor else values <= limit))
    share, bounds = n_kept / ruling.n, clopper_pearson(n_kept, ruling.n, alpha=alpha)
    side = share - bounds.lower if share >= tail else bounds.upper - share
    more = power.rows_to_decide(ruling.n, side, abs(share - tail), alpha=alpha)
    lacking = rows_needed(tail, alpha=alpha) - ruling.n
    if n_kept == ruling.n:
        more = max(1, lacking)
    elif more is not None:
        more = max(more, lacking)
    return ruling._replace(n_to_decide=more)
