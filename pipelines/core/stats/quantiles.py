"""Bounds of a quantile from sorted values, without any assumption about the distribution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipelines.core.stats.intervals import Interval, p_rate_at_least, p_rate_at_most

Floats = NDArray[np.float64]


def order_statistic(values: Floats, quantile: float) -> float:
    """Return the smallest value that at least a share `quantile` of the rows does not exceed.

    Args:
        values: Shape (n_rows,), at least one.
        quantile: 0 to 1.
    """
    # An exact share of ranks may come out of the product a hair too large.
    rank = max(1, math.ceil(len(values) * quantile - 1e-9))
    return float(np.partition(values, rank - 1)[rank - 1])


def order_bounds(values: Floats, quantile: float, *, alpha: float = 0.05) -> Interval:
    """Bound a quantile by order statistics.

    The upper bound is the smallest sorted value x(r) with P(Binomial(n, quantile) < r) >= 1 - alpha. There is none
    (infinity) below 59 rows for the 95th percentile and 299 for the 99th, at alpha 0.05.

    Args:
        values: Shape (n_rows,); infinity stands for a value that is missing and may be anything.
        quantile: 0 to 1.
        alpha: Level of each bound.
    """
    n = len(values)
    ordered = np.sort(values)
    below = special.bdtr(np.arange(n, dtype=np.float64), n, quantile)  # P(Binomial < rank), for rank 1 to n
    upper = int(np.searchsorted(below, 1 - alpha))
    lower = int(np.searchsorted(below, alpha, side="right")) - 1
    return Interval(
        -math.inf if lower < 0 else float(ordered[lower]), math.inf if upper >= n else float(ordered[upper])
    )


def p_quantile_at_most(values: Floats, quantile: float, limit: float) -> float:
    """Return the p-value against the hypothesis that the quantile is at most `limit`: small if clearly above."""
    return p_rate_at_most(1 - quantile, int(np.count_nonzero(values > limit)), len(values))


def p_quantile_at_least(values: Floats, quantile: float, limit: float) -> float:
    """Return the p-value against the hypothesis that the quantile is at least `limit`: small if clearly below."""
    return p_rate_at_least(1 - quantile, int(np.count_nonzero(values >= limit)), len(values))


def rows_needed(quantile: float, *, alpha: float = 0.05) -> int:
    """Return the fewest rows whose largest value bounds the quantile from above: 59 for 0.95, 299 for 0.99.

    Raises:
        ValueError: The quantile is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile between 0 and 1 is needed, found {quantile:g}")
    return math.ceil(math.log(alpha) / math.log(quantile))
