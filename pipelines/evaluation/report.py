"""Collect what the other stages left in files into one view, and write both reports from it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, TypeVar

from pipelines.core import commit, source
from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, write_text
from pipelines.evaluation.catalogue import LATENCY_SUITE as LATENCY
from pipelines.evaluation.catalogue import METRICS
from pipelines.evaluation.reporting import changes, html, markdown
from pipelines.evaluation.reporting.rows import number, read_examples, read_table
from pipelines.evaluation.reporting.view import (
    VERDICTS,
    Baseline,
    Check,
    Estimate,
    Gate,
    SliceResult,
    Suite,
    TrainingStep,
    View,
)

Part = TypeVar("Part", Baseline, Check, Estimate, Gate, SliceResult)


def write(root: Path) -> View:
    """Write `evaluation/report.md` and `evaluation/report.html` from the files of a finished run.

    Args:
        root: The repository.

    Returns:
        What both show.

    Raises:
        ConfigError: `evaluation/decision.json` is missing, or a file it needs is broken.
    """
    view = collect(root)
    page, site = markdown.render(view), html.render(view)
    write_text(root / "evaluation" / "report.md", page)
    write_text(root / "evaluation" / "report.html", site)
    return view


def collect(root: Path) -> View:
    """Read everything a report shows. Only the decision must be there: an error has to be reported too.

    Args:
        root: The repository.

    Raises:
        ConfigError: `evaluation/decision.json` is missing, or a file is broken.
    """
    folder = root / "evaluation"
    decision = _dict(read_json(folder / "decision.json"))
    gates = tuple(_gate(raw) for raw in _list(decision.get("gates")))
    suites = tuple(_suite(folder, name, gates) for name in _suite_names(folder, gates))
    kinds = {(suite.name, name): found for suite in suites for name, found in suite.estimates.items()}
    gates = tuple(_with_kinds(gate, kinds) for gate in gates)
    baseline = _baseline(root, decision)
    training = _optional(root / "models" / "candidate" / "training.json")
    return View(
        verdict=decision["verdict"] if decision.get("verdict") in VERDICTS else "error",
        reasons=tuple(str(reason) for reason in _list(decision.get("reasons"))),
        created=str(decision.get("created") or ""),
        input_digest=str(decision.get("input_digest") or ""),
        commit=str(decision.get("commit") or commit.head(root)[0]),
        baseline=baseline,
        gates=gates,
        slices=tuple(_slices(folder, decision, gates, suites)),
        changes=_changes(root, baseline, suites),
        suites=suites,
        curve=tuple(_curve(training)),
        training=training,
        error_rates=tuple(_sentences(decision.get("error_rates"))),
        smallest_detectable=tuple(_sentences(decision.get("smallest_detectable"))),
        caps=tuple(_sentences(decision.get("caps"))),
        approval={key: str(value) for key, value in _dict(decision.get("approval") or {}).items()},
        alpha=alpha if (alpha := number(decision.get("alpha"))) is not None and 0 < alpha < 1 else None,
    )


def _suite_names(folder: Path, gates: tuple[Gate, ...]) -> list[str]:
    """Return the suites that ran: those of quality gates first, latency last."""
    found = sorted(path.parent.name for path in folder.glob("*/run.json") if path.parent.name != "baseline")
    order = list(dict.fromkeys(gate.suite for gate in sorted(gates, key=lambda gate: gate.stage != "quality")))
    return sorted(found, key=lambda name: (name == LATENCY, order.index(name) if name in order else len(order)))


def _suite(folder: Path, name: str, gates: tuple[Gate, ...]) -> Suite:
    run, old = _optional(folder / name / "run.json"), folder / "baseline" / name
    gated = {check.metric for gate in gates if gate.suite == name for check in gate.checks}
    old_run = _optional(old / "run.json")
    return Suite(
        name=name,
        run=run,
        estimates=_estimates(_optional(folder / name / "metrics.json").get("metrics"), run),
        baseline_run=old_run or None,
        baseline_estimates=_estimates(_optional(old / "metrics.json").get("metrics"), old_run),
        examples=tuple(read_examples(name, folder / name, old, _dict(run.get("metrics")), gated)),
        latencies_ms=_latencies(folder / name) if name == LATENCY else (),
        baseline_latencies_ms=_latencies(old) if name == LATENCY else (),
    )


def _latencies(folder: Path) -> tuple[float, ...]:
    path = folder / "rows.parquet"
    rows = read_table(path, ("latency_ms",)) if path.is_file() else []
    return tuple(sorted(value for row in rows if (value := number(row.get("latency_ms"))) is not None))


def _estimates(raw: Any, run: dict[str, Any]) -> dict[str, Estimate]:
    declared = _dict(run.get("metrics"))
    return {
        str(name): _estimate(str(name), _dict(value), _dict(declared.get(name))) for name, value in _dict(raw).items()
    }


def _estimate(name: str, raw: dict[str, Any], declared: dict[str, Any]) -> Estimate:
    return _part(Estimate, {"unit": declared.get("unit"), "kind": declared.get("kind"), **raw, "metric": name})


def _gate(raw: Any) -> Gate:
    gate = _part(Gate, _dict(raw))
    return gate._replace(checks=tuple(_part(Check, _dict(check)) for check in _list(_dict(raw).get("checks"))))


def _with_kinds(gate: Gate, kinds: dict[tuple[str, str], Estimate]) -> Gate:
    def fill(check: Check) -> Check:
        known = kinds.get((gate.suite, check.metric)) or METRICS.get(check.metric)
        return check._replace(kind=check.kind or known.kind, unit=check.unit or known.unit) if known else check

    return gate._replace(checks=tuple(fill(check) for check in gate.checks))


def _slices(
    folder: Path, decision: dict[str, Any], gates: tuple[Gate, ...], suites: tuple[Suite, ...]
) -> list[SliceResult]:
    """Return the decision's slices; it has none without a baseline, and those of a quality gate's metric are shown."""
    raw = [_dict(value) for value in _list(decision.get("slices"))]
    found = []
    for suite in suites:
        now = _dict(_optional(folder / suite.name / "metrics.json").get("slices"))
        then = _dict(_optional(folder / "baseline" / suite.name / "metrics.json").get("slices"))
        declared = _dict(suite.run.get("metrics"))
        mine = [value for value in raw if value.get("suite") == suite.name]
        if not mine and not raw:
            metric = next(
                (c.metric for g in gates if g.suite == suite.name and g.stage == "quality" for c in g.checks), ""
            )
            mine = [
                {"suite": suite.name, "slice": name, "metric": metric} for name in now if metric in _dict(now[name])
            ]
        for value in mine:
            metric, name = str(value.get("metric")), str(value.get("slice"))
            sides = [_dict(_dict(side.get(name)).get(metric)) for side in (now, then)]
            new, old = (_estimate(metric, side, _dict(declared.get(metric))) for side in sides)
            found.append(_part(SliceResult, value)._replace(estimate=new, baseline=old if sides[1] else None))
    return sorted(found, key=lambda item: not item.flagged)


def _baseline(root: Path, decision: dict[str, Any]) -> Baseline:
    raw = _dict(decision.get("baseline")) or _optional(root / "evaluation" / "baseline" / "baseline.json")
    gates = _optional_yaml(root / "gates.yaml")
    now, then = (_date(value.get("created")) for value in (decision, raw))
    age = None if now is None or then is None else (now - then).total_seconds() / 86_400
    limit = number(_dict(gates.get("evaluation")).get("max_age_days", 180))
    return _part(Baseline, raw)._replace(age_days=age, max_age_days=limit)


def _changes(root: Path, baseline: Baseline, suites: tuple[Suite, ...]) -> changes.Changes:
    if baseline.state != "fetched":
        return changes.Changes(is_known=False)
    found = changes.compare(root / "evaluation" / "baseline" / "declared", root)
    before = {suite.name: suite.baseline_run for suite in suites if suite.baseline_run}
    return found._replace(models=changes.compare_models(before, {suite.name: suite.run for suite in suites}))


def _curve(training: dict[str, Any]) -> list[TrainingStep]:
    points = _list(training.get("loss"))
    pairs = [(number(_dict(point).get("step")), number(_dict(point).get("loss"))) for point in points]
    return [TrainingStep(step, loss) for step, loss in pairs if step is not None and loss is not None]


def _sentences(raw: Any) -> list[str]:
    """Write a list of texts or of flat objects as lines, whatever keys they have."""
    items = raw if isinstance(raw, list) else [raw] if raw else []
    return [
        ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in item.items())
        if isinstance(item, dict)
        else str(item)
        for item in items
    ]


def _part(kind: type[Part], raw: dict[str, Any]) -> Part:
    """Build a part from the keys it knows; a value of another type than the default's is left out."""
    values: dict[str, Any] = {}
    defaults = kind._field_defaults
    for field in kind._fields:
        value, default = raw.get(field), defaults.get(field)
        if isinstance(default, bool):
            values[field] = value if isinstance(value, bool) else default
        elif isinstance(default, str) or field == "metric":
            values[field] = value if isinstance(value, str) else default or ""
        elif isinstance(default, tuple) or field in ("estimate", "baseline"):
            continue
        elif field.startswith("n_") or field == "n":
            values[field] = default if number(value) is None else int(value)  # type: ignore[arg-type]
        else:
            values[field] = number(value)
    return kind(**values)


def _optional(path: Path) -> dict[str, Any]:
    return _dict(read_json(path)) if path.is_file() else {}


def _optional_yaml(path: Path) -> dict[str, Any]:
    try:
        return _dict(source.parse(path).value)
    except ConfigError:
        return {}


def _date(value: Any) -> datetime.datetime | None:
    try:
        date = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=datetime.UTC)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
