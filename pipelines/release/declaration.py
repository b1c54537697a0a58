"""What `check` says about the rollout in `gates.yaml`: limits that cannot be read off, stages that cannot be passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pipelines.core.declared import check
from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.core.rollout import AbTest, LatencyRule, RatingRule, Rollout, Target
from pipelines.core.source import Key, Problem, Source, parse
from pipelines.release.checks import EVENT_OF, SLOW_SHARE, Check, check_all
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.serving.config import MetricsSettings, Serving

WORST = 0.5  # the rate that stable is taken to have where only a ratio is declared


class Expected(NamedTuple):
    """What the declared traffic brings by the end of a stage, at most."""

    counters: Counters
    n_stage: float


def problems(root: Path) -> list[str]:
    """Return what is wrong with the canary and the A/B test of a repository's `gates.yaml`, one line each.

    What is no YAML or does not fit the model is not said again: the gates' own check says it.
    """
    try:
        source = parse(root / "gates.yaml", "gates.yaml")
        gates, _ = check(source, Gates)
    except ConfigError:
        return []
    if gates is None:
        return []
    found = list(_problems(gates, source, _histograms(root)))
    return list(map(str, sorted(found, key=lambda problem: problem.line or 0)))


def unreachable(gates: Gates, source: Source) -> list[Problem]:
    """Return what is wrong with stages and A/B test whatever `serving.yaml` says."""
    return sorted(_problems(gates, source, None), key=lambda problem: problem.line or 0)


def _histograms(root: Path) -> MetricsSettings | None:
    try:
        serving, _ = check(parse(root / "serving.yaml", "serving.yaml"), Serving)
    except ConfigError:
        return None
    return None if serving is None else serving.metrics


def _problems(gates: Gates, source: Source, histograms: MetricsSettings | None) -> Iterator[Problem]:
    for target in get_args(Target):
        rollout = gates.canary.rollout(target) if gates.canary else None
        if rollout is None:
            continue
        key: tuple[Key, ...] = ("canary", target)
        if histograms is not None:
            yield from _check_bounds(rollout, source, key, histograms)
        yield from _check_stages(rollout, source, key)
    if gates.ab_test is not None:
        yield from _check_test(gates, gates.ab_test, source)


def _check_bounds(
    rollout: Rollout, source: Source, key: tuple[Key, ...], histograms: MetricsSettings
) -> Iterator[Problem]:
    for name, field in (("latency_p95_ms", "latency_bounds_s"), ("ttft_p95_ms", "ttft_bounds_s")):
        rule = getattr(rollout.gates, name)
        if rule is None:
            continue
        bounds = [bound * 1000 for bound in getattr(histograms, field)]
        nearest = min(bounds, key=lambda bound: abs(bound - rule.ceiling))
        if abs(nearest - rule.ceiling) > 1e-6 * rule.ceiling:
            message = f"{rule.ceiling:g} is no bound of metrics.{field} in serving.yaml; the nearest is {nearest:g}"
            yield source.problem((*key, "gates", name, "ceiling"), message)


def _check_stages(rollout: Rollout, source: Source, key: tuple[Key, ...]) -> Iterator[Problem]:
    for index, stage in enumerate(rollout.stages):
        expected = at_most(rollout, index)
        place = (*key, "stages", index)
        if stage.min_requests > expected.n_stage:
            needed_s = stage.max_duration_s * stage.min_requests / expected.n_stage
            message = (
                f"{stage.min_requests} requests cannot be reached: at {stage.weight:g} % of "
                f"{rollout.requests_per_minute:g} a minute about {expected.n_stage:.0f} come in "
                f"{stage.max_duration_s:g} s; lower it, or raise max_duration_s to {needed_s:.0f}"
            )
            yield source.problem((*place, "min_requests"), message)
        elif stage.require == "proven":
            yield from _check_proof(rollout, source, key, index, expected)


def _check_proof(
    rollout: Rollout, source: Source, key: tuple[Key, ...], index: int, expected: Expected
) -> Iterator[Problem]:
    for found in check_all(expected.counters, rollout):
        if not found.is_to_prove or found.status == "proven":
            continue
        n = expected.counters.candidate().requests
        needed = n + (found.requests_to_decide or 0)
        cure = f"{needed:.0f} would do" if found.requests_to_decide else "no number of requests is enough"
        message = (
            f"cannot be proven: the gate {_named(found)} needs more than the {n:.0f} requests, all of them flawless, "
            f"that reach the candidate by the end of this stage; {cure}"
        )
        yield source.problem((*key, "stages", index, "max_duration_s"), message)


def _named(found: Check) -> str:
    return f"{found.gate} ({'max_ratio' if found.kind == 'ratio' else 'limit'} {found.limit:g})"


def at_most(rollout: Rollout, stage: int) -> Expected:
    """Return what a flawless candidate has to show when every stage up to this one took its longest.

    Stable is taken to be as bad as the limits allow, which makes a ratio as easy to prove as it can be.
    """
    epochs = []
    for at in rollout.stages[: stage + 1]:
        both = rollout.requests_per_minute * at.max_duration_s / 60
        mine = both * at.weight / 100
        epochs.append(Epoch(at.weight, _arm(rollout, mine, 0.0), _arm(rollout, both - mine, 1.0)))
    return Expected(Counters(tuple(epochs)), epochs[-1].candidate.requests)


def _arm(rollout: Rollout, n: float, badness: float) -> Arm:
    """Return n requests; of what a rule limits, `badness` times as much happened as its limit allows."""
    arm = Arm(requests=n, streams=n)
    for name, rule in rollout.gates.rules().items():
        if isinstance(rule, LatencyRule):
            histogram = ((rule.ceiling / 1000, n * (1 - badness * SLOW_SHARE)),)
            arm = replace(arm, ttft=histogram) if name == "ttft_p95_ms" else replace(arm, latency=histogram)
        elif isinstance(rule, RatingRule):
            low, high = rule.scale
            bad = n * badness * (high - rule.floor) / (high - low)
            arm = replace(arm, ratings=((low, bad), (high, n - bad)))
        else:
            events: dict[str, Any] = {EVENT_OF[name]: n * badness * (rule.ceiling or WORST)}
            arm = replace(arm, **events)
    return arm


def _check_test(gates: Gates, test: AbTest, source: Source) -> Iterator[Problem]:
    for target in get_args(Target):
        run = test.run(target)
        rollout = gates.canary.rollout(target) if gates.canary else None
        if run is None:
            continue
        key: tuple[Key, ...] = ("ab_test", target)
        if run.window_s >= run.max_duration_s:
            message = (
                f"{run.window_s:g} s is no shorter than max_duration_s, so that no outcome would be closed in time"
            )
            yield source.problem((*key, "window_s"), message)
        elif rollout is not None:
            smaller = min(run.weight, 100 - run.weight) / 100
            n = rollout.requests_per_minute * (run.max_duration_s - run.window_s) / 60 * smaller
            if run.min_per_arm > n:
                message = f"{run.min_per_arm} cannot be reached: about {n:.0f} requests reach the smaller side in time"
                yield source.problem((*key, "min_per_arm"), message)
