"""Read everything a verdict rests on, have it decided, and write it down."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.commit import head
from pipelines.core.errors import ConfigError
from pipelines.core.files import sha256, write_json
from pipelines.core.gates import Evaluation, load_gates
from pipelines.core.inputs import input_digest
from pipelines.core.params import Params, load_params
from pipelines.evaluation.baseline import FOLDER, Baseline, fetch_baseline
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, Metric, of_suite
from pipelines.evaluation.deciding import reasons
from pipelines.evaluation.deciding.caps import Cap, capped, unmeasured
from pipelines.evaluation.deciding.checks import Check, Evidence
from pipelines.evaluation.gate import EXIT_CODES, Decision, as_json, decide
from pipelines.evaluation.results import Results, read_results

DECISION = Path("evaluation/decision.json")


class Judged(NamedTuple):
    """A decision and what it was made against."""

    decision: Decision
    baseline: Baseline

    @property
    def exit_code(self) -> int:
        """The verdict's exit code."""
        return EXIT_CODES[self.decision.verdict]


def judge(asked: str, root: Path = Path(), *, repository: Path | None = None, cap: Cap | None = None) -> Judged:
    """Decide about the rows under `evaluation/` and write `evaluation/decision.json`.

    Args:
        asked: Which baseline: `auto`, `none` or a Git reference.
        root: Folder with declared files and `evaluation/`.
        repository: Where the baseline is taken from, by default `root`.
        cap: What is known of the pull request that is judged; None where there is none.

    Raises:
        ConfigError: A declared file or a rows file is broken. The decision of an earlier run is gone by then, so that
            nobody takes it for this one's.
    """
    (root / DECISION).unlink(missing_ok=True)
    if cap is not None and not cap.is_evaluated:
        nothing = Baseline("none", reason="nothing was measured, so nothing is compared")
        return _conclude(unmeasured("pass", "nothing that is measured changed"), nothing, root, None, cap)
    rules, params = load_gates(root / "gates.yaml").evaluation, load_params(root / "params.yaml")
    metrics = declared_metrics(params)
    results = _read(root / "evaluation", metrics, rules)
    baseline = fetch_baseline(asked, root, repository=repository)
    before: dict[str, Results] = {}
    if baseline.state == "fetched":
        try:
            before = _read(root / FOLDER, metrics, rules)
        except ConfigError as error:  # the candidate is not to blame for what was once released
            baseline = baseline._replace(state="unavailable", reason=f"its rows cannot be read ({error})")
    now = datetime.datetime.now(datetime.UTC)
    judged = {name: frozenset(suite.judges) for name, suite in params.suites.items()}
    evidence = Evidence(metrics, judged, results, baseline, before, now)
    # The A/A figures are random; the declared seed makes them the same each time.
    decision = decide(evidence, rules, rng=np.random.default_rng(params.seed))
    return _conclude(decision, baseline, root, results, cap)


def _conclude(
    decision: Decision, baseline: Baseline, root: Path, results: Mapping[str, Results] | None, cap: Cap | None
) -> Judged:
    models = {name: found.run.model.digest for name, found in (results or {}).items()}
    gates = root / "gates.yaml"
    about = {
        "input_digest": cap.input_digest if cap else input_digest(root),
        "gates_sha256": sha256(gates) if gates.is_file() else "",
        "models": models,
        "commit": cap.commit if cap else head(root)[0],
    }
    final = capped(decision, cap) if cap else decision
    write_decision(root, final, baseline, about)
    return Judged(final, baseline)


def write_decision(root: Path, decision: Decision, baseline: Baseline, about: Mapping[str, object]) -> None:
    """Write `evaluation/decision.json`.

    Args:
        root: Folder that holds `evaluation/`.
        decision: What was decided.
        baseline: What it was compared with.
        about: Further keys: what the decision is about.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    value = {"schema_version": 1, **as_json(decision), **about, "created": now}
    write_json(root / DECISION, {**value, "baseline": {"schema_version": 1, **baseline._asdict()}})


def declared_metrics(params: Params) -> dict[str, dict[str, Metric]]:
    """Return every metric by suite, as declared: what a run says of its own metrics is not asked."""
    found = {name: of_suite(suite) for name, suite in params.suites.items()}
    return {**found, LATENCY_SUITE: {name: METRICS[name] for name in LATENCY_METRICS}}


def _read(folder: Path, metrics: Mapping[str, Mapping[str, Metric]], rules: Evaluation) -> dict[str, Results]:
    """Read the suites that a gate or a slice rule asks for; one without rows is left out, and its gates are errors."""
    asked = {gate.suite for gate in rules.gates} | {rule.suite for rule in rules.slices}
    there = [name for name in sorted(asked) if name in metrics and (folder / name / "rows.parquet").is_file()]
    return {name: read_results(folder / name, metrics[name]) for name in there}


def table(decision: Decision, baseline: Baseline) -> str:
    """Return the gates as a table for a terminal, the reasons below it, and the verdict in the last line."""
    lines = [_line("gate", "metric", "rule", "measured", "verdict")]
    for gate in decision.gates:
        name = gate.name if gate.required else f"{gate.name} (optional)"
        for check in gate.checks:
            rule = f"{check.rule} {reasons.number(check.limit, check.unit)}"
            lines.append(_line(name, check.metric, rule, _measured(check), check.verdict))
            name = ""
    where = {"none": "no baseline", "fetched": f"against {baseline.ref}", "unavailable": "baseline unavailable"}
    lines += ["", *(f"- {reason}" for reason in decision.reasons)]
    detail = f": {baseline.reason}" if baseline.reason else ""
    return "\n".join([*lines, f"{where[baseline.state]}{detail}", f"verdict: {decision.verdict}"])


def _line(gate: str, metric: str, rule: str, measured: str, verdict: str) -> str:
    return f"{gate:<20} {metric:<26} {rule:<22} {measured:<34} {verdict}"


def _measured(check: Check) -> str:
    is_gain = check.rule == "max_regression"
    parts = (check.gain, check.gain_lower, check.gain_upper) if is_gain else (check.value, check.lower, check.upper)
    if parts[0] is None:
        return "-"
    value, lower, upper = ("?" if part is None else reasons.number(part, check.unit) for part in parts)
    return f"{value} [{lower}, {upper}]"
