"""Limits that say the opposite of what was meant, and gates that no candidate could pass at the declared size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pipelines.core.gates import Gate, Gates, Rule
from pipelines.core.params import Params
from pipelines.core.source import Key
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, Metric, of_suite
from pipelines.evaluation.lint.project import File, Finding, Project
from pipelines.evaluation.lint.sample import clusters_of_metric, rows_of_metric

# Share of rows that are assumed to change between two models when nothing is known about them.
FLIP_RATE = 0.1
MOST_ROWS = 1 << 17  # beyond which no number of rows is worth naming


def check_limits(project: Project, params: File[Params], gates: File[Gates]) -> Iterator[Finding]:
    """Find limits on the wrong side, outside the metric's range, or out of reach for the number of examples."""
    evaluation = gates.model.evaluation
    for index, gate in enumerate(evaluation.gates):
        for name, rule in gate.metrics.items():
            metric = _metric(params.model, gate, name)
            if metric is None:
                continue
            key: tuple[Key, ...] = ("evaluation", "gates", index, "metrics", name)
            checks = (_check_sides, _check_range, _check_highest)
            wrong = [finding for check in checks for finding in check(gates, key, metric, rule)]
            yield from wrong
            if metric.name == "cost_usd":
                yield from _check_price(params, gates, (*key, "ceiling"), gate)
            n = rows_of_metric(params.model, project.rows, gate.suite, name)
            if n is not None and not any(finding.is_error for finding in wrong):
                n_clusters = min(n, clusters_of_metric(params.model, project.rows, gate.suite, name) or n)
                yield from _check_reach(gates, key, metric, rule, n, n_clusters)


def _metric(params: Params, gate: Gate, name: str) -> Metric | None:
    if gate.suite == LATENCY_SUITE:
        return METRICS[name] if name in LATENCY_METRICS else None
    return of_suite(params.suites[gate.suite]).get(name) if gate.suite in params.suites else None


def _check_sides(gates: File[Gates], key: tuple[Key, ...], metric: Metric, rule: Rule) -> Iterator[Finding]:
    if metric.direction == "lower" and rule.floor is not None:
        yield gates.error((*key, "floor"), "lower is better here; a limit from above is a `ceiling`")
    if metric.direction == "higher" and rule.ceiling is not None:
        yield gates.error((*key, "ceiling"), "higher is better here; a limit from below is a `floor`")
    if rule.exact is not None and metric.kind != "binary":
        yield gates.error((*key, "exact"), f"exact bounds are for rates of yes or no; {metric.name} is {metric.kind}")


def _check_range(gates: File[Gates], key: tuple[Key, ...], metric: Metric, rule: Rule) -> Iterator[Finding]:
    low = -math.inf if metric.low is None else metric.low
    high = math.inf if metric.high is None else metric.high
    shown = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} and more"
    for name, limit in (("floor", rule.floor), ("ceiling", rule.ceiling)):
        if limit is None:
            continue
        if not low <= limit <= high:
            hint = "; shares are written 0 to 1" if high == 1 and 1 < limit <= 100 else ""
            yield gates.error((*key, name), f"{limit:g} is outside the range of {metric.name}, {shown}{hint}")
        elif (name == "floor" and limit == low) or (name == "ceiling" and limit == high):
            yield gates.warning((*key, name), f"{limit:g} is the worst value there is, so this always passes")
    if rule.max_regression is not None and rule.max_regression >= high - low:
        text = f"{rule.max_regression:g} is the whole range of {metric.name} ({shown}), so any loss passes"
        yield gates.error((*key, "max_regression"), text)


def _check_price(params: File[Params], gates: File[Gates], key: tuple[Key, ...], gate: Gate) -> Iterator[Finding]:
    suite = params.model.suites[gate.suite]
    if suite.model in params.model.models or suite.model == "candidate":
        price = params.model.price(suite.model)
        if price.prompt_usd == 0 and price.completion_usd == 0:
            yield gates.warning(key, f"the price of '{suite.model}' in params.yaml is 0, so this always passes")


def _check_highest(gates: File[Gates], key: tuple[Key, ...], metric: Metric, rule: Rule) -> Iterator[Finding]:
    place = (*key, "highest")
    if metric.kind == "quantile" or metric.high is not None:
        if rule.highest is not None:
            why = "a quantile needs none" if metric.kind == "quantile" else f"its largest value is {metric.high:g}"
            yield gates.error(place, f"has no use for {metric.name}: {why}; remove it")
    elif rule.highest is None:
        text = (
            f"`highest` is needed: no sample bounds a mean of {metric.name} without a largest value, so nothing passes"
        )
        yield gates.error(key, text)
    elif metric.low is not None and rule.highest <= metric.low:
        yield gates.error(place, f"{rule.highest:g} must be above {metric.low:g}, the smallest value of {metric.name}")
    elif rule.ceiling is not None and rule.highest <= rule.ceiling:
        yield gates.warning(place, f"no row is above {rule.highest:g}, so a ceiling of {rule.ceiling:g} always passes")


def _check_reach(
    gates: File[Gates], key: tuple[Key, ...], metric: Metric, rule: Rule, n: int, n_clusters: int
) -> Iterator[Finding]:
    alpha = gates.model.evaluation.alpha
    if n < 1:
        yield gates.error(key, "no example has what this metric needs; give the split more rows, or drop the rule")
        return
    for name in ("floor", "ceiling", "max_regression"):
        limit = getattr(rule, name)
        if limit is None:
            continue

        def passes(rows: int, name: str = name, limit: float = limit) -> bool:
            return can_pass(metric, rule, name, limit, rows, max(1, rows * n_clusters // n), alpha)

        if not passes(n):
            yield gates.error((*key, name), _out_of_reach(metric, name, limit, n, n_clusters, passes))
        elif name == "max_regression" and metric.kind == "binary":
            yield from _check_power(gates, (*key, name), limit, n)


def _out_of_reach(
    metric: Metric, name: str, limit: float, n: int, n_clusters: int, passes: Callable[[int], bool]
) -> str:
    from pipelines.core.stats.power import smallest

    more = smallest(passes, most=MOST_ROWS)
    if metric.quantile is not None and more:
        return f"needs {more} requests to be bounded, params.yaml declares latency.requests: {n}"
    cure = f"at least {more} are needed" if more else "no number of examples is enough"
    examples = f"about {n} examples" + (f" from {n_clusters} conversations" if n_clusters < n else "")
    if name == "max_regression":
        return f"cannot pass: {examples} do not prove a loss below {limit:g}, even if none changes; {cure}"
    return f"cannot pass: {examples}, even all perfect, do not prove {name} {limit:g}; {cure}"


def _check_power(gates: File[Gates], key: tuple[Key, ...], margin: float, n: int) -> Iterator[Finding]:
    from pipelines.core.stats.power import rows_to_detect, smallest_detectable

    alpha = gates.model.evaluation.alpha
    needed = rows_to_detect(margin, FLIP_RATE, alpha=alpha)
    if n < needed:
        detectable = smallest_detectable(math.sqrt(FLIP_RATE / n), alpha=alpha)
        yield gates.warning(
            key,
            f"about {n} examples show a change of {detectable:.3f} or more if {FLIP_RATE:.0%} of them flip; "
            f"{margin:g} needs {needed}, so expect manual reviews",
        )


def can_pass(metric: Metric, rule: Rule, name: str, limit: float, n: int, n_clusters: int, alpha: float) -> bool:
    """Tell whether perfect rows, unchanged since the baseline, pass: decided as the gate itself decides.

    Args:
        metric: What is gated.
        rule: As declared.
        name: `floor`, `ceiling` or `max_regression`.
        limit: Its value.
        n: Rows.
        n_clusters: Clusters of one size that they come from, at most n.
        alpha: Level of the decision.
    """
    import numpy as np

    from pipelines.core.stats.limits import decide_limit
    from pipelines.core.stats.regressions import decide_regression
    from pipelines.evaluation.deciding.checks import scale_of

    scale = scale_of(metric, rule)
    best = scale.high if metric.direction == "higher" else scale.low
    rows = np.full(n, 0.0 if best is None else best)
    clusters = np.arange(n, dtype=np.int64) * n_clusters // n if n_clusters < n else None
    if name == "max_regression":
        ruling = decide_regression(rows, rows, limit, scale=scale, clusters=clusters, alpha=alpha)
    else:
        ruling = decide_limit(rows, limit, is_floor=name == "floor", scale=scale, clusters=clusters, alpha=alpha)
    return ruling.verdict == "pass"
