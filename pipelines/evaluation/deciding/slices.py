"""Compare candidate and baseline slice by slice; a slice can at most ask for review."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.gates import Evaluation, SliceRule
from pipelines.core.stats.multiple import benjamini_hochberg
from pipelines.core.stats.paired import Gain
from pipelines.core.stats.regressions import gain_of
from pipelines.core.stats.rules import Scale, at
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.deciding import reasons
from pipelines.evaluation.deciding.checks import Evidence, obstacle_to_comparison
from pipelines.evaluation.deciding.pairs import metric_pair
from pipelines.evaluation.results import Results


class SliceResult(NamedTuple):
    """One metric on one slice; `decision.json` holds these keys.

    Attributes:
        p_value: Against the hypothesis that the slice did not get worse at all.
        adjusted_p: After Benjamini-Hochberg over the slices of the same rule.
        flagged: Whether it did get worse, and by more than the rule's margin as measured.
    """

    suite: str
    slice: str
    metric: str
    gain: float
    gain_lower: float | None
    gain_upper: float | None
    p_value: float
    adjusted_p: float
    flagged: bool
    n: int


def compare_slices(evidence: Evidence, rules: Evaluation) -> tuple[list[SliceResult], list[str]]:
    """Compare the slices of every declared slice rule.

    Returns:
        Every slice, and a sentence for each that asks for review, or for a rule whose slices cannot be compared.
    """
    found: list[SliceResult] = []
    why: list[str] = []
    if evidence.baseline.state == "none":
        return found, why
    for rule in rules.slices:
        metric = evidence.metrics.get(rule.suite, {}).get(rule.metric)
        if metric is None or metric.kind == "quantile":
            why.append(f"slices of {rule.suite}: '{rule.metric}' cannot be compared by slice; correct gates.yaml")
            continue
        if obstacle := obstacle_to_comparison(rule.suite, metric, evidence, rules):
            why.append(f"slices of {rule.suite}: {obstacle}")
            continue
        results, baseline = evidence.results[rule.suite], evidence.baseline_results[rule.suite]
        if metric.name not in results.columns:
            why.append(f"slices of {rule.suite}: {metric.name} was not measured")
            continue
        compared = _compare(rule, metric, results, baseline, rules.alpha)
        found += compared
        why += [_sentence(one, metric, rule) for one in compared if one.flagged]
    return found, why


def _compare(rule: SliceRule, metric: Metric, results: Results, baseline: Results, level: float) -> list[SliceResult]:
    pair = metric_pair(results, baseline, metric.name)
    slices = _slices_of(pair.ids, results, baseline)
    scale = Scale(metric.direction, metric.kind, metric.low, metric.high, is_log=metric.is_log)
    # Missing rows are taken as bad as can be, since a flag costs no more than a look.
    candidate, before = pair.candidate, pair.baseline
    if metric.low is not None and metric.high is not None:
        worst, best = (metric.low, metric.high) if metric.direction == "higher" else (metric.high, metric.low)
        candidate = np.where(np.isnan(candidate), worst, candidate)
        before = np.where(np.isnan(before), best, before)
    is_known = ~(np.isnan(candidate) | np.isnan(before))
    gains: dict[str, Gain] = {}
    for name in np.unique(slices[is_known & (slices != "")]):
        rows = is_known & (slices == name)
        gains[str(name)] = gain_of(
            candidate[rows], before[rows], scale=scale, clusters=at(pair.clusters, rows), margin=0.0, alpha=level
        )
    adjusted = benjamini_hochberg([gain.p_value for gain in gains.values()])
    return [
        SliceResult(
            rule.suite,
            name,
            metric.name,
            gain.value,
            gain.lower if np.isfinite(gain.lower) else None,
            gain.upper if np.isfinite(gain.upper) else None,
            gain.p_value,
            float(p),
            bool(p < rule.false_discovery_rate and gain.value < -rule.max_regression),
            gain.n,
        )
        for (name, gain), p in zip(gains.items(), adjusted, strict=True)
    ]


def _slices_of(ids: NDArray[np.str_], results: Results, baseline: Results) -> NDArray[np.str_]:
    """Return the slice of each id, from the baseline where it has the row: a candidate cannot move its bad rows."""
    found: NDArray[np.str_] = np.zeros(len(ids), dtype=np.result_type(results.slices, baseline.slices))
    for side in (results, baseline):
        is_there = np.isin(ids, side.ids)
        found[is_there] = side.slices[np.searchsorted(side.ids, ids[is_there])]
    return found


def _sentence(found: SliceResult, metric: Metric, rule: SliceRule) -> str:
    loss, margin = (reasons.number(value, metric.unit) for value in (-found.gain, rule.max_regression))
    return (
        f"slice '{found.slice}' of {found.suite}: {found.metric} is worse by {loss} on {found.n} rows, "
        f"more than {margin} (p {found.adjusted_p:.2g} after Benjamini-Hochberg)"
    )
