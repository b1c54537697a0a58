"""Measure the canary's verdict: false alarms, misses and requests, beside Wald's SPRT and windowed thresholds.

    python -m benchmarks.canary [--runs 2000] [--json]

Every rule sees the same requests. The windowed rule is the usual one of Argo Rollouts and Flagger: each window of 30
requests has its error rate held against the limit, and so many failed windows of ten abort. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.sides import Figure, against_stable, peeking, splits
from benchmarks.stopping import (
    ALPHA,
    EVERY,
    LIMIT,
    N_GATES,
    Counts,
    beta_mixture,
    by_edges,
    drawn,
    ends,
    is_harm,
    sprt,
    staged_windows,
    windows,
)
from benchmarks.users import of_users
from pipelines.core.gates import load_gates
from pipelines.core.rollout import CanaryGates, CanaryStage, RateRule, RatingRule, Rollout
from pipelines.release.canary import verdict
from pipelines.release.checks import Bars, bars, limit_of
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.forecast import course, edges

GATES = Path(__file__).parents[1] / "gates.yaml"
MOST = 12_000  # requests of one rollout
BARS = Bars(math.log(N_GATES / ALPHA), math.log(1 / ALPHA))


def main() -> int:
    """Print every figure; return 1 if one exceeds what it must not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="simulated rollouts per figure (default: 2000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = []
    for figure in all_figures(arguments.runs):
        figures.append(figure._asdict())
        if not arguments.json:
            most = "" if figure.most is None else f"(at most {figure.most:g})"
            peers = "  ".join(f"{name} {value:.4g}" for name, value in figure.peers.items())
            print(f"{figure.what:<76} {figure.gatehouse:>8.4g} {most:<14} {peers}", flush=True)
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "figures": figures}))
    return int(any(f["most"] is not None and f["gatehouse"] > f["most"] for f in figures))


def all_figures(runs: int) -> Iterator[Figure]:
    """Compute the figures one after the other."""
    yield from one_gate(runs)
    yield from whole_rollouts(runs)
    yield shipped()
    yield from against_stable(runs)
    yield from splits(runs)
    yield from peeking(runs)
    yield from of_users(runs, in_a_cluster())
    yield from speed()


# --- one gate of three, 1 % ----------------------------------------------------------------------------------


def one_gate(runs: int) -> Iterator[Figure]:
    """One ceiling of 1 % at true rates on both sides of it."""
    limit = 0.01
    at = edges(limit, BARS, every=EVERY, most=MOST)
    for rate in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.2):
        counts = drawn(rate, runs, MOST, seed=1)
        ours, wald = by_edges(counts, at), sprt(counts, limit, 0.03)
        exact = course(rate, limit, BARS, every=EVERY, most=MOST)
        usual = {f"windows, {k - 1} of ten may fail": windows(counts, limit, k).mean() for k in (1, 4)}
        name = f"1 % limit, true {rate:.1%}"
        peers = {"simulated": ours.failed.mean(), **usual}
        yield Figure(f"{name}: rolled back (exact)", None if rate > limit else ALPHA / N_GATES, exact.p_fail, peers)
        peers = {"simulated": ours.passed.mean()}
        yield Figure(f"{name}: proven (exact)", None if rate < limit else ALPHA, exact.p_pass, peers)
        yield Figure(f"{name}: median requests", None, float(np.median(ours.n)), {"SPRT": float(np.median(wald.n))})
        if rate == 0.03:
            sprt_mean = float(wald.n.mean())
            peers = {"SPRT that knows 3 %": sprt_mean, "Beta mixture": float(beta_mixture(counts, limit).n.mean())}
            yield Figure(f"{name}: mean requests to roll back", 1.4 * sprt_mean, float(ours.n.mean()), peers)
            ratio = float(ours.n.mean()) / sprt_mean
            yield Figure(f"{name}: the same over the SPRT's", 1.4, ratio, {})


# --- five stages, all gates ----------------------------------------------------------------------------------


def whole_rollouts(runs: int) -> Iterator[Figure]:
    """Five stages, three ceilings of 1 % and a rating; two stages need no harm, three need proof of the ceilings."""
    for name, rates, stars, is_healthy in (
        ("healthy, a fifth of each limit", (0.002, 0.002, 0.002), 0.85, True),
        ("healthy, half of each limit", (0.005, 0.005, 0.005), 0.8, True),
        ("every gate on its line", (0.01, 0.01, 0.01), 0.7, True),
        ("errors on the line, else healthy", (0.01, 0.002, 0.002), 0.85, True),
        ("errors at 3 %, else healthy", (0.03, 0.002, 0.002), 0.85, False),
    ):
        counts = [drawn(rate, runs, MOST, seed=10 + gate) for gate, rate in enumerate(rates)]
        given = np.random.default_rng(20).binomial(1, 0.1 * EVERY / 10, counts[0].shape)
        happy = np.random.default_rng(21).binomial(given, stars).cumsum(axis=1)
        rolled, advanced, n = rollouts(counts, given.cumsum(axis=1), happy)
        peers = {f"windows, {k - 1} of ten per stage may fail": staged_windows(counts[0], k).mean() for k in (1, 4)}
        what = f"five stages, {name}"
        yield Figure(f"{what}: rolled back", 0.05 if is_healthy else None, rolled.mean(), peers)
        if max(rates) >= 0.01:
            yield Figure(f"{what}: taken for proven", 0.05, advanced.mean(), {})
        yield Figure(f"{what}: mean candidate requests", None, float(n.mean()), {})
    yield Figure("looks at which verdict() and this simulation disagree, of 1,000", 0, disagreements(), {})


def rollouts(counts: list[Counts], given: Counts, happy: Counts) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Counts]:
    """Return which rollouts are rolled back, which pass the first stage that needs proof, and their requests.

    Args:
        counts: Per ceiling: events so far at each look, shape (n_runs, n_looks).
        given: Ratings so far, likewise.
        happy: Ratings of 1 among them; the others are 0.
    """
    failed, passes = is_harm(counts, given, happy), np.array(edges(LIMIT, BARS, every=EVERY, most=MOST).passes)
    proven = np.logical_and.reduce([events <= passes for events in counts])
    proven[:, : 300 // EVERY] = False  # two stages of no_harm come first
    third = ends(failed, proven)
    # What is proven goes through two more stages of 200 requests each, and may still be rolled back there.
    last = np.minimum(third.n // EVERY - 1 + 400 // EVERY, failed.shape[1] - 1)
    rolled = np.array([failed[row, : look + 1].any() for row, look in enumerate(last)])
    return rolled, third.passed, np.where(third.passed, third.n + 400, third.n)


def disagreements() -> float:
    """Ask verdict() itself at 1,000 looks of ten rollouts, half of them harmed."""
    names = ("error_rate", "refusal_rate", "truncation_rate")
    stage = CanaryStage(weight=10, require="no_harm", min_requests=1, max_duration_s=3600)
    gates = CanaryGates(**{name: RateRule(ceiling=0.01) for name in names}, rating=RatingRule(floor=0.7))
    rollout = Rollout(requests_per_minute=1, gates=gates, stages=(stage,))
    counts = [drawn(rate, 5, 1000, seed=30 + gate) for rate in (0.005, 0.02) for gate in range(3)]
    counts = [np.concatenate([counts[gate], counts[3 + gate]]) for gate in range(3)]
    given = np.random.default_rng(31).binomial(1, 0.5, counts[0].shape)
    happy = np.random.default_rng(32).binomial(given, 0.6).cumsum(axis=1)
    given = given.cumsum(axis=1)
    expected, n_wrong = is_harm(counts, given, happy), 0
    for run in range(expected.shape[0]):
        for look in range(expected.shape[1]):
            events = dict(
                zip(("errors", "refusals", "truncations"), (float(c[run, look]) for c in counts), strict=True)
            )
            ratings = ((0.0, float((given - happy)[run, look])), (1.0, float(happy[run, look])))
            arm = Arm(requests=(look + 1.0) * EVERY, ratings=ratings, **events)
            found = verdict(Counters((Epoch(10, arm),)), 0, rollout)
            n_wrong += (found.verdict == "rollback") != bool(expected[run, look])
    return float(n_wrong)


def shipped() -> Figure:
    """How surely the shipped local gates stop a candidate of which three in ten requests fail, looked at each time."""
    canary = load_gates(GATES).canary
    assert canary is not None, "gates.yaml declares a rollout"
    assert canary.local is not None, "and a local one"
    rule = canary.local.gates.error_rate
    assert rule is not None, "of which errors are limited"
    found = course(0.3, limit_of(rule), bars(canary.local), every=1, most=39)
    what = "local gates, three in ten fail: not rolled back within 39 requests (exact)"
    return Figure(what, 0.1, 1 - found.p_fail, {"median requests": float(found.median or math.inf)})


# --- time -----------------------------------------------------------------------------------------------------


def speed() -> Iterator[Figure]:
    """Processor time of one verdict on the shipped production gates, five epochs."""
    rollout = in_a_cluster()
    counters = Counters(tuple(Epoch(w, _arm(20.0 * w), _arm(2000 - 20.0 * w)) for w in (5, 10, 25, 50)))
    stage, times = len(rollout.stages) - 2, []
    for _ in range(60):
        start = time.process_time()
        verdict(counters, stage, rollout)
        times.append((time.process_time() - start) * 1000)
    n_checks = round(math.exp(bars(rollout).fail) * rollout.alpha)
    yield Figure(f"one verdict on {n_checks} checks and four epochs, median ms", 5.0, float(np.median(times)), {})


def in_a_cluster() -> Rollout:
    """Return the shipped production rollout."""
    canary = load_gates(GATES).canary
    rollout = canary and (canary.kubernetes or canary.local)
    assert isinstance(rollout, Rollout), "gates.yaml declares a rollout"
    return rollout


def _arm(n: float) -> Arm:
    slow = round(n * 0.01)
    levels = ((0.5, float(round(n / 2))), (1.0, n - slow), (5.0, n - slow))
    ratings = ((0.0, float(round(n / 100))), (1.0, float(round(n / 20))))
    few = float(round(n * 0.004))
    return Arm(n, few, few, few, few, n / 10, levels, levels, n, ratings)


if __name__ == "__main__":
    raise SystemExit(main())
