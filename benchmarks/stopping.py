"""The rules that `benchmarks.canary` puts side by side, each for many runs at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.release.evidence import HARM
from pipelines.release.forecast import Edges
from pipelines.release.ratings import BETS

Counts = NDArray[np.int64]
EVERY = 10  # requests between two looks
WINDOW = 30
ALPHA, BETA, N_GATES = 0.05, 0.05, 3
N_STAGES = 5
LIMIT, FLOOR = 0.01, 0.7  # of the rates, and of the ratings, of a whole rollout


class Ends(NamedTuple):
    """How runs ended under one rule.

    Attributes:
        failed: Whether each run failed, shape (n_runs,).
        passed: Whether each was proven.
        n: Requests until then, or all.
    """

    failed: NDArray[np.bool_]
    passed: NDArray[np.bool_]
    n: Counts


def drawn(rate: float, runs: int, most: int, seed: int) -> Counts:
    """Return the events so far at each look, shape (runs, looks)."""
    rng = np.random.default_rng([seed, round(rate * 1e6)])
    return rng.binomial(EVERY, rate, (runs, most // EVERY)).cumsum(axis=1)


def ends(fails: NDArray[np.bool_], passes: NDArray[np.bool_]) -> Ends:
    """Return how runs end that stop at the first look at which either holds; both have shape (runs, looks)."""
    stops = fails | passes
    first = np.where(stops.any(axis=1), stops.argmax(axis=1), stops.shape[1] - 1)
    rows = np.arange(len(stops))
    return Ends(fails[rows, first], passes[rows, first], (first + 1) * EVERY)


def by_edges(counts: Counts, at: Edges) -> Ends:
    """Return how runs end under the rule of this repository."""
    looks = counts.shape[1]
    return ends(counts >= np.array(at.fail[:looks]), counts <= np.array(at.passes[:looks]))


def sprt(counts: Counts, limit: float, known: float) -> Ends:
    """Return how runs end under Wald's sequential probability ratio test of `limit` against a known alternative."""
    n = np.arange(1, counts.shape[1] + 1) * EVERY
    ratio = counts * math.log(known / limit) + (n - counts) * math.log((1 - known) / (1 - limit))
    alpha = ALPHA / N_GATES
    return ends(ratio >= math.log((1 - BETA) / alpha), ratio <= math.log(BETA / (1 - alpha)))


def beta_mixture(counts: Counts, limit: float) -> Ends:
    """Return how runs end under the Beta(1/2, 1/2) mixture above the limit, the textbook e-process."""
    from scipy import special

    n = np.arange(1, counts.shape[1] + 1) * EVERY
    a, b = counts + 0.5, n - counts + 0.5
    with np.errstate(divide="ignore"):
        log_e = special.betaln(a, b) + np.log(special.betaincc(a, b, limit)) - counts * math.log(limit)
    log_e -= (n - counts) * math.log1p(-limit) + special.betaln(0.5, 0.5) + math.log(special.betaincc(0.5, 0.5, limit))
    return ends(log_e >= math.log(N_GATES / ALPHA), np.zeros_like(log_e, dtype=bool))


def windows(counts: Counts, limit: float, failures: int) -> NDArray[np.bool_]:
    """Tell which runs a windowed threshold aborts: `failures` of ten windows of 30 requests above the limit."""
    per_window = np.diff(counts[:, WINDOW // EVERY - 1 :: WINDOW // EVERY][:, :10], axis=1, prepend=0)
    return (per_window / WINDOW > limit).sum(axis=1) >= failures


def staged_windows(counts: Counts, failures: int) -> NDArray[np.bool_]:
    """Tell which runs are aborted by windows in any of five stages of ten windows each."""
    per_window = np.diff(counts[:, WINDOW // EVERY - 1 :: WINDOW // EVERY][:, :50], axis=1, prepend=0)
    bad = (per_window / WINDOW > LIMIT).reshape(len(counts), N_STAGES, 10).sum(axis=2)
    return (bad >= failures).any(axis=1)


def is_harm(counts: list[Counts], given: Counts, happy: Counts) -> NDArray[np.bool_]:
    """Tell at which looks the mean of the e-values of all gates reaches 1 / alpha."""
    n, floor = np.arange(1, given.shape[1] + 1) * EVERY, FLOOR
    total = np.zeros(given.shape)
    with np.errstate(over="ignore"):
        for events in counts:
            for multiple, log_multiple, log_weight in HARM:
                total += np.exp(log_weight + events * log_multiple - n * math.log1p((multiple - 1) * LIMIT))
        for share, weight in BETS:
            bet = share / (1 - floor)
            gains = (given - happy) * math.log1p(bet * floor) + happy * math.log1p(bet * (floor - 1))
            total += np.exp(math.log(weight) + gains)
    return total / (len(counts) + 1) >= 1 / ALPHA
