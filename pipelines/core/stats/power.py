"""How many rows a decision needs, and what so many rows can see."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.core.stats.intervals import clopper_pearson, shrunken, wilson, z_score

# A gate that needs more rows than this is said to need too many, not how many.
MOST_ROWS = 1_000_000


def smallest_detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.80) -> float:
    """Return the smallest effect that is seen with the given power: (z(alpha) + z(1 - power)) * standard error.

    Args:
        standard_error: Of the estimate, in the metric's unit.
        alpha: Level of the one-sided test.
        power: Probability of seeing an effect of that size.
    """
    return (z_score(alpha) + z_score(1 - power)) * standard_error


def rows_to_detect(effect: float, flip_rate: float, *, alpha: float = 0.05, power: float = 0.80) -> int:
    """Return the rows that a paired comparison needs: n = (z(alpha) + z(1 - power))^2 * flip_rate / effect^2.

    At a flip rate of 0.1: 62 rows for 0.10, 248 for 0.05, 687 for 0.03, 1,546 for 0.02.

    Args:
        effect: Difference of the rates, above 0; the answer is at most 10^12 rows.
        flip_rate: Share of the rows on which candidate and baseline disagree, 0 to 1.
        alpha: Level of the one-sided test.
        power: Probability of a decision.
    """
    scaled = (z_score(alpha) + z_score(1 - power)) * math.sqrt(flip_rate) / effect
    return max(1, math.ceil(min(scaled, MOST_ROWS) ** 2))


def rows_to_decide(
    n: int, half_width: float, distance: float, *, alpha: float = 0.05, power: float = 0.80
) -> int | None:
    """Return how many more rows like these would decide, if the true value is the one measured.

    A half-width falls with the square root of n; the power needs (z(alpha) + z(1 - power)) / z(alpha) times as much
    distance as the bound alone. For a paired rate this is the formula of `rows_to_detect`.

    Args:
        n: Rows there are.
        half_width: Distance between the value and its bound on the side of the limit.
        distance: Distance between the value and the limit, in the same unit.
        alpha: Level of the bound.
        power: Probability of a decision.

    Returns:
        More rows, at least 1; None if the value lies so near the limit that no affordable number decides.
    """
    if distance <= 0 or not math.isfinite(half_width):
        return None
    factor = (z_score(alpha) + z_score(1 - power)) / z_score(alpha)
    # A distance near 0 would overflow when squared; from here on the answer is None anyway.
    needed = n * min(factor * half_width / distance, MOST_ROWS) ** 2
    return None if needed - n > MOST_ROWS else max(1, math.ceil(needed - n))


def rows_to_bound_zero(limit: float, *, alpha: float = 0.05, is_exact: bool = True) -> int | None:
    """Return the rows of which none may be flagged to show that the rate is at most `limit`.

    Exact: the smallest n with (1 - limit)^n <= alpha, 59 for 0.05; Wilson: z^2 (1 - limit) / limit, 52 for 0.05.

    Args:
        limit: A rate, 0 to 1.
        alpha: Level of the bound.
        is_exact: Clopper-Pearson instead of Wilson bounds.

    Returns:
        None if no affordable number of rows shows it.
    """
    if limit >= 1:
        return 1
    if limit <= 0:
        return None
    needed = math.log(alpha) / math.log1p(-limit) if is_exact else z_score(alpha) ** 2 * (1 - limit) / limit
    return None if needed > MOST_ROWS else math.ceil(needed - 1e-9)


def clusters_to_bound_zero(limit: float, *, alpha: float = 0.05, is_exact: bool = True) -> int | None:
    """Return the clusters in none of which a row may be flagged to show that the rate is at most `limit`.

    Rows of a cluster may all come from what they share, so that each counts once; the standard error between clusters
    has a pseudo-cluster at each end and Student's t, and is the wider one: 66 for 0.05 where 59 single rows do.

    Args:
        limit: A rate, 0 to 1.
        alpha: Level of the bound.
        is_exact: Clopper-Pearson instead of Wilson bounds.

    Returns:
        None if no affordable number of clusters shows it.
    """
    if limit >= 1:
        return 2
    bound = clopper_pearson if is_exact else wilson

    def is_shown(count: int) -> bool:
        between = shrunken(0.0, 0.0, count, 0.0, 1.0)._replace(degrees=count - 1)
        return max(bound(0, count, alpha=alpha).upper, between.bounds(alpha).upper) <= limit

    return smallest(is_shown, least=2)


def smallest(suffices: Callable[[int], bool], *, least: int = 1, most: int = MOST_ROWS) -> int | None:
    """Return the smallest number, up to `most`, that suffices, by bisection; None if that does not."""
    if not suffices(most):
        return None
    low, high = least - 1, least
    while not suffices(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def can_pass(limit: float, n: int, *, is_floor: bool, alpha: float = 0.05, is_exact: bool = False) -> bool:
    """Tell whether n flawless rows would pass a binary gate: if not, the gate cannot pass at all.

    Args:
        limit: Floor or ceiling, 0 to 1.
        n: Rows the suite will have.
        is_floor: A floor; else a ceiling.
        alpha: Level of the bound.
        is_exact: Clopper-Pearson instead of Wilson bounds.
    """
    if n < 1:
        return False
    bound = clopper_pearson if is_exact else wilson
    return bound(n, n, alpha=alpha).lower >= limit if is_floor else bound(0, n, alpha=alpha).upper <= limit
