"""Walk the shipped local rollout, its A/B test and canary stages, with simulated traffic: how it ends, and when.

    python -m benchmarks.ladder [--runs 300] [--per-second 1.5]

Requests come one after the other at random moments, each of a user of its own, who is dealt to a side by the share in
force. The judge is the real one, and so is what follows from its verdicts; only models, gateway and Git are left out.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.deciding import Situation, decide
from pipelines.release.judge import plan_of
from pipelines.release.plan import Plan, Stage
from pipelines.release.sequences import Moments
from pipelines.release.tallies import Pair, Tally

GATES = Path(__file__).parents[1] / "gates.yaml"
METRICS = ("schema_failure_rate", "error_rate", "latency_ms")
SECOND_MS = 1000.0
LIMIT_S = 30.0
"""Of latency_p95_ms in gates.yaml."""


class Candidate(NamedTuple):
    """What a candidate does; stable fails nothing and misses its schema as the healthy candidate does."""

    errors: float = 0.0
    schema_failures: float = 0.03
    latency_s: float = 2.0


CASES = {
    "healthy": Candidate(),
    "errors at half their limit": Candidate(errors=0.025),
    "three in ten fail": Candidate(errors=0.3),
    "answers cut to broken JSON": Candidate(schema_failures=1.0),
    "slower than the limit": Candidate(latency_s=42.0),
}
STABLE = Candidate()


class Ended(NamedTuple):
    """How a rollout went."""

    word: str
    seconds: float
    n_candidate: float


def main() -> None:
    """Print one line per kind of candidate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300, help="simulated rollouts per candidate (default: 300)")
    parser.add_argument("--per-second", type=float, default=1.3, help="requests a second, both sides (default: 1.3)")
    arguments = parser.parse_args()
    plan = plan_of("local")(GATES.read_bytes())
    print(f"{'candidate':<28} {'ends':<34} {'minutes: median, 95 %':<24} candidate requests: median, 95 %")
    for name, candidate in CASES.items():
        found = [walk(plan, candidate, arguments.per_second, seed) for seed in range(arguments.runs)]
        words = ", ".join(f"{word} {n}" for word, n in Counter(one.word for one in found).most_common())
        minutes = np.percentile([one.seconds / 60 for one in found], [50, 95])
        requests = np.percentile([one.n_candidate for one in found], [50, 95])
        print(f"{name:<28} {words:<34} {'{:.1f}, {:.1f}'.format(*minutes):<24} {'{:.0f}, {:.0f}'.format(*requests)}")


def walk(plan: Plan, candidate: Candidate, per_second: float, seed: int) -> Ended:
    """Return how one rollout ends."""
    rng, tally, passed = np.random.default_rng(seed), Tally(), 0.0
    ladder = [*([(plan.ab_test, 0)] if plan.ab_test else []), *((one, index) for index, one in enumerate(plan.stages))]
    for stage, index in ladder:
        before, elapsed, traffic = tally, 0.0, Traffic(rng, stage.max_duration_s, per_second, stage.weight, candidate)
        action = "wait"
        while action == "wait":
            elapsed += plan.look_every_s
            tally = traffic.seen(before, stage, index, elapsed, plan.window_s)
            judged = plan.judge.judge(tally.as_json(), {**stage.as_json(), "index": index})
            limits = (plan.look_every_s, stage.max_duration_s, plan.max_unknown_s, plan.on_insufficient)
            action = decide(judged.name, Situation(elapsed, 0.0, *limits)).action
        passed += elapsed
        if action != "advance":
            return Ended("rolled back" if judged.name == "rollback" else "inconclusive", passed, _n(tally))
    return Ended("released", passed, _n(tally))


class Traffic:
    """All requests of one stage, drawn beforehand; each is known when it was answered."""

    def __init__(
        self, rng: np.random.Generator, longest_s: float, per_second: float, share: float, candidate: Candidate
    ) -> None:
        n = math.ceil(longest_s * per_second * 1.5)
        self.begun = rng.exponential(1 / per_second, n).cumsum()
        self.is_new = rng.random(n) < share
        mean_s = np.where(self.is_new, candidate.latency_s, STABLE.latency_s)
        self.took = rng.gamma(4.0, mean_s / 4.0)
        self.failed = rng.random(n) < np.where(self.is_new, candidate.errors, STABLE.errors)
        wrong = np.where(self.is_new, candidate.schema_failures, STABLE.schema_failures)
        self.misfit = ~self.failed & (rng.random(n) < wrong)

    def seen(self, before: Tally, stage: Stage, index: int, elapsed: float, window_s: float) -> Tally:
        """Return what is counted so long after the stage began."""
        done = self.begun + self.took <= elapsed
        arms = tuple(self._arm(done & side, (self.begun <= elapsed) & side) for side in (self.is_new, ~self.is_new))
        epoch = Epoch(round(stage.weight * 100, 9), *arms, stage.key(index))
        tally = _with_epoch(before, epoch)
        if stage.kind != "ab_test":
            return tally
        closed = done & (self.begun + window_s <= elapsed)
        values = (self.misfit, self.failed, self.took * SECOND_MS)
        pairs = {
            name: Pair(*(_moments(value[closed & side]) for side in (self.is_new, ~self.is_new)))
            for name, value in zip(METRICS, values, strict=True)
        }
        return tally._replace(admitted=(arms[0].users, arms[1].users), outcomes=pairs)

    def _arm(self, done: np.ndarray, begun: np.ndarray) -> Arm:
        n, fast = float(done.sum()), float((done & (self.took <= LIMIT_S)).sum())
        counts = {"errors": float((done & self.failed).sum()), "schema_failures": float((done & self.misfit).sum())}
        return Arm(requests=n, users=float(begun.sum()), latency=((LIMIT_S, fast),), **counts)


def _with_epoch(before: Tally, epoch: Epoch) -> Tally:
    return before._replace(canary=replace(before.canary, epochs=(*before.canary.epochs, epoch)))


def _moments(values: np.ndarray) -> Moments:
    return Moments(float(values.size), float(values.sum()), float((values.astype(float) ** 2).sum()))


def _n(tally: Tally) -> float:
    return Counters(tally.canary.epochs).candidate().requests


if __name__ == "__main__":
    main()
