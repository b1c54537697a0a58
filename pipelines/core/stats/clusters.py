"""Rows that depend on each other: how well their mean is known, and how many independent rows know as much."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.intervals import Bell


class Spread(NamedTuple):
    """What is left of clustered rows.

    Attributes:
        bell: The mean with its clustered standard error, Student's t with clusters - 1 degrees of freedom.
        n_effective: Independent rows that would know as much, at most the number of rows.
    """

    bell: Bell
    n_effective: float


def spread(values: NDArray[np.float64], clusters: NDArray[np.int64], *, doubt: float = 0.0) -> Spread:
    """Describe a mean whose rows come in clusters (Miller 2024, arXiv 2411.00640, appendix A).

    standard error = sqrt(sum over clusters of (sum of deviations)^2 * C / (C - 1)) / n

    Rows that agree less make this larger, so that a missing row, filled in as bad as can be, could still make a mean
    look surer than it was. With doubt, what is returned holds for whatever the missing rows are: the standard error
    grows by the most that they can add to it (the sums change by at most the doubt, and once more through the mean),
    and the effective rows are as few as clusters of these sizes allow, n (C - 1) / (C * largest cluster).

    Args:
        values: Shape (n_rows,).
        clusters: Number of the cluster per row, shape (n_rows,).
        doubt: By how much the missing rows among these could differ from what is filled in, all summed up.

    Returns:
        The description. One single cluster knows nothing: infinite bounds, one effective row.
    """
    n, mean = len(values), float(values.mean())
    _, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.bincount(codes, values - mean)
    n_clusters = len(sums)
    if n_clusters < 2:
        return Spread(Bell(mean, math.inf, 0), 1.0)
    error = math.sqrt(float(sums @ sums) * n_clusters / (n_clusters - 1)) / n
    independent = float(values.var()) / n
    if doubt > 0:
        through_mean = math.sqrt(float(sizes @ sizes)) / n
        error += doubt * (1 + through_mean) * math.sqrt(n_clusters / (n_clusters - 1)) / n
        n_effective = n * (n_clusters - 1) / (n_clusters * float(sizes.max()))
    elif independent == 0:
        # Rows that all agree show no correlation; they may all come from what their clusters share.
        n_effective = float(n_clusters)
    else:
        n_effective = n * min(1.0, independent / error**2) if error > 0 else float(n)
    return Spread(Bell(mean, max(error, 1e-12), n_clusters - 1), n_effective)
