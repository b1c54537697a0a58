"""The value of one metric over rows, with the bounds that its kind asks for."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.clusters import spread
from pipelines.core.stats.intervals import Bell, Interval, clopper_pearson, shrunken, student, widest, wilson
from pipelines.core.stats.quantiles import order_bounds, order_statistic

Floats = NDArray[np.float64]
Clusters = NDArray[np.int64] | None
Kind = Literal["binary", "continuous", "quantile"]


class Estimate(NamedTuple):
    """A value with its bounds.

    Attributes:
        value: The plain mean, rate or order statistic.
        lower: One-sided lower bound; minus infinity if the rows give none.
        upper: One-sided upper bound; infinity if the rows give none.
        n: Rows it was computed from.
        method: Name of the interval.
    """

    value: float
    lower: float
    upper: float
    n: int
    method: str


def estimate(
    values: Floats,
    *,
    kind: Kind,
    low: float | None = None,
    high: float | None = None,
    is_exact: bool = False,
    quantile: float | None = None,
    clusters: Clusters = None,
    doubt: float = 0.0,
    is_log: bool = False,
    alpha: float = 0.05,
) -> Estimate:
    """Estimate one metric over rows.

    Args:
        values: One number per row, repeats averaged, none missing; shape (n_rows,), at least one row.
        kind: `binary` is a rate of 0s and 1s, `continuous` a mean, `quantile` an order statistic.
        low: Smallest possible value, if there is one.
        high: Largest possible value, if there is one.
        is_exact: Clopper-Pearson instead of Wilson bounds, for a binary metric.
        quantile: Which one, for kind `quantile`.
        clusters: Number of the cluster per row, if rows depend on each other.
        doubt: By how much filled-in rows could differ from the truth, all summed up; it matters with clusters only.
        is_log: The mean of the logarithms, given back as the geometric mean; for a `continuous` metric above 0.
        alpha: Level of each of the two one-sided bounds.
    """
    n = len(values)
    if is_log:
        logs = [None if end is None else math.log(end) for end in (low, high)]
        found = estimate(
            np.log(values), kind=kind, low=logs[0], high=logs[1], clusters=clusters, doubt=doubt, alpha=alpha
        )
        value, lower, upper = (raised(part) for part in found[:3])
        return Estimate(value, lower, upper, n, f"log-{found.method}")
    if kind == "quantile":
        assert quantile is not None, "a quantile metric declares its quantile"
        bounds = order_bounds(values, quantile, alpha=alpha)
        return Estimate(order_statistic(values, quantile), *bounds, n, "order-statistic")
    mean = float(values.mean())
    if kind == "binary":
        successes, rows = counts(values, clusters, doubt)
        bounds = (clopper_pearson if is_exact else wilson)(successes, rows, alpha=alpha)
        method = "clopper-pearson" if is_exact else "wilson"
    else:
        bounds = mean_bell(values, low, high, clusters, doubt).bounds(alpha)
        method = "student-t" if low is None or high is None else "pseudo-rows"
    if clusters is not None:
        ends = ends_of(kind, low, high)
        bounds = widest(bounds, spread(values, clusters, ends=ends, doubt=doubt).bell.bounds(alpha))
        method = f"clustered-{method}"
    return Estimate(mean, *clipped(bounds, low, high), n, method)


def raised(logarithm: float) -> float:
    """Return what has this logarithm; infinity where no number is large enough."""
    return math.exp(logarithm) if logarithm < 709 else math.inf  # exp(710) overflows


def ends_of(kind: Kind, low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a row, or None where one of them is open."""
    if kind == "binary":
        return 0.0, 1.0
    return None if low is None or high is None else (float(low), float(high))


def clipped(bounds: Interval, low: float | None, high: float | None) -> Interval:
    """Keep bounds inside the range that the metric can take."""
    return Interval(
        bounds.lower if low is None else max(float(low), bounds.lower),
        bounds.upper if high is None else min(float(high), bounds.upper),
    )


def counts(values: Floats, clusters: Clusters, doubt: float = 0.0) -> tuple[float, float]:
    """Return successes and rows of a binary metric; of clustered rows, as many as independent rows would be.

    Averages of repeats make fractions; a sum of values in [0, 1] spreads at most as widely as the Binomial with the
    same mean (Hoeffding 1963), so that bounds for counts stay cautious.
    """
    n_effective = float(len(values)) if clusters is None else spread(values, clusters, doubt=doubt).n_effective
    # Averages such as 1/3 + 1/3 + 1/3 miss the whole number by the last digit.
    return round(float(values.mean()) * n_effective, 9), n_effective


def mean_bell(values: Floats, low: float | None, high: float | None, clusters: Clusters, doubt: float = 0.0) -> Bell:
    """Describe a mean: with pseudo-rows where the metric has a range, by Student's t where it has none.

    Clusters only reduce the number of rows here; a caller also takes `spread`'s own bounds, whichever are wider.
    """
    mean, variance, n = float(values.mean()), float(values.var()), len(values)
    rows = float(n) if clusters is None else spread(values, clusters, doubt=doubt).n_effective
    if low is not None and high is not None:
        return shrunken(mean, variance, rows, low, high)
    return student(mean, variance, n, scale=mean if low is None else mean - low)
