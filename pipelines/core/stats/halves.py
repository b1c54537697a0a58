"""A/A: how often a gate would fail or ask for review although nothing has changed.

Greedy decoding against itself never differs, so that its A/A would be trivially perfect. Two random halves of the rows,
paired at random, come from the same model and do differ: more than a real candidate does, so the rates are cautious.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.intervals import z_score
from pipelines.core.stats.paired import bonett_price, tango_z
from pipelines.core.stats.regressions import decide_regression
from pipelines.core.stats.rules import Scale

# Enough to see what halves do; more rows would only take longer.
MOST_ROWS = 2_000


class Rates(NamedTuple):
    """Shares of the rounds, 0 to 1, that ended in each verdict."""

    passes: float
    reviews: float
    fails: float
    n_rounds: int


def half_rates(
    values: NDArray[np.float64],
    margin: float,
    *,
    scale: Scale,
    rng: np.random.Generator,
    n_rounds: int = 200,
    alpha: float = 0.05,
) -> Rates:
    """Compare random halves of one model's rows with each other, many times.

    Args:
        values: Value per row, none missing, shape (n_rows,), at least 4 rows.
        margin: Loss that is tolerated.
        scale: What values the metric can take; not a quantile.
        rng: Source of every draw, so that the rates can be repeated.
        n_rounds: How often the rows are split anew.
        alpha: Level of each decision.
    """
    if len(values) > MOST_ROWS:
        values = rng.choice(values, MOST_ROWS, replace=False)
    half = len(values) // 2
    is_binary = scale.kind == "binary" and bool(np.isin(values, (0.0, 1.0)).all())
    verdicts = []
    for _ in range(n_rounds):
        mixed = rng.permutation(values)
        first, second = mixed[:half], mixed[half : 2 * half]
        if is_binary:
            verdicts.append(_of_counts(int((first > second).sum()), int((first < second).sum()), half, margin, alpha))
        else:
            verdicts.append(decide_regression(first, second, margin, scale=scale, alpha=alpha).verdict)
    passes, reviews, fails = (verdicts.count(verdict) / n_rounds for verdict in ("pass", "manual_review", "fail"))
    return Rates(passes, reviews, fails, n_rounds)


def _of_counts(gains: int, losses: int, n: int, margin: float, alpha: float) -> str:
    """Decide like `decide_regression`, without searching for the bounds that nobody reads here."""
    z, score, bell = z_score(alpha), tango_z(gains, losses, n, -margin), bonett_price(gains, losses, n).bounds(alpha)
    if score > z and bell.lower > -margin:
        return "pass"
    return "fail" if score < -z and bell.upper < -margin else "manual_review"
