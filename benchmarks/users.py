"""What `benchmarks.canary` measures of users: requests of one are alike, and more of them are no more evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.sides import Figure
from pipelines.core.rollout import Rollout
from pipelines.release.checks import bars
from pipelines.release.evidence import HARM

TEST = 50.0  # percent of the A/B test that comes first
N_USERS = 500  # few, so that alike requests come early and weigh most
LIMIT = 0.01
EVERY = 10  # requests between two looks


def of_users(runs: int, rollout: Rollout) -> Iterator[Figure]:
    """A few users always fail, the others never: how often the error rate's limit alone rolls that back.

    Each stage lasts until every user of the candidate has had as many requests as count, which is the most that alike
    requests can do. Shares are nested, as the gateway deals them: who has the candidate keeps it.
    """
    most, bar = rollout.max_requests_per_user, bars(rollout).fail
    weights = [TEST, *(stage.weight for stage in rollout.stages)]
    for share in (0.002, 0.003, 0.005):
        rng = np.random.default_rng([6, round(share * 1e6)])
        ended = [_is_rolled_back(rng, share, weights, most, bar) for _ in range(runs)]
        others = {
            f"{n} counted per stage": float(
                np.mean([_is_rolled_back(rng, share, weights, n, bar) for _ in range(n_runs)])
            )
            for n, n_runs in ((3, runs // 2), (20, runs // 4))
            if n_runs
        }
        what = f"1 % limit, {share:.1%} of the users always fail, {most} counted per stage: rolled back"
        yield Figure(what, 0.05, float(np.mean(ended)), others)


def _is_rolled_back(rng: np.random.Generator, share: float, weights: list[float], most: int, bar: float) -> bool:
    is_bad = rng.random(N_USERS) < share
    failed: list[NDArray[np.bool_]] = []
    for weight in weights:
        users = np.arange(round(N_USERS * weight / 100))
        rng.shuffle(users)
        asked = users.repeat(most)
        failed.append(is_bad[asked])
    events = np.concatenate(failed).cumsum()[EVERY - 1 :: EVERY]
    n = np.arange(1, len(events) + 1) * EVERY
    terms = [
        log_weight + events * log_multiple - n * math.log1p((multiple - 1) * LIMIT)
        for multiple, log_multiple, log_weight in HARM
    ]
    return bool((np.logaddexp.reduce(terms) >= bar).any())
