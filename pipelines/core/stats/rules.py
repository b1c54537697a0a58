"""What a rule is decided on, and how missing rows enter.

Missing rows are decided twice, once as bad and once as good as they can be (Manski 1990); only what comes out both
times the same is decided.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.estimate import Clusters, Kind
from pipelines.core.stats.intervals import z_score
from pipelines.core.stats.judges import Agreement
from pipelines.core.stats.power import smallest_detectable

Floats = NDArray[np.float64]
Verdict = Literal["pass", "fail", "manual_review", "error", "not_applicable"]

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
        agreement: How the judge that gave the values agrees with people, for a judged rate.
    """

    direction: Literal["higher", "lower"]
    kind: Kind
    low: float | None = None
    high: float | None = None
    quantile: float | None = None
    is_exact: bool = False
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
    )


def undecided(known: Ruling, n_missing: int) -> Ruling:
    """Leave to a person a metric without a range, whose missing rows could be anything."""
    return known._replace(
        verdict="manual_review", n=known.n + n_missing, n_missing=n_missing, p_value=1.0, is_split=True
    )


def at(clusters: Clusters, chosen: NDArray[np.bool_]) -> Clusters:
    """Return the clusters of the chosen rows, or None if each of them stands alone."""
    if clusters is None:
        return None
    found = clusters[chosen]
    return found if len(np.unique(found)) < len(found) else None
