"""Student's t distribution with the standard library alone, for the gateway's process has no SciPy."""

from __future__ import annotations

import math

TERMS = 2_000
NORMAL = 1e6  # degrees from which on the normal distribution is as good
TINY = 1e-300


def two_sided_p(t: float, degrees: float) -> float:
    """Return the probability of a t that is at least as far from 0.

    It is the regularised incomplete beta function I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2).

    Args:
        t: The statistic; NaN where there is none.
        degrees: Degrees of freedom, above 0; a fraction is welcome.
    """
    if math.isnan(t) or not degrees > 0:
        return math.nan
    if degrees > NORMAL:
        return math.erfc(abs(t) / math.sqrt(2))
    square = min(abs(t), 1e150) ** 2
    a, b, x, rest = degrees / 2, 0.5, degrees / (degrees + square), square / (degrees + square)
    if rest == 0:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    if x < (a + 1) / (a + b + 2):
        return min(1.0, math.exp(log_front) * _fraction(a, b, x) / a)
    return max(0.0, 1 - math.exp(log_front) * _fraction(b, a, rest) / b)


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method."""
    c, d = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, TERMS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _off_zero(1 + numerator * d)
            c = _off_zero(1 + numerator / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _off_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
