"""What `gates.yaml` names must be measured: suites, metrics, slices."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.core.declared import nearest
from pipelines.core.gates import Gates
from pipelines.core.params import Params
from pipelines.core.source import Key
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, of_suite
from pipelines.evaluation.lint.project import File, Finding


def check_gates(params: File[Params], gates: File[Gates]) -> Iterator[Finding]:
    """Find gates and slice rules that name a suite or a metric which is not there."""
    suites = params.model.suites
    seen: set[str] = set()
    for index, gate in enumerate(gates.model.evaluation.gates):
        key: tuple[Key, ...] = ("evaluation", "gates", index)
        if gate.name in seen:
            yield gates.error((*key, "name"), f"another gate has the name '{gate.name}'")
        seen.add(gate.name)
        for metric in gate.metrics:
            yield from _check_measured(params, gates, (*key, "suite"), (*key, "metrics", metric), gate.suite, metric)
    for index, rule in enumerate(gates.model.evaluation.slices):
        key = ("evaluation", "slices", index)
        yield from _check_measured(params, gates, (*key, "suite"), (*key, "metric"), rule.suite, rule.metric)
        dataset = params.model.datasets.get(suites[rule.suite].dataset) if rule.suite in suites else None
        if dataset is not None and dataset.slice is None:
            yield gates.error((*key, "suite"), f"the data set of suite '{rule.suite}' has no slice column")
    decided = {gate.suite for gate in gates.model.evaluation.gates}
    for name in suites:
        if name not in decided:
            yield gates.warning(("evaluation", "gates"), f"no gate decides about suite '{name}' of params.yaml")
    if not any(gate.required for gate in gates.model.evaluation.gates):
        yield gates.warning(("evaluation", "gates"), "no gate is required, so nothing can ever fail")


def _check_measured(
    params: File[Params], gates: File[Gates], suite_key: tuple[Key, ...], key: tuple[Key, ...], suite: str, metric: str
) -> Iterator[Finding]:
    suites = params.model.suites
    if suite != LATENCY_SUITE and suite not in suites:
        yield gates.error(suite_key, f"unknown suite '{suite}'{nearest(suite, [*suites, LATENCY_SUITE])}")
        return
    measured = list(LATENCY_METRICS) if suite == LATENCY_SUITE else list(of_suite(suites[suite]))
    judge = suites[suite].judges.get(metric) if suite in suites else None
    if judge is not None and judge.calibration is None:
        yield gates.warning(key, f"judge '{metric}' has no calibration, so this can at most ask for review")
    if metric in measured:
        return
    if suite != LATENCY_SUITE and metric in LATENCY_METRICS:
        yield gates.error(key, f"is measured by the suite `{LATENCY_SUITE}` only; give it a gate of its own")
    elif suite != LATENCY_SUITE and metric in METRICS:
        yield gates.error(key, f"suite '{suite}' does not measure it; add '{metric}' to suites.{suite}.metrics")
    else:
        yield gates.error(key, f"unknown metric '{metric}'{nearest(metric, measured)}")
