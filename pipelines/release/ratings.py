"""What ratings say about their mean, at every look: a bet per rating against the floor.

A bet multiplies what it has by 1 + b (x - m) for each rating x. Under "the mean is at most m" no b from 0 to 1 / m
gains on average, whatever the distribution of ratings is, so a mixture of such bets is an e-process (Waudby-Smith &
Ramdas 2024, "Estimating means of bounded random variables by betting"). The order of ratings does not matter: counts
per level do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from pipelines.release.evidence import Range, highest, log_sum, rate_at

# Share of the largest bet that cannot ruin, and its weight.
BETS = ((0.05, 0.15), (0.1, 0.2), (0.2, 0.25), (0.4, 0.2), (0.6, 0.1), (0.9, 0.1))


class Ratings(NamedTuple):
    """Ratings per level, scaled so that the worst is 0 and the best 1."""

    counts: tuple[tuple[float, float], ...]

    @property
    def n(self) -> float:
        """Number of ratings."""
        return sum(count for _, count in self.counts)

    @property
    def mean(self) -> float:
        """Mean from 0 to 1; NaN without ratings."""
        return sum(level * count for level, count in self.counts) / self.n if self.n else math.nan

    def below(self, floor: float) -> float:
        """Return the ratings below a floor, from 0 to 1."""
        return sum(count for level, count in self.counts if level < floor - 1e-12)

    def grown(self, factor: float) -> Ratings:
        """Return `factor` times as many ratings in the same shares."""
        return Ratings(tuple((level, count * factor) for level, count in self.counts))


def scaled(counts: Iterable[tuple[float, float]], low: float, high: float) -> Ratings:
    """Scale ratings per level to 0 (worst) to 1 (best).

    Raises:
        ValueError: A rating lies outside the scale.
    """
    known = sorted(counts)
    for level, _ in known:
        if not low <= level <= high:
            raise ValueError(f"a rating of {level:g} lies outside the scale, {low:g} to {high:g}")
    return Ratings(tuple(((level - low) / (high - low), float(count)) for level, count in known))


def log_e_low(ratings: Ratings, floor: float) -> float:
    """Return the log e-value against "the mean is at least `floor`": large if ratings are too low.

    Args:
        ratings: Scaled.
        floor: Above 0, below 1.
    """
    return _mixed(ratings, floor, -1.0 / (1.0 - floor))


def log_e_high(ratings: Ratings, floor: float) -> float:
    """Return the log e-value against "the mean is at most `floor`": large if ratings are high enough."""
    return _mixed(ratings, floor, 1.0 / floor)


def _mixed(ratings: Ratings, floor: float, largest: float) -> float:
    terms = []
    for share, weight in BETS:
        bet = share * largest
        gains = (count * math.log1p(bet * (level - floor)) for level, count in ratings.counts if count)
        terms.append(math.log(weight) + sum(gains))
    return log_sum(terms)


def bounds(ratings: Ratings, *, fail_bar: float, pass_bar: float) -> Range:
    """Bound the mean by turning both bets around: outside lie the floors that it is shown to miss or to keep.

    Args:
        ratings: Scaled.
        fail_bar: Log of the e-value that fails: the upper bound is below a floor exactly if it is reached there.
        pass_bar: Log of the e-value that proves: the lower bound is above a floor exactly if it is reached there.

    Returns:
        From 0 to 1.
    """
    lower = highest(lambda x: log_e_high(ratings, rate_at(x)) - pass_bar)
    upper = -highest(lambda x: log_e_low(ratings, rate_at(-x)) - fail_bar)
    return Range(rate_at(lower), rate_at(upper))
