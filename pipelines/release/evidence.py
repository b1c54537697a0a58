"""What counts say about a rate, at every look: e-processes from a mixture of likelihood ratios.

An e-process against a hypothesis is at most 1 on average under it, at whatever moment one looks, so it reaches
1 / alpha with a probability of at most alpha ever (Ville 1939; Ramdas, Grunwald, Vovk & Shafer 2023). Each component
compares the rate p with the one whose odds are m times as large. With odds in place of rates that ratio is short:

    E(s, n; p) = sum over m of w_m * m^s * (1 + (m - 1) p)^(-n)

It falls with p for every m > 1 and grows for every m < 1. So mixtures above 1 are e-processes against "at most p" and
those below 1 against "at least p", each rate has exact bounds by inversion, and E(0, 0) is exactly 1. Weights are
measured: docs/decisions/0030-canary-e-processes.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple


class Component(NamedTuple):
    """One alternative of a mixture.

    Attributes:
        multiple: m, of the odds.
        log_multiple: Its log; minus infinity for 0.
        log_weight: Log of its weight.
    """

    multiple: float
    log_multiple: float
    log_weight: float


Mixture = tuple[Component, ...]


def mixture(*parts: tuple[float, float]) -> Mixture:
    """Return a mixture of (multiple of the odds, weight); the weights sum to 1."""
    assert math.isclose(sum(weight for _, weight in parts), 1.0), "an e-process starts at 1"
    return tuple(Component(m, math.log(m) if m else -math.inf, math.log(weight)) for m, weight in parts)


HARM = mixture((1.5, 0.1), (2.0, 0.2), (3.0, 0.35), (6.0, 0.2), (15.0, 0.15))  # a rate is too high
PROOF = mixture((2 / 3, 0.1), (1 / 2, 0.45), (1 / 5, 0.2), (0.0, 0.25))  # a rate is low enough

FARTHEST = 30.0  # log-odds beyond which a rate is 0 or 1, and a ratio 0 or endless
ALMOST_ONE = 1.0 - 1e-16
CLOSE = 1e-5  # in log-odds: near enough to a bound
WIDE = 2.0  # a width above which halving is the faster way
MOST_STEPS = 60
MOST_GROWTH = 1e4  # times the requests so far; a decision farther away is none


class Exposure(NamedTuple):
    """Chances for an event that share one base.

    Attributes:
        n: Chances: requests, or events of both sides.
        offset: Log-odds that the base adds to what is asked about: 0 for a rate of its own; for a ratio, the log of the
            candidate's requests per request of stable.
    """

    n: float
    offset: float = 0.0


class Record(NamedTuple):
    """Events among chances."""

    events: float
    exposures: tuple[Exposure, ...]

    def grown(self, factor: float) -> Record:
        """Return what `factor` times as many chances hold if it goes on like this."""
        return Record(self.events * factor, tuple(Exposure(n * factor, offset) for n, offset in self.exposures))


class Range(NamedTuple):
    """Two one-sided bounds that hold at every look; infinite log-odds where nothing is bounded."""

    lower: float
    upper: float


def of_rate(events: float, n: float) -> Record:
    """Return the record of a rate: `events` among `n` requests."""
    return Record(events, (Exposure(n),) if n > 0 else ())


def of_ratio(sides: list[tuple[float, float, float, float]]) -> Record:
    """Return the record of a candidate's rate over stable's, by whose event each event is.

    Of all events of an epoch, one is the candidate's with odds ratio * n_candidate / n_stable, whatever the base rate
    does meanwhile (after Lindon & Malek 2020, arXiv 2011.03567). Epochs in which one side had no request say nothing.

    Args:
        sides: Per weight epoch: candidate's events, candidate's requests, stable's events, stable's requests.
    """
    told = [side for side in sides if side[1] > 0 and side[3] > 0]
    exposures = tuple(Exposure(mine + theirs, math.log(n / m)) for mine, n, theirs, m in told if mine + theirs > 0)
    return Record(sum(side[0] for side in told), exposures)


def log_odds(rate: float) -> float:
    """Return log(rate / (1 - rate)) for a rate above 0 and below 1."""
    return math.log(rate) - math.log1p(-rate)


def rate_at(x: float) -> float:
    """Return the rate with log-odds `x`."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def log_e(record: Record, x: float, against: Mixture) -> float:
    """Return the log of the mixture's e-value against the hypothesis at log-odds `x` (or log-ratio, for a ratio).

    Args:
        record: What was counted.
        x: `log_odds(limit)` of a rate, `log(ratio)` of a ratio.
        against: HARM against "at most x", PROOF against "at least x".
    """
    events = record.events
    # A rate that rounds to 1 would ask for log(0) of the component at odds 0.
    rates = [(n, min(rate_at(x + offset), ALMOST_ONE)) for n, offset in record.exposures]
    terms = []
    for multiple, log_multiple, log_weight in against:
        term = log_weight + (events * log_multiple if events else 0.0)
        for n, rate in rates:
            term -= n * math.log1p((multiple - 1.0) * rate)
        terms.append(term)
    return log_sum(terms)


def log_sum(terms: list[float]) -> float:
    """Return log(sum(exp(term))) without overflow."""
    top = max(terms)
    return top + math.log(sum([math.exp(term - top) for term in terms]))


def bounds(record: Record, *, fail_bar: float, pass_bar: float) -> Range:
    """Bound what is asked about by turning the two tests around, so that bounds and verdicts always agree.

    The lower bound is above a limit exactly if the evidence of harm at this limit reaches `fail_bar`; the upper bound
    is below it exactly if the evidence of health reaches `pass_bar`.

    Args:
        record: What was counted.
        fail_bar: Log of the e-value that fails, such as log(G / alpha).
        pass_bar: Log of the e-value that proves, such as log(1 / alpha).

    Returns:
        Log-odds of a rate, or log of a ratio.
    """
    lower = highest(lambda x: log_e(record, x, HARM) - fail_bar)
    upper = -highest(lambda x: log_e(record, -x, PROOF) - pass_bar)
    return Range(lower, upper)


def highest(excess: Callable[[float], float], far: float = FARTHEST) -> float:
    """Return the largest x from -far to far at which a falling function is at least 0.

    By bisection, then by false position (the Illinois form); the end that is returned is always one that holds.

    Returns:
        Minus infinity if it is below 0 everywhere, infinity if nowhere.
    """
    low, high = -far, far
    at_low, at_high = excess(low), excess(high)
    if at_low < 0:
        return -math.inf
    if at_high >= 0:
        return math.inf
    side = 0
    for _ in range(MOST_STEPS):
        if high - low < CLOSE:
            break
        x = (low + high) / 2 if high - low > WIDE else low + (high - low) * at_low / (at_low - at_high)
        x = min(max(x, low + CLOSE / 4), high - CLOSE / 4)
        at = excess(x)
        if at >= 0:
            low, at_low = x, at
            at_high = at_high / 2 if side > 0 else at_high
            side = 1
        else:
            high, at_high = x, at
            at_low = at_low / 2 if side < 0 else at_low
            side = -1
    return low


def growth_to(excess: Callable[[float], float]) -> float | None:
    """Return by what factor the counts must grow, in the shares they have now, until a log e-value reaches its bar.

    The log of a mixture is convex along that path and starts below the bar, so it crosses the bar once.

    Args:
        excess: Log e-value minus the bar, at a factor; below 0 at 1.

    Returns:
        A factor above 1; None if no affordable number of requests decides.
    """
    if excess(MOST_GROWTH) < 0:
        return None
    # From 1e-4 of what there is up to the most.
    return 1.0 + math.exp(-highest(lambda x: excess(1.0 + math.exp(-x)), far=math.log(MOST_GROWTH)))
