"""Has a column moved? A test and an effect floor together, so that neither noise nor sheer size raises an alarm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pipelines.core.stats.multiple import benjamini_hochberg

Counts = NDArray[np.float64]
Verdict = Literal["shifted", "unchanged", "insufficient"]

MIN_ROWS = 200  # with fewer, PSI above 0.1 is noise nine times in ten
LEAST_DISTANCE = 0.1  # smallest Kolmogorov-Smirnov distance that matters
TOLERANCE = 0.1  # smallest population stability index that matters
RARE = 5.0  # expected rows below which categories are pooled (Cochran 1954)


class Drift(NamedTuple):
    """How far one column of the current rows is from the reference.

    Attributes:
        verdict: shifted, unchanged, or insufficient (fewer than 200 rows on one side; nothing is concluded).
        test: ks (Kolmogorov-Smirnov) or chi2.
        statistic: The KS distance, 0 to 1, or the chi-square statistic.
        p_value: Of the test, before any correction.
        adjusted_p: After correction over the columns that were compared together.
        psi: Population stability index, over decile bins of the reference or over categories.
        psi_floor: What the index must reach to count: the tolerance, or what noise alone reaches.
        n_reference: Rows of the reference that have a value.
        n_current: Rows of the current data that have a value.
    """

    verdict: Verdict
    test: Literal["ks", "chi2"]
    statistic: float
    p_value: float
    adjusted_p: float
    psi: float
    psi_floor: float
    n_reference: int
    n_current: int


def numeric_drift(reference: ArrayLike, current: ArrayLike, *, tolerance: float = TOLERANCE) -> Drift:
    """Compare two samples of a number by the Kolmogorov-Smirnov test and PSI over the reference's deciles.

    Args:
        reference: Shape (n_reference,), finite.
        current: Shape (n_current,), finite.
        tolerance: Smallest PSI that matters.

    Returns:
        The drift, uncorrected (`adjusted_p` is `p_value`): call `decided` on all columns together.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    before, after = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError("drift needs finite values; leave missing ones out")
    if not len(before) or not len(after):
        return _drift("ks", 0.0, 1.0, np.zeros((2, 1)), tolerance, len(before), len(after))
    found = stats.ks_2samp(before, after, method="asymp")
    edges = np.unique(np.quantile(before, np.arange(1, 10) / 10))
    table = np.stack([_histogram(before, edges), _histogram(after, edges)])
    return _drift("ks", float(found.statistic), float(found.pvalue), table, tolerance, len(before), len(after))


def categorical_drift(reference: Sequence[str], current: Sequence[str], *, tolerance: float = TOLERANCE) -> Drift:
    """Compare two samples of a category by the chi-square test and PSI, rare categories pooled.

    Args:
        reference: One category per row.
        current: Likewise; may hold categories that the reference has not.
        tolerance: Smallest PSI that matters.

    Returns:
        The drift, uncorrected: call `decided` on all columns together.
    """
    before, after = Counter(reference), Counter(current)
    names = sorted(before | after)
    table = _pooled(np.array([[side[name] for name in names] for side in (before, after)], np.float64).reshape(2, -1))
    statistic, p_value = 0.0, 1.0
    if table.shape[1] > 1 and len(reference) and len(current):
        found = stats.chi2_contingency(table, correction=False)
        statistic, p_value = float(found.statistic), float(found.pvalue)
    return _drift("chi2", statistic, p_value, table, tolerance, len(reference), len(current))


def decided(
    columns: dict[str, Drift], *, false_discovery_rate: float = 0.05, dependent: bool = False
) -> dict[str, Drift]:
    """Decide all columns together, so that more columns do not raise more false alarms.

    A column has shifted if its adjusted p-value is at most the rate **and** the effect is large enough: a KS distance
    of at least 0.1, or a PSI of at least its floor. Columns with too few rows are neither tested nor counted.

    Args:
        columns: Name: drift.
        false_discovery_rate: Share of the alarms that may be false, 0 to 1.
        dependent: Benjamini-Yekutieli (2001) instead of Benjamini-Hochberg, for strongly dependent columns.

    Returns:
        The same columns with `adjusted_p` and `verdict`.
    """
    names = [name for name, drift in columns.items() if min(drift.n_reference, drift.n_current) >= MIN_ROWS]
    adjusted = benjamini_hochberg([columns[name].p_value for name in names])
    if dependent:
        adjusted = np.minimum(adjusted * sum(1 / rank for rank in range(1, len(names) + 1)), 1.0)
    p_values = dict(zip(names, adjusted.tolist(), strict=True))
    return {name: _decide(drift, p_values.get(name), false_discovery_rate) for name, drift in columns.items()}


def population_stability_index(reference: ArrayLike, current: ArrayLike) -> float:
    """Return the sum over bins of (q - p) ln(q / p), half a row added to each bin so that none is empty.

    Args:
        reference: Rows per bin, shape (n_bins,).
        current: Likewise.
    """
    before, after = np.asarray(reference, np.float64) + 0.5, np.asarray(current, np.float64) + 0.5
    p, q = before / before.sum(), after / after.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def psi_floor(
    n_reference: int, n_current: int, n_bins: int, *, tolerance: float = TOLERANCE, alpha: float = 0.05
) -> float:
    """Return what PSI must reach: the tolerance, or the level that two equal distributions exceed at rate alpha.

    Without any shift PSI / (1/N + 1/M) is about chi-square with n_bins - 1 degrees of freedom (Yurdakul 2018).
    """
    if n_bins < 2 or not n_reference or not n_current:
        return tolerance
    return max(tolerance, (1 / n_reference + 1 / n_current) * float(stats.chi2.ppf(1 - alpha, n_bins - 1)))


def _drift(
    test: Literal["ks", "chi2"], statistic: float, p: float, table: Counts, tolerance: float, n: int, m: int
) -> Drift:
    """Put together what is known before the columns are decided together; `table` has rows per side and bin."""
    floor = psi_floor(n, m, table.shape[1], tolerance=tolerance)
    index = population_stability_index(table[0], table[1]) if n and m else 0.0
    return Drift("insufficient", test, statistic, p, p, index, floor, n, m)


def _decide(drift: Drift, adjusted_p: float | None, rate: float) -> Drift:
    if adjusted_p is None:
        return drift._replace(verdict="insufficient")
    # A distance of 2,000 of 20,000 rows comes out of the subtraction a rounding error below 0.1.
    is_far = drift.test == "ks" and drift.statistic >= LEAST_DISTANCE - 1e-12
    is_large = is_far or drift.psi >= drift.psi_floor
    return drift._replace(verdict="shifted" if adjusted_p <= rate and is_large else "unchanged", adjusted_p=adjusted_p)


def _histogram(values: Counts, edges: Counts) -> Counts:
    """Count values per bin; a bin holds its upper edge, so that equal values stay together."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(np.float64)


def _pooled(table: Counts) -> Counts:
    """Put the categories that would have fewer than 5 expected rows on the smaller side into one."""
    total = table.sum()
    if not total:
        return table
    expected = table.sum(axis=0) * table.sum(axis=1).min() / total
    rare = expected < RARE
    if rare.sum() < 2:
        return table
    pooled: Counts = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    return pooled
