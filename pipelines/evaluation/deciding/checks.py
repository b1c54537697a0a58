"""One rule of a gate over one metric: which rows speak, what keeps them from speaking, and what they say."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.gates import Evaluation, Rule
from pipelines.core.stats.judges import corrected_rate
from pipelines.core.stats.limits import decide_limit
from pipelines.core.stats.quantiles import order_statistic
from pipelines.core.stats.regressions import decide_regression
from pipelines.core.stats.rules import Ruling, Scale, Verdict
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.deciding import reasons
from pipelines.evaluation.deciding.pairs import Pair, agreement_of, lost_rows, metric_pair, metric_rows
from pipelines.evaluation.results import Results

Floats = NDArray[np.float64]


class Evidence(NamedTuple):
    """Everything a verdict rests on but the rules.

    Attributes:
        metrics: Declared metrics by suite.
        judged: Of those, the ones that a model judges, by suite.
        results: The candidate's rows by suite; a suite without rows is left out.
        baseline: Where the baseline comes from, or why there is none.
        baseline_results: The baseline's rows by suite.
        now: When the verdict is given.
    """

    metrics: Mapping[str, Mapping[str, Metric]]
    judged: Mapping[str, frozenset[str]]
    results: Mapping[str, Results]
    baseline: Baseline
    baseline_results: Mapping[str, Results]
    now: datetime.datetime


class Check(NamedTuple):
    """One rule and what became of it; `decision.json` holds these keys."""

    metric: str
    rule: str
    limit: float
    verdict: Verdict
    reason: str
    direction: str = "higher"
    unit: str = ""
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    baseline_value: float | None = None
    gain: float | None = None
    gain_lower: float | None = None
    gain_upper: float | None = None
    n: int = 0
    n_missing: int = 0
    method: str = ""
    p_value: float | None = None
    n_to_decide: int | None = None
    smallest_detectable: float | None = None


def check_metric(suite: str, name: str, rule: Rule, evidence: Evidence, rules: Evaluation) -> list[Check]:
    """Hold one metric against its floor, its ceiling and its margin, whichever are declared.

    Args:
        suite: Suite that the metric belongs to.
        name: The metric.
        rule: What is declared.
        evidence: The rows.
        rules: What holds for all gates: alpha, rates, age.
    """
    limits = {"floor": rule.floor, "ceiling": rule.ceiling, "max_regression": rule.max_regression}
    declared = [(kind, limit) for kind, limit in limits.items() if limit is not None]
    metric = evidence.metrics.get(suite, {}).get(name)
    if metric is None:
        reason = f"suite '{suite}' declares no metric '{name}'; correct gates.yaml or params.yaml"
        return [Check(name, kind, limit, "error", reason) for kind, limit in declared]
    return [
        _regression(suite, metric, rule, evidence, rules)
        if kind == "max_regression"
        else _absolute(suite, metric, kind, limit, rule, evidence, rules)
        for kind, limit in declared
    ]


def _absolute(
    suite: str, metric: Metric, kind: str, limit: float, rule: Rule, evidence: Evidence, rules: Evaluation
) -> Check:
    check = Check(metric.name, kind, limit, "error", "", metric.direction, metric.unit)
    results = evidence.results.get(suite)
    if results is None or metric.name not in results.columns:
        return check._replace(reason=_no_rows(suite, metric.name))
    rows = metric_rows(results, metric.name, evidence.baseline_results.get(suite))
    n, n_missing = len(rows.values), int(np.isnan(rows.values).sum())
    check = check._replace(n=n, n_missing=n_missing)
    if complaint := reasons.too_few(metric.name, n, n_missing, rules.max_missing_rate):
        return check._replace(reason=complaint)
    scale, caveat = _scale(suite, metric, rule, evidence, results)
    ruling = decide_limit(
        rows.values, limit, is_floor=kind == "floor", scale=scale, clusters=rows.clusters, alpha=rules.alpha
    )
    check = check._replace(
        verdict=ruling.verdict,
        reason=reasons.of_limit(metric, kind, limit, ruling),
        value=_finite(ruling.value),
        lower=_finite(ruling.lower),
        upper=_finite(ruling.upper),
        **_common(ruling),
    )
    check = _capped(check, caveat, even_fail=True)
    return _capped(check, _foreign_rows(suite, results), even_fail=False)


def _regression(suite: str, metric: Metric, rule: Rule, evidence: Evidence, rules: Evaluation) -> Check:
    margin = rule.max_regression
    assert margin is not None, "only called for a declared margin"
    check = Check(metric.name, "max_regression", margin, "error", "", metric.direction, metric.unit)
    if evidence.baseline.state == "none":
        reason = f"{metric.name}: {without_baseline(evidence.baseline)}, so there is nothing to compare with"
        return check._replace(verdict="not_applicable", reason=reason)
    results, then = evidence.results.get(suite), evidence.baseline_results.get(suite)
    if results is None or metric.name not in results.columns:
        return check._replace(reason=_no_rows(suite, metric.name))
    obstacle = obstacle_to_comparison(suite, metric, evidence, rules)
    if then is None or metric.name not in then.columns:
        assert obstacle, "a baseline without these rows is an obstacle"
        return _capped(check, obstacle, even_fail=True)
    pair = metric_pair(results, then, metric.name, is_paired=metric.kind != "quantile")
    n_missing = int((np.isnan(pair.candidate)).sum())
    check = check._replace(n=len(pair.candidate), n_missing=n_missing)
    if complaint := reasons.too_few(metric.name, len(pair.candidate), n_missing, rules.max_missing_rate):
        return check._replace(reason=complaint) if not obstacle else _capped(check, obstacle, even_fail=True)
    if not _has_both(pair, metric):
        return _capped(check, obstacle or f"{metric.name}: no row is known on both sides", even_fail=True)
    scale, caveat = _scale(suite, metric, rule, evidence, results)
    ruling = decide_regression(
        pair.candidate, pair.baseline, margin, scale=scale, clusters=pair.clusters, alpha=rules.alpha
    )
    check = check._replace(
        verdict=ruling.verdict,
        reason=reasons.of_regression(metric, margin, ruling, evidence.baseline.ref),
        value=_level(pair.candidate, scale),
        baseline_value=_level(pair.baseline, scale),
        gain=_finite(ruling.value),
        gain_lower=_finite(ruling.lower),
        gain_upper=_finite(ruling.upper),
        **_common(ruling),
    )
    for cap in (obstacle, caveat, _missing_before(pair, metric, rules)):
        check = _capped(check, cap, even_fail=True)
    return _capped(check, _foreign_rows(suite, results), even_fail=False)


def without_baseline(baseline: Baseline) -> str:
    """Say why nothing is compared: nobody asked for it, or nothing was ever released."""
    return "nothing was ever released" if is_first_release(baseline) else "no baseline was asked for"


def is_first_release(baseline: Baseline) -> bool:
    """Tell whether there is no baseline because nothing was ever released, and not because none was asked for."""
    return baseline.state == "none" and baseline.reason.startswith("nothing was ever released")


def obstacle_to_comparison(suite: str, metric: Metric, evidence: Evidence, rules: Evaluation) -> str:
    """Say why candidate and baseline cannot be compared; empty if they can."""
    baseline = evidence.baseline
    if baseline.state != "fetched":
        return f"{metric.name}: the baseline could not be had ({baseline.reason or 'no reason is known'})"
    if age := reasons.too_old(baseline.created, evidence.now, rules.max_age_days):
        return f"{metric.name}: the baseline {baseline.ref} {age}"
    then, now = evidence.baseline_results.get(suite), evidence.results.get(suite)
    if then is None:
        return f"{metric.name}: the baseline {baseline.ref} has no suite '{suite}'"
    if metric.name not in then.columns or not then.columns[metric.name].applies.any():
        return f"{metric.name}: the baseline {baseline.ref} has no values of it"
    if now is None:
        return f"{metric.name}: suite '{suite}' has no rows"
    differs = f"than the baseline {baseline.ref}"
    if now.run.dataset.digest != then.run.dataset.digest:
        only_now, only_then = (len(np.setdiff1d(a.ids, b.ids)) for a, b in ((now, then), (then, now)))
        return f"{metric.name}: it was measured on other rows {differs} ({only_now} are new, {only_then} are gone)"
    if now.run.model.family != then.run.model.family:
        return f"{metric.name}: the model comes from another base {differs}"
    if now.run.judges.get(metric.name) != then.run.judges.get(metric.name):
        return f"{metric.name}: another judge graded it {differs}"
    if metric.kind == "quantile" and now.run.machine != then.run.machine:
        return f"{metric.name}: it was timed on another kind of machine {differs}"
    return ""


def scale_of(metric: Metric, rule: Rule) -> Scale:
    """Return what values a metric can take, with what a gate declares of it."""
    is_exact = metric.is_safety if rule.exact is None else rule.exact
    has_tail = metric.kind == "continuous" and metric.high is None
    high = rule.highest if has_tail else metric.high
    return Scale(metric.direction, metric.kind, metric.low, high, metric.quantile, is_exact, metric.is_log, has_tail)


def _scale(suite: str, metric: Metric, rule: Rule, evidence: Evidence, results: Results) -> tuple[Scale, str]:
    """Return the metric's scale, and why its judge cannot decide alone (empty if it can, or nobody judges)."""
    scale = scale_of(metric, rule)
    if metric.name not in evidence.judged.get(suite, frozenset()):
        return scale, ""
    agreement = agreement_of(results, metric.name)
    if agreement is None or not agreement.is_informative:
        lack = "no rows labelled by people calibrate it" if agreement is None else "it knows no more than a coin"
        return scale, f"{metric.name}: a judge alone can only ask for review ({lack})"
    sides = [results, evidence.baseline_results.get(suite)]
    columns = [side.columns[metric.name].values for side in sides if side is not None and metric.name in side.columns]
    if not all(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all() for values in columns):
        return scale, f"{metric.name}: a judge that gives more grades than 0 and 1 can only ask for review"
    return scale._replace(kind="binary", agreement=agreement), ""


def _level(values: Floats, scale: Scale) -> float:
    known = values[~np.isnan(values)]
    if scale.quantile is not None:
        return order_statistic(known, scale.quantile)
    if scale.is_log:
        return float(np.exp(np.log(known).mean()))
    if scale.agreement is not None:
        return corrected_rate(float(known.sum()), len(known), scale.agreement).value
    return float(known.mean())


def _has_both(pair: Pair, metric: Metric) -> bool:
    known = ~np.isnan(pair.candidate), ~np.isnan(pair.baseline)
    return bool(known[0].any() and known[1].any()) if metric.kind == "quantile" else bool((known[0] & known[1]).any())


def _missing_before(pair: Pair, metric: Metric, rules: Evaluation) -> str:
    share = float(np.isnan(pair.baseline).mean())
    if share <= rules.max_missing_rate:
        return ""
    return (
        f"{metric.name}: {share:.1%} of the baseline's rows are missing (at most {rules.max_missing_rate:.1%} may be)"
    )


def _foreign_rows(suite: str, results: Results) -> str:
    if not lost_rows(results) and results.is_whole:
        return ""
    return f"suite '{suite}': rows.parquet holds other rows than run.json says; evaluate again"


def _capped(check: Check, cause: str, *, even_fail: bool) -> Check:
    """Leave a check to a person for the given cause; an error stays one, and so does a failure unless said so."""
    stands = (check.verdict == "fail" and not even_fail) or (check.verdict == "error" and check.reason)
    if not cause or stands:
        return check
    text = f"{cause}; measured: {check.reason}" if check.reason else cause
    return check._replace(verdict="manual_review", reason=text, n_to_decide=None)


def _common(ruling: Ruling) -> dict[str, Any]:
    return {
        "n": ruling.n,
        "n_missing": ruling.n_missing,
        "method": ruling.method,
        "p_value": ruling.p_value,
        "n_to_decide": ruling.n_to_decide,
        "smallest_detectable": ruling.smallest_detectable,
    }


def _no_rows(suite: str, metric: str) -> str:
    return f"{metric}: evaluation/{suite}/rows.parquet has no values of it; run `python -m scripts.evaluate`"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
