"""One-sided bounds of a rate and of a mean, each of level alpha.

No interval has zero width: rows that all agree are few rows, not certainty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

# Scale of an unbounded metric whose values are all zero: the smallest amount that is ever shown.
SMALLEST_AMOUNT = 1e-6


class Interval(NamedTuple):
    """Two one-sided bounds, each of level alpha; infinite where the rows bound nothing."""

    lower: float
    upper: float


class Bell(NamedTuple):
    """What is known about a mean, as a normal or a Student's t distribution around a centre.

    Attributes:
        centre: Where the distribution is centred; not always the plain mean.
        standard_error: Above 0.
        degrees: Degrees of freedom of Student's t; infinity is the normal distribution.
    """

    centre: float
    standard_error: float
    degrees: float = math.inf

    def bounds(self, alpha: float = 0.05) -> Interval:
        """Return the one-sided bounds of level alpha."""
        if self.degrees < 1:
            return Interval(-math.inf, math.inf)
        is_normal = math.isinf(self.degrees)
        z = z_score(alpha) if is_normal else float(special.stdtrit(self.degrees, 1 - alpha))
        return Interval(self.centre - z * self.standard_error, self.centre + z * self.standard_error)

    def p_at_least(self, limit: float) -> float:
        """Return the p-value against the hypothesis that the mean is at least `limit`: small if it is clearly below."""
        if self.degrees < 1:
            return 1.0
        z = (self.centre - limit) / self.standard_error
        return float(special.ndtr(z) if math.isinf(self.degrees) else special.stdtr(self.degrees, z))

    def p_at_most(self, limit: float) -> float:
        """Return the p-value against the hypothesis that the mean is at most `limit`: small if it is clearly above."""
        return self._replace(centre=-self.centre).p_at_least(-limit)


def z_score(alpha: float) -> float:
    """Return the normal quantile of 1 - alpha: 1.645 at 0.05."""
    return float(special.ndtri(1 - alpha))


def widest(*intervals: Interval) -> Interval:
    """Return the bounds that every one of several methods agrees to."""
    return Interval(min(bounds.lower for bounds in intervals), max(bounds.upper for bounds in intervals))


def wilson(successes: float, n: float, *, alpha: float = 0.05) -> Interval:
    """Bound a rate (Wilson 1927): the rates that a normal test at their own variance would not reject.

    Args:
        successes: Rows that count, 0 to n; a fraction where rows are averages or clustered.
        n: Rows, above 0.
        alpha: Level of each bound.
    """
    z = z_score(alpha)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    lower = 0.0 if successes <= 0 else max(0.0, centre - half)
    return Interval(lower, 1.0 if successes >= n else min(1.0, centre + half))


def clopper_pearson(successes: float, n: float, *, alpha: float = 0.05) -> Interval:
    """Bound a rate exactly (Clopper & Pearson 1934): the level holds for every n and every rate.

    With fractional counts this is the interval of Korn & Graubard (1998) for clustered rows.

    Args:
        successes: Rows that count, 0 to n.
        n: Rows, above 0.
        alpha: Level of each bound.
    """
    lower = 0.0 if successes <= 0 else float(special.betaincinv(successes, n - successes + 1, alpha))
    upper = 1.0 if successes >= n else float(special.betaincinv(successes + 1, n - successes, 1 - alpha))
    return Interval(lower, upper)


def p_rate_at_least(limit: float, successes: float, n: float) -> float:
    """Return P(Binomial(n, limit) <= successes): small if the rate is clearly below the limit.

    It is below alpha exactly if the Clopper-Pearson upper bound is below the limit.
    """
    if successes >= n or limit <= 0:
        return 1.0
    return 0.0 if limit >= 1 else float(special.betainc(n - successes, successes + 1, 1 - limit))


def p_rate_at_most(limit: float, successes: float, n: float) -> float:
    """Return P(Binomial(n, limit) >= successes): small if the rate is clearly above the limit."""
    return p_rate_at_least(1 - limit, n - successes, n)


def shrunken(mean: float, variance: float, n: float, low: float, high: float) -> Bell:
    """Describe the mean of values in a range, after adding one pseudo-row at each end of the range.

    The two rows keep many ties, or nothing but ties, from passing for certainty (Agresti & Coull 1998 do so for
    rates). The distribution is normal.

    Args:
        mean: Of the rows.
        variance: Mean squared deviation of the rows (divided by n).
        n: Rows; a fraction where they are clustered.
        low: Smallest possible value.
        high: Largest possible value.
    """
    return with_rows(mean, variance, n, low, high)


def with_rows(mean: float, variance: float, n: float, *added: float) -> Bell:
    """Describe the mean of values after adding rows that nobody measured, by the normal distribution.

    Args:
        mean: Of the rows.
        variance: Mean squared deviation of the rows (divided by n).
        n: Rows; a fraction where they are clustered.
        added: Value of each added row, at least one.
    """
    rows = n + len(added)
    centre = (n * mean + sum(added)) / rows
    squares = n * (variance + (mean - centre) ** 2) + sum((value - centre) ** 2 for value in added)
    return Bell(centre, math.sqrt(squares / (rows - 1) / rows))


def student(mean: float, variance: float, n: int, *, scale: float) -> Bell:
    """Describe the mean of values without a range, by Student's t.

    Its standard error is never below that of rows which all agree but for two pseudo-rows, one `scale` above and one
    below the mean: a token count that never varied is known to about 2.3 / n of itself, and not for certain.

    Args:
        mean: Of the rows.
        variance: Mean squared deviation of the rows (divided by n).
        n: Rows.
        scale: A typical size of the values; `SMALLEST_AMOUNT` replaces 0.
    """
    smallest = (abs(scale) or SMALLEST_AMOUNT) * math.sqrt(2 / ((n + 1) * (n + 2)))
    return Bell(mean, max(smallest, math.sqrt(variance / max(1, n - 1))), n - 1)
