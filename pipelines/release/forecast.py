"""How many requests a rollout will take, told before it starts: how each test ends, and how long stages last."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.rollout import RatingRule, Rollout
from pipelines.release.checks import Bars, bars, has_limit, limit_of
from pipelines.release.evidence import HARM, PROOF, log_e, log_odds, of_rate

MOST_REQUESTS = 20_000
HEALTHY = (0.0, 0.2, 0.5)  # times the limit: candidates that should be proven
BROKEN = (2.0, 3.0, 5.0)  # and such that should be rolled back


class Edges(NamedTuple):
    """Where a test of one rate ends.

    Attributes:
        n: Requests at each look.
        fail: Fewest events that fail it, per look.
        passes: Most events that prove it, per look; -1 where none would.
    """

    n: list[int]
    fail: list[int]
    passes: list[int]


class Course(NamedTuple):
    """How a test ends at one true rate; requests are counted until it decides.

    Attributes:
        p_fail: Probability that it fails.
        p_pass: Probability that it is proven.
        mean: Requests on average, where one of the two is (nearly) sure; else infinite.
        median: Requests by which half have been decided; None if fewer ever are.
        p90: Likewise, nine of ten.
    """

    p_fail: float
    p_pass: float
    mean: float
    median: int | None
    p90: int | None


def edges(limit: float, at: Bars, *, every: int, most: int) -> Edges:
    """Return where the test of a rate ends, at each look.

    Args:
        limit: The rate's ceiling, above 0 and below 1.
        at: What decides.
        every: Requests between two looks.
        most: Requests at the last look.
    """
    x = log_odds(limit)
    found = Edges(list(range(every, most + 1, every)), [], [])
    fail, passes = 0, -1
    for n in found.n:
        fail, passes = _edge(n, fail, passes, x, at)
        found.fail.append(fail)
        found.passes.append(passes)
    return found


def course(rate: float, limit: float, at: Bars, *, every: int = 10, most: int = MOST_REQUESTS) -> Course:
    """Follow the distribution of the number of events from look to look, exactly.

    Args:
        rate: True rate, 0 to 1.
        limit: The rate's ceiling.
        at: What decides.
        every: Requests between two looks.
        most: Requests after which nothing more is followed.
    """
    kernel = _binomial(every, rate)
    alive = np.ones(1)
    p_fail = p_pass = mean = 0.0
    median = p90 = None
    fail, passes, x = 0, -1, log_odds(limit)
    for n in range(every, most + 1, every):
        alive = np.convolve(alive, kernel)
        fail, passes = _edge(n, fail, passes, x, at)
        failed, passed = float(alive[fail:].sum()), float(alive[: passes + 1].sum())
        alive = alive[:fail]
        alive[: passes + 1] = 0.0
        p_fail, p_pass, mean = p_fail + failed, p_pass + passed, mean + n * (failed + passed)
        if median is None and p_fail + p_pass >= 0.5:
            median = n
        if p90 is None and p_fail + p_pass >= 0.9:
            p90 = n
        if p_fail + p_pass > 1 - 1e-6:
            return Course(p_fail, p_pass, mean, median, p90)
    return Course(p_fail, p_pass, math.inf, median, p90)


def _edge(n: int, fail: int, passes: int, x: float, at: Bars) -> tuple[int, int]:
    """Return the fewest events that fail and the most that prove; both only grow with n."""
    while fail <= n and log_e(of_rate(fail, n), x, HARM) < at.fail:
        fail += 1
    while passes < n and log_e(of_rate(passes + 1, n), x, PROOF) >= at.passes:
        passes += 1
    return fail, passes


def _binomial(n: int, rate: float) -> NDArray[np.float64]:
    return np.array([math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)])


class Required(NamedTuple):
    """What one gate asks for at one true rate.

    Attributes:
        gate: Name.
        limit: Its ceiling, as a share of requests.
        rate: True rate.
        course: How its test ends then.
    """

    gate: str
    limit: float
    rate: float
    course: Course


class StageForecast(NamedTuple):
    """One stage as it is expected to go.

    Attributes:
        weight: Percent of the users.
        n_requests: Candidate requests in this stage.
        minutes: Until so many have come.
        most_minutes: Until time is up.
    """

    weight: float
    n_requests: int
    minutes: float
    most_minutes: float


def required_requests(rollout: Rollout) -> list[Required]:
    """Return how many requests the limits of a rollout ask for, at rates below and above them.

    Ratings and ratios are left out: they depend on how many users rate, and on what stable does.
    """
    at = bars(rollout)
    found = []
    for gate, rule in rollout.gates.rules().items():
        if isinstance(rule, RatingRule) or not has_limit(rule):
            continue
        limit = limit_of(rule)
        rates = [limit * share for share in (*HEALTHY, *BROKEN) if limit * share < 1]
        found += [Required(gate, limit, rate, course(rate, limit, at)) for rate in rates]
    return found


def expected_stages(
    rollout: Rollout, *, requests_per_minute: float, health: float = 0.2, before: int = 0
) -> list[StageForecast]:
    """Return how long each stage will take for a healthy candidate; evidence of earlier stages counts.

    Args:
        rollout: Stages and gates.
        requests_per_minute: Current traffic, both sides together.
        health: Its true rates, as a share of the limits.
        before: Candidate requests that an A/B test before the first stage brings.
    """
    at, total, found = bars(rollout), before, list[StageForecast]()
    medians = [
        course(limit_of(rule) * health, limit_of(rule), at).median
        for rule in rollout.gates.rules().values()
        if not isinstance(rule, RatingRule) and has_limit(rule) and rule.prove != "none"
    ]
    to_prove = max((MOST_REQUESTS if n is None else n for n in medians), default=0)
    for stage in rollout.stages:
        n = stage.min_requests
        if stage.require == "proven":
            n = max(n, to_prove - total)
        total += n
        minutes = n / (requests_per_minute * stage.weight / 100)
        found.append(StageForecast(stage.weight, n, minutes, stage.max_duration_s / 60))
    return found
