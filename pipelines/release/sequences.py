"""Bounds of the difference between two means that hold at every look: asymptotic confidence sequences.

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52: from a few hundred observations on, a mean may be looked at after each one.

A margin asks for one side, so the mixture is over effects of one sign: with K = sqrt(n r^2 + 1) and F the normal
distribution, 2 e^x F(sqrt(2 x)) / K is at most 1 on average, and reaches 1 / alpha at the latest at
x = ln(1 + K / (2 alpha)), because 1 - F(sqrt(2 x)) <= e^-x / 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Moments(NamedTuple):
    """What one arm's outcomes add up to; differences of it are what came since.

    Attributes:
        n: Closed outcomes.
        total: Their sum.
        squares: Sum of their squares.
    """

    n: float
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean outcome; NaN without any."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Sample variance (divided by n - 1); NaN below two outcomes."""
        if self.n < 2:
            return math.nan
        return max(0.0, (self.squares - self.total * self.total / self.n) / (self.n - 1))

    def with_ends(self, low: float, high: float) -> Moments:
        """Add one pseudo-outcome at each end of the range, so that outcomes which all agree are not certainty."""
        return Moments(self.n + 2, self.total + low + high, self.squares + low * low + high * high)


def moments(values: list[float]) -> Moments:
    """Add up outcomes."""
    return Moments(len(values), math.fsum(values), math.fsum(value * value for value in values))


class Difference(NamedTuple):
    """A difference of two means, as one mean of `n` outcomes of both arms.

    Attributes:
        value: Candidate's mean minus stable's.
        deviation: Its standard deviation per outcome: sqrt(s1^2 / share1 + s2^2 / share2).
        n: Outcomes of both arms.
    """

    value: float
    deviation: float
    n: float


def difference(candidate: Moments, stable: Moments) -> Difference:
    """Combine two arms of at least two outcomes each; the joint form, which is narrower than adding two half-widths."""
    n = candidate.n + stable.n
    variance = candidate.variance * n / candidate.n + stable.variance * n / stable.n
    return Difference(candidate.mean - stable.mean, math.sqrt(variance), n)


def tuning(alpha: float, n_opt: float) -> float:
    """Return r^2, with which the two-sided bounds of level alpha are tightest at `n_opt` outcomes.

    r^2 = (-2 ln a + ln(-2 ln a) + 1) / n_opt, for alpha below 0.5.
    """
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / n_opt


def half_width(deviation: float, n: float, r2: float, alpha: float) -> float:
    """Return the distance of one one-sided bound of level alpha from the mean.

    s sqrt(2 (n r^2 + 1) / (n^2 r^2) * ln(1 + sqrt(n r^2 + 1) / (2 alpha))).

    Args:
        deviation: Standard deviation s of one outcome.
        n: Outcomes, above 0.
        r2: From `tuning`, fixed before the first look.
        alpha: Level, of this bound at all looks together.
    """
    grown = n * r2 + 1
    return deviation * math.sqrt(2 * grown / (n * n * r2) * math.log1p(math.sqrt(grown) / (2 * alpha)))


def p_value(gap: float, deviation: float, n: float, r2: float) -> float:
    """Return the level at which the bound just reaches the mean plus or minus `gap`: a p-value valid at every look.

    Args:
        gap: How far the mean lies on the far side of what it is tested against; 0 or below is no evidence.
        deviation: Standard deviation of one outcome.
        n: Outcomes.
        r2: From `tuning`.
    """
    if gap <= 0:
        return 1.0
    if deviation == 0:
        return 0.0
    grown = n * r2 + 1
    distance = min(gap * n / deviation, 1e150)  # squared, it stays a number
    exponent = distance**2 * r2 / (2 * grown)
    return min(1.0, math.sqrt(grown) / (2 * math.expm1(exponent))) if exponent < 700 else 0.0
