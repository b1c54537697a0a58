"""What a judge's grades are worth, once people have checked some of them (Lee et al., arXiv 2511.21140)."""

from __future__ import annotations

import math
from typing import NamedTuple

from pipelines.core.stats.estimate import Estimate
from pipelines.core.stats.intervals import Bell, z_score
from pipelines.core.stats.paired import Gain


class Agreement(NamedTuple):
    """How a judge graded rows that people had labelled.

    Attributes:
        m0: Rows that people called bad (0).
        m1: Rows that people called good (1).
        correct0: Of the bad ones, those that the judge calls bad.
        correct1: Of the good ones, those that the judge calls good.
    """

    m0: int
    m1: int
    correct0: int
    correct1: int

    @property
    def q0(self) -> float:
        """The judge's specificity, 0 to 1."""
        return self.correct0 / self.m0

    @property
    def q1(self) -> float:
        """The judge's sensitivity, 0 to 1."""
        return self.correct1 / self.m1

    @property
    def is_informative(self) -> bool:
        """Whether the judge knows more than a coin: both kinds of rows were labelled, and q0 + q1 > 1."""
        return self.m0 > 0 and self.m1 > 0 and self.q0 + self.q1 > 1


class Corrected(NamedTuple):
    """The rate that people would have given.

    Attributes:
        value: theta = (p + q0 - 1) / (q0 + q1 - 1), within 0 and 1.
        bell: Its distribution, rows and labelled rows both counted, with pseudo-rows.
    """

    value: float
    bell: Bell


def corrected_rate(successes: float, n: float, agreement: Agreement, *, alpha: float = 0.05) -> Corrected:
    """Correct a judged rate for the judge's errors.

    The value is the plain plug-in. The interval is Lee et al.'s: pseudo-rows are added first, p~ = (n p + z^2 / 2) /
    (n + z^2) and q~ = (m q + 1) / (m + 2), theta~ = (p~ + q~0 - 1) / (q~0 + q~1 - 1) is shifted by
    dtheta = 2 z^2 (-(1 - theta~) q~0 (1 - q~0) / m~0 + theta~ q~1 (1 - q~1) / m~1), and its standard error is the
    square root of p~ (1 - p~) / n~ + (1 - theta~)^2 q~0 (1 - q~0) / m~0 + theta~^2 q~1 (1 - q~1) / m~1, divided by
    J = q~0 + q~1 - 1. z is the one-sided quantile here.

    Args:
        successes: Rows that the judge calls good.
        n: Rows, above 0.
        agreement: An informative one.
        alpha: Level of the bounds that the distribution is meant for.

    Raises:
        ValueError: The agreement is not informative.
    """
    if not agreement.is_informative:
        raise ValueError("the judge knows no more than a coin (q0 + q1 <= 1): nothing can be corrected")
    value = (successes / n + agreement.q0 - 1) / (agreement.q0 + agreement.q1 - 1)
    z = z_score(alpha)
    rows = n + z * z
    p = (successes + z * z / 2) / rows
    q0, q1 = (agreement.correct0 + 1) / (agreement.m0 + 2), (agreement.correct1 + 1) / (agreement.m1 + 2)
    noise0, noise1 = q0 * (1 - q0) / (agreement.m0 + 2), q1 * (1 - q1) / (agreement.m1 + 2)
    # The pseudo-rows can pull a judge that is hardly informative below q0 + q1 = 1.
    informed = q0 + q1 - 1
    if informed <= 0:
        return Corrected(_share(value), Bell(_share(value), math.inf, 0))
    theta = (p + q0 - 1) / informed
    shift = 2 * z * z * (theta * noise1 - (1 - theta) * noise0)
    variance = p * (1 - p) / rows + (1 - theta) ** 2 * noise0 + theta**2 * noise1
    return Corrected(_share(value), Bell(theta + shift, math.sqrt(variance) / informed))


def corrected_estimate(successes: float, n: float, agreement: Agreement, *, alpha: float = 0.05) -> Estimate:
    """Return the corrected rate with its bounds, within 0 and 1."""
    found = corrected_rate(successes, n, agreement, alpha=alpha)
    bounds = found.bell.bounds(alpha)
    return Estimate(found.value, max(0.0, bounds.lower), min(1.0, bounds.upper), round(n), "judge-corrected")


def corrected_gain(gain: Gain, agreement: Agreement, *, margin: float = 0.0, alpha: float = 0.05) -> Gain:
    """Correct a paired gain in a judged rate: the same judge errs alike on both sides, so only the scale changes.

    gain / J with J = q0 + q1 - 1; its variance is that of the gain / J^2, plus gain^2 (var q0 + var q1) / J^4 (delta
    method). The paired interval's own half-widths stand for the standard error of the gain.

    Args:
        gain: As judged, with bounds of the same alpha.
        agreement: An informative one.
        margin: Loss that is tolerated, for the p-value.
        alpha: Level of each bound.
    """
    q0, q1 = (agreement.correct0 + 1) / (agreement.m0 + 2), (agreement.correct1 + 1) / (agreement.m1 + 2)
    informed = q0 + q1 - 1
    if informed <= 0:
        return gain._replace(lower=-1.0, upper=1.0, p_value=1.0, method="judge-corrected")
    z = z_score(alpha)
    scale = q0 * (1 - q0) / (agreement.m0 + 2) + q1 * (1 - q1) / (agreement.m1 + 2)
    own = max(gain.value - gain.lower, gain.upper - gain.value) / z
    centre = gain.value / informed
    bell = Bell(centre, math.sqrt(own**2 + centre**2 * scale) / informed)
    lower, upper = bell.bounds(alpha)
    return gain._replace(
        value=centre,
        lower=max(-1.0, lower),
        upper=min(1.0, upper),
        p_value=bell.p_at_least(-margin),
        method="judge-corrected",
    )


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
