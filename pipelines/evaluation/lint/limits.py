"""Limits that say the opposite of what was meant, and gates that no candidate could pass at the declared size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pipelines.core.gates import Evaluation, Gate, Gates, Rule
from pipelines.core.params import Params
from pipelines.core.source import Key
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, Metric, of_suite
from pipelines.evaluation.lint.project import File, Finding, Project, Rows
from pipelines.evaluation.lint.sample import rows_of_metric

# Share of rows that are assumed to change between two models when nothing is known about them.
FLIP_RATE = 0.1
MOST_ROWS = 1 << 20  # beyond which no number of rows is worth naming


def check_limits(project: Project, params: File[Params], gates: File[Gates]) -> Iterator[Finding]:
    """Find limits on the wrong side, outside the metric's range, or out of reach for the number of examples."""
    evaluation = gates.model.evaluation
    for index, gate in enumerate(evaluation.gates):
        for name, rule in gate.metrics.items():
            metric = _metric(params.model, gate, name)
            if metric is None:
                continue
            key: tuple[Key, ...] = ("evaluation", "gates", index, "metrics", name)
            wrong = [*_check_sides(gates, key, metric, rule), *_check_range(gates, key, metric, rule)]
            yield from wrong
            if metric.name == "cost_usd":
                yield from _check_price(params, gates, (*key, "ceiling"), gate)
            n = rows_of_metric(params.model, project.rows, gate.suite, name)
            if n is not None and not any(finding.is_error for finding in wrong):
                yield from _check_reach(gates, key, metric, rule, n)
    yield from _check_escalation(params.model, project.rows, gates)


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


def _check_reach(gates: File[Gates], key: tuple[Key, ...], metric: Metric, rule: Rule, n: int) -> Iterator[Finding]:
    evaluation = gates.model.evaluation
    if n < 1:
        yield gates.error(key, "no example has what this metric needs; give the split more rows, or drop the rule")
        return
    if metric.quantile is not None:
        from pipelines.core.stats.quantiles import rows_needed

        needed = rows_needed(metric.quantile, alpha=evaluation.alpha)
        if n < needed and rule.ceiling is not None:
            text = f"needs {needed} requests to be bounded, params.yaml declares latency.requests: {n}"
            yield gates.error((*key, "ceiling"), text)
        return
    for name, limit in (("floor", rule.floor), ("ceiling", rule.ceiling)):
        if limit is not None and not _passes(metric, rule, name, limit, n, evaluation):
            more = _rows(lambda rows, a=name, b=limit: _passes(metric, rule, a, b, rows, evaluation))  # type: ignore[misc]
            cure = f"at least {more} are needed" if more else "no number of examples is enough"
            text = f"cannot pass: about {n} examples, even all perfect, do not prove {name} {limit:g}; {cure}"
            yield gates.error((*key, name), text)
    if rule.max_regression:
        yield from _check_regression(gates, (*key, "max_regression"), metric, rule.max_regression, n)


def _check_regression(
    gates: File[Gates], key: tuple[Key, ...], metric: Metric, margin: float, n: int
) -> Iterator[Finding]:
    alpha = gates.model.evaluation.alpha
    if metric.low is None or metric.high is None:
        return
    if not _passes_unchanged(metric, margin, n, alpha):
        more = _rows(lambda rows: _passes_unchanged(metric, margin, rows, alpha))
        cure = f"at least {more} are needed" if more else "no number of examples is enough"
        text = f"cannot pass: about {n} examples do not prove a loss below {margin:g}, even if none changes; {cure}"
        yield gates.error(key, text)
    elif metric.kind == "binary":
        from pipelines.core.stats.power import rows_to_detect, smallest_detectable

        needed = rows_to_detect(margin, FLIP_RATE, alpha=alpha)
        if n < needed:
            detectable = smallest_detectable(math.sqrt(FLIP_RATE / n), alpha=alpha)
            yield gates.warning(
                key,
                f"about {n} examples show a change of {detectable:.3f} or more if {FLIP_RATE:.0%} of them flip; "
                f"{margin:g} needs {needed}, so expect manual reviews",
            )


def _passes(metric: Metric, rule: Rule, name: str, limit: float, n: int, evaluation: Evaluation) -> bool:
    """Tell whether rows that all have the best value pass, by the intervals that the gate uses."""
    if metric.low is None or metric.high is None:
        return True
    from pipelines.core.stats.intervals import clopper_pearson, shrunken, wilson

    is_higher = metric.direction == "higher"
    if metric.kind == "binary":
        is_exact = metric.is_safety if rule.exact is None else rule.exact
        bounds = (clopper_pearson if is_exact else wilson)(n if is_higher else 0, n, alpha=evaluation.alpha)
    else:
        best = metric.high if is_higher else metric.low
        bounds = shrunken(best, 0.0, n, metric.low, metric.high).bounds(evaluation.alpha)
    return bounds.lower >= limit if name == "floor" else bounds.upper <= limit


def _passes_unchanged(metric: Metric, margin: float, n: int, alpha: float) -> bool:
    """Tell whether a candidate that answers exactly like the baseline passes."""
    from pipelines.core.stats.intervals import shrunken
    from pipelines.core.stats.paired import paired_rates

    width = (metric.high or 0) - (metric.low or 0)
    is_binary = metric.kind == "binary"
    bounds = paired_rates(0, 0, n, alpha=alpha) if is_binary else shrunken(0.0, 0.0, n, -width, width).bounds(alpha)
    return bounds.lower > -margin


def _rows(passes: Callable[[int], bool]) -> int | None:
    """Return the smallest number of rows that passes, by bisection, or None."""
    if not passes(MOST_ROWS):
        return None
    low, high = 0, 1
    while not passes(high):
        low, high = high, min(2 * high, MOST_ROWS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _check_escalation(params: Params, rows: dict[str, Rows], gates: File[Gates]) -> Iterator[Finding]:
    escalation = gates.model.evaluation.escalation
    if escalation is None:
        return
    for suite in {gate.suite: None for gate in gates.model.evaluation.gates if gate.suite in params.suites}:
        n = rows_of_metric(params, rows, suite, "exact_match")
        if n is not None and n < escalation.rows[1]:
            text = f"the second look takes {escalation.rows[1]} rows, suite '{suite}' will have about {n}"
            yield gates.warning(("evaluation", "escalation", "rows"), text)
