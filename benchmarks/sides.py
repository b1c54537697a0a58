"""What `benchmarks.canary` measures of comparisons: candidate against stable, the split of the users, an A/A test."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.stopping import ALPHA
from pipelines.release.evidence import HARM, log_e, of_ratio
from pipelines.release.sample_ratio import Split, p_value
from pipelines.release.sequences import Moments, difference, half_width, tuning


class Figure(NamedTuple):
    """One figure: what it is, what it must not exceed (None: shown only), and what each rule came to."""

    what: str
    most: float | None
    gatehouse: float
    peers: dict[str, float]


def against_stable(runs: int) -> Iterator[Figure]:
    """A ratio of 2 with a base rate that jumps from 0.5 % to 8 % and back, over three weights."""
    bar, rng = math.log(1 / ALPHA), np.random.default_rng(3)
    n_runs = min(runs, 500)
    for ratio in (1.0, 2.0, 4.0):
        hits = 0
        for _ in range(n_runs):
            sides: list[tuple[float, float, float, float]] = []
            is_hit = False
            for weight, base in ((0.05, 0.005), (0.25, 0.08), (0.5, 0.005)):
                looks = 20
                mine = rng.binomial(round(100 * weight), min(1, base * ratio), looks).cumsum()
                theirs = rng.binomial(100 - round(100 * weight), base, looks).cumsum()
                for look in range(looks):
                    n = 100.0 * (look + 1)
                    now = (float(mine[look]), n * weight, float(theirs[look]), n * (1 - weight))
                    is_hit |= log_e(of_ratio([*sides, now]), math.log(2), HARM) >= bar
                sides.append(now)
            hits += is_hit
        limit = 0.05 if ratio <= 2 else None
        yield Figure(f"twice stable's rate allowed, moving base, true {ratio:g} times: fails", limit, hits / n_runs, {})


def splits(runs: int) -> Iterator[Figure]:
    """Users with heavy-tailed numbers of requests, split at 10 %: alarms on users, and on their requests."""
    rng = np.random.default_rng(4)
    n_runs = min(runs, 500)
    on_users = on_requests = broken = 0
    for _ in range(n_runs):
        requests = np.minimum(rng.zipf(1.6, 600), 500)
        side = rng.random(600) < 0.1
        lost = side & (rng.random(600) < 0.4)  # four in ten of the candidate's users never get through
        mine, theirs = side.cumsum(), (~side).cumsum()
        mine_r, theirs_r = (side * requests).cumsum(), (~side * requests).cumsum()
        looks = range(19, 600, 20)
        on_users += any(p_value([Split(mine[i], theirs[i], 0.1)], 1) <= ALPHA for i in looks)
        on_requests += any(p_value([Split(mine_r[i], theirs_r[i], 0.1)], 1) <= ALPHA for i in looks)
        left = (side & ~lost).cumsum()
        broken += any(p_value([Split(left[i], theirs[i], 0.1)], 1) <= ALPHA for i in looks)
    peers = {"counted on requests": on_requests / n_runs}
    yield Figure("split of 600 users as declared: false alarms", 0.05, on_users / n_runs, peers)
    yield Figure("split that loses four in ten of the candidate's 60 users: found", None, broken / n_runs, {})


def peeking(runs: int) -> Iterator[Figure]:
    """A/A with a look every 100 users of 4,000: the confidence sequence beside a z-test."""
    r2, z, rng = tuning(0.05, 2000), 1.959964, np.random.default_rng(5)
    ours = naive = 0
    for _ in range(runs):
        sums = (rng.random((2, 2000)) < 0.3).cumsum(axis=1)
        is_ours = is_naive = False
        for n in range(50, 2001, 50):
            joint = difference(*(Moments(n, float(row[n - 1]), float(row[n - 1])) for row in sums))
            is_ours |= abs(joint.value) > half_width(joint.deviation, joint.n, r2, ALPHA / 2) and n >= 100
            is_naive |= abs(joint.value) > z * joint.deviation / math.sqrt(joint.n)
        ours, naive = ours + is_ours, naive + is_naive
    yield Figure("A/A, looked at every 100 users: false alarms", 0.05, ours / runs, {"z-test": naive / runs})
