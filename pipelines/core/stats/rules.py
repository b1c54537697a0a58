"""What a rule is decided on, and how missing rows enter.

Missing rows are decided twice, once as bad and once as good as they can be (Manski 1990); only what comes out both
times the same is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.clusters import FEWEST_CLUSTERS, effective_clusters
from pipelines.core.stats.estimate import Clusters, Kind
from pipelines.core.stats.intervals import z_score
from pipelines.core.stats.judges import Agreement
from pipelines.core.stats.power import smallest_detectable

Floats = NDArray[np.float64]
Verdict = Literal["pass", "fail", "manual_review", "error", "not_applicable"]
Hindrance = Literal["", "few-clusters", "no-range", "beyond-range"]

# Below, a normal interval of a mean is not to be trusted, and a person decides.
FEWEST_CONTINUOUS = 20


class Scale(NamedTuple):
    """What values a metric can take, and how its rows are to be read.

    Attributes:
        direction: Which way is better.
        kind: `binary` rows are 0 or 1, `continuous` rows any value, `quantile` is an order statistic of the rows.
        low: Smallest possible value, if there is one.
        high: Largest possible value, if there is one.
        quantile: Which one, for kind `quantile`.
        is_exact: Clopper-Pearson instead of Wilson bounds.
        is_log: Rows are averaged on the logarithmic scale: the metric is their geometric mean.
        has_tail: The largest value is a gate's and not the metric's own, so that rare rows near it are to be expected.
        agreement: How the judge that gave the values agrees with people, for a judged rate.
    """

    direction: Literal["higher", "lower"]
    kind: Kind
    low: float | None = None
    high: float | None = None
    quantile: float | None = None
    is_exact: bool = False
    is_log: bool = False
    has_tail: bool = False
    agreement: Agreement | None = None


class Ruling(NamedTuple):
    """What became of a rule.

    Attributes:
        verdict: `pass`, `fail` or `manual_review`.
        value: Measured value, or gain against the baseline.
        lower: One-sided lower bound; with missing rows, the lower of both decisions.
        upper: One-sided upper bound; with missing rows, the higher of both decisions.
        n: Rows that were decided on, missing ones included.
        n_missing: Of those, the missing ones.
        method: Name of the interval.
        p_value: Of the evidence for `fail`, missing rows taken as favourable.
        n_to_decide: More rows that would decide; None if none is needed or no affordable number would do.
        smallest_detectable: Distance from the limit at which 80 % of such evaluations would decide; None if unknown.
        is_split: Whether the missing rows alone keep the rule from being decided.
        hindrance: What else keeps the rows from deciding: too few clusters, no declared range, or a row beyond it.
    """

    verdict: Verdict
    value: float
    lower: float
    upper: float
    n: int
    n_missing: int
    method: str
    p_value: float
    n_to_decide: int | None = None
    smallest_detectable: float | None = None
    is_split: bool = False
    hindrance: Hindrance = ""


def detectable(half_width: float, alpha: float) -> float | None:
    """Return the smallest effect that bounds of this half-width see with a power of 80 %, if they are finite."""
    return None if not math.isfinite(half_width) else smallest_detectable(half_width / z_score(alpha), alpha=alpha)


def ends(scale: Scale) -> tuple[float, float] | None:
    """Return what a missing value can be at least and at most, or None if that has no bounds."""
    if scale.kind == "quantile":  # order statistics bear infinity
        return (scale.low if scale.low is not None else -math.inf), math.inf
    return None if scale.low is None or scale.high is None else (float(scale.low), float(scale.high))


def both(known: Ruling, bad: Ruling, good: Ruling, n_missing: int) -> Ruling:
    """Join what was decided with the missing rows as bad and as good as can be: apart, they decide nothing."""
    is_agreed = bad.verdict == good.verdict
    return known._replace(
        verdict=bad.verdict if is_agreed else "manual_review",
        lower=min(bad.lower, good.lower),
        upper=max(bad.upper, good.upper),
        n=bad.n,
        n_missing=n_missing,
        p_value=max(bad.p_value, good.p_value),
        is_split=not is_agreed,
        hindrance=bad.hindrance or good.hindrance,
    )


def undecided(known: Ruling, n_missing: int) -> Ruling:
    """Leave to a person a metric without a range, whose missing rows could be anything."""
    return known._replace(
        verdict="manual_review", n=known.n + n_missing, n_missing=n_missing, p_value=1.0, is_split=True
    )


def hindrance(sides: Sequence[Floats], scale: Scale, clusters: Clusters) -> Hindrance:
    """Say what keeps complete rows from deciding, whatever their interval says.

    No sample bounds the mean of values without a largest one (Bahadur & Savage 1956): a rare huge value that it
    happens to lack is not seen in it. And a few clusters say nothing about how clusters differ.

    Args:
        sides: Values per row, of the candidate and, for a regression, of the baseline, none missing.
        scale: What values the metric can take.
        clusters: Number of the cluster per row, if rows depend on each other.
    """
    if clusters is not None and effective_clusters(clusters) < FEWEST_CLUSTERS:
        return "few-clusters"
    if scale.kind != "continuous":
        return ""
    if scale.low is None or scale.high is None:
        return "no-range"
    low, high = scale.low, scale.high
    slack = 1e-9 * (high - low)
    is_beyond = any(bool(((values < low - slack) | (values > high + slack)).any()) for values in sides)
    return "beyond-range" if is_beyond else ""


def rows_for_clusters(n: int, clusters: Clusters) -> int:
    """Return how many more rows make the fewest clusters that decide, in clusters as large as these; at least 0."""
    if clusters is None:
        return 0
    effective = effective_clusters(clusters)
    return max(0, math.ceil((FEWEST_CLUSTERS - effective) * n / effective - 1e-9))


def at(clusters: Clusters, chosen: NDArray[np.bool_]) -> Clusters:
    """Return the clusters of the chosen rows, or None if each of them stands alone."""
    if clusters is None:
        return None
    found = clusters[chosen]
    return found if len(np.unique(found)) < len(found) else None
