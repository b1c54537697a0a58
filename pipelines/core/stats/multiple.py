"""Many looks at once: how p-values change when the best or the worst of them is picked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjust p-values so that any wrong rejection at all has at most the level's probability (Holm 1979).

    The i-th smallest of m (from 1) is multiplied by m - i + 1, and never ends below a smaller one.

    Args:
        p_values: Shape (n_tests,).

    Returns:
        Adjusted p-values in the same order, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _back(np.minimum(raised, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjust p-values so that at most the level's share of the rejections is wrong (Benjamini & Hochberg 1995).

    The i-th smallest of m (from 1) is multiplied by m / i, and never ends above a larger one.

    Args:
        p_values: Shape (n_tests,).

    Returns:
        Adjusted p-values in the same order, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    lowered = np.minimum.accumulate(scaled[::-1])[::-1]
    return _back(np.minimum(lowered, 1.0), order)


def _back(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    found = np.empty_like(adjusted)
    found[order] = adjusted
    return found
