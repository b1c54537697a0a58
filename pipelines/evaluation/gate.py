"""Decide: every gate over every metric, and one verdict for all of them. Nothing here reads a file or a clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipelines.core.gates import Evaluation, Gate
from pipelines.core.stats.halves import half_rates
from pipelines.core.stats.multiple import holm
from pipelines.core.stats.rules import Verdict
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.deciding import reasons
from pipelines.evaluation.deciding.checks import (
    Check,
    Evidence,
    check_metric,
    is_first_release,
    scale_of,
    without_baseline,
)
from pipelines.evaluation.deciding.pairs import metric_rows
from pipelines.evaluation.deciding.slices import SliceResult, compare_slices

# From the worst to the best; a gate is as good as its worst check.
ORDER: tuple[Verdict, ...] = ("error", "fail", "manual_review", "pass", "not_applicable")
EXIT_CODES = {"pass": 0, "error": 2, "fail": 3, "manual_review": 4}


class GateResult(NamedTuple):
    """A gate and its checks; `decision.json` holds these keys."""

    name: str
    stage: str
    required: bool
    suite: str
    verdict: Verdict
    checks: tuple[Check, ...]


class Decision(NamedTuple):
    """What becomes of a candidate, and why.

    Attributes:
        verdict: `pass`, `fail`, `manual_review` or `error`.
        reasons: One sentence for everything that stands in the way, or for what went well.
        gates: Every gate with its checks.
        slices: Every slice that is compared with the baseline.
        smallest_detectable: For each metric, the smallest effect that so many rows show.
        error_rates: A/A over random halves of the rows, as sentences for the report's footer.
        caps: Why a pull request may not pass without a person, one sentence each.
        approval: Who lifted a `manual_review`, when and why, or None where nobody had to or did.
        alpha: Level of each bound; None where nothing was measured.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    gates: tuple[GateResult, ...]
    slices: tuple[SliceResult, ...]
    smallest_detectable: tuple[str, ...]
    error_rates: tuple[str, ...]
    caps: tuple[str, ...] = ()
    approval: dict[str, str] | None = None
    alpha: float | None = None


def decide(evidence: Evidence, rules: Evaluation, *, rng: np.random.Generator) -> Decision:
    """Decide every gate, and from them the candidate.

    Every required gate must pass (an intersection-union test, Berger 1982: no correction is needed). A failure must
    stand after Holm's correction over all checks of required gates. A gate that is not required, a slice or a baseline
    that cannot be compared can at most ask for review.

    Args:
        evidence: The rows of candidate and baseline.
        rules: What `gates.yaml` declares.
        rng: Source of the random halves of the A/A figures; no verdict depends on it.
    """
    gates = [_gate(gate, evidence, rules) for gate in rules.gates]
    gates = _after_holm(gates, rules)
    slices, slice_reasons = compare_slices(evidence, rules)
    verdict, why = _combined(gates, slice_reasons, evidence.baseline)
    return Decision(
        verdict,
        tuple(why),
        tuple(gates),
        tuple(slices),
        tuple(_detectable(gates)),
        tuple(_a_a(evidence, rules, rng)),
        alpha=rules.alpha,
    )


def _gate(gate: Gate, evidence: Evidence, rules: Evaluation) -> GateResult:
    checks = tuple(
        check for name, rule in gate.metrics.items() for check in check_metric(gate.suite, name, rule, evidence, rules)
    )
    return GateResult(gate.name, gate.stage, gate.required, gate.suite, _worst(checks), checks)


def _worst(checks: tuple[Check, ...]) -> Verdict:
    return min((check.verdict for check in checks), key=ORDER.index)


def _after_holm(gates: list[GateResult], rules: Evaluation) -> list[GateResult]:
    """Leave to a person each failure that does not stand after Holm's correction over the required gates' checks."""
    tests = [check for gate in gates if gate.required for check in gate.checks if check.p_value is not None]
    p_values = [float(check.p_value) for check in tests if check.p_value is not None]
    # A gate that is not required fails for itself: it blocks nothing.
    adjusted = {id(check): float(p) for check, p in zip(tests, holm(p_values), strict=True)}

    def corrected(check: Check) -> Check:
        p = adjusted.get(id(check))
        if check.verdict != "fail" or p is None or p < rules.alpha:
            return check
        return check._replace(verdict="manual_review", reason=reasons.of_holm(check.reason, p, len(tests)))

    changed = []
    for gate in gates:
        checks = tuple(corrected(check) for check in gate.checks)
        changed.append(gate._replace(checks=checks, verdict=_worst(checks)))
    return changed


def _combined(gates: list[GateResult], slice_reasons: list[str], baseline: Baseline) -> tuple[Verdict, list[str]]:
    """Return the verdict over all gates, and a sentence for everything that keeps it from `pass`."""
    open_checks = [
        (gate, check) for gate in gates for check in gate.checks if check.verdict not in ("pass", "not_applicable")
    ]
    open_checks.sort(key=lambda pair: (not pair[0].required, ORDER.index(pair[1].verdict)))
    why = [
        f"{gate.name}{'' if gate.required else ' (not required)'}: {check.reason}" for gate, check in open_checks
    ] + slice_reasons
    verdicts: list[Verdict] = [gate.verdict if gate.required else _softened(gate.verdict) for gate in gates]
    verdicts += ["manual_review"] * bool(slice_reasons)
    worst = min(verdicts, key=ORDER.index)
    if worst == "not_applicable":
        return "manual_review", [f"no rule applies: {without_baseline(baseline)}, and no gate has a floor or a ceiling"]
    if worst == "pass":
        n_checks = sum(check.verdict == "pass" for gate in gates for check in gate.checks)
        n_open = sum(check.verdict == "not_applicable" for gate in gates for check in gate.checks)
        later = f"; {n_open} wait for a {'first release' if is_first_release(baseline) else 'baseline'} to compare with"
        later = later if n_open else ""
        return worst, [f"all {n_checks} checks of {len(gates)} gates pass{later}"]
    return worst, why


def _softened(verdict: Verdict) -> Verdict:
    return "manual_review" if verdict in ("error", "fail") else verdict


def _detectable(gates: list[GateResult]) -> list[str]:
    """Say for each check how far from its limit a candidate must be for so many rows to decide."""
    return [
        f"{gate.suite}: {check.metric}: {check.n} rows decide on a true value "
        f"{reasons.number(check.smallest_detectable, check.unit, decimals=3)} from the "
        f"{'margin' if check.rule == 'max_regression' else check.rule} 80 % of the time"
        for gate in gates
        for check in gate.checks
        if check.smallest_detectable is not None
    ]


def _a_a(evidence: Evidence, rules: Evaluation, rng: np.random.Generator) -> list[str]:
    """Say how often each margin would fail or ask for review between halves of the candidate's own rows."""
    found = []
    for gate in rules.gates:
        for name, rule in gate.metrics.items():
            results, metric = evidence.results.get(gate.suite), evidence.metrics.get(gate.suite, {}).get(name)
            if rule.max_regression is None or metric is None or metric.kind == "quantile" or results is None:
                continue
            if name not in results.columns:
                continue
            values = metric_rows(results, name, None).values
            values = values[~np.isnan(values)]
            if len(values) < 4:
                continue
            rates = half_rates(values, rule.max_regression, scale=scale_of(metric, rule), rng=rng, alpha=rules.alpha)
            found.append(
                f"A/A {gate.suite}: {name}: of {rates.n_rounds} random halves ({len(values) // 2} rows each), "
                f"a margin of {reasons.number(rule.max_regression, metric.unit)} failed {rates.fails:.1%} "
                f"and left {rates.reviews:.1%} to review"
            )
    return found


def as_json(decision: Decision) -> dict[str, Any]:
    """Return what `decision.json` holds of a decision."""
    value: dict[str, Any] = decision._asdict()
    value["gates"] = [
        {**gate._asdict(), "checks": [check._asdict() for check in gate.checks]} for gate in decision.gates
    ]
    value["slices"] = [found._asdict() for found in decision.slices]
    return value
