"""Write what was measured: `rows.parquet`, `metrics.json` and `run.json` of a suite, together or not at all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.files import sha256, write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.machine import describe
from pipelines.evaluation.cases import NAN, Case, Value
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.results import read_results
from pipelines.evaluation.row_table import ids_digest, write_rows
from pipelines.evaluation.suite import Opened, Plan
from pipelines.evaluation.summary import summarise
from pipelines.llm.answers import Answer


class Outcome(NamedTuple):
    """What became of a suite.

    Attributes:
        summary: `metrics.json`.
        run: `run.json`.
        notes: What its user must be told: a spend limit reached, an endpoint down.
    """

    summary: dict[str, Any]
    run: dict[str, Any]
    notes: tuple[str, ...]


def run_record(plan: Plan, metrics: dict[str, Metric], ids: Sequence[str], model: Opened) -> dict[str, Any]:
    """Return the part of `run.json` that says what was measured, with what, on what and where."""
    card, suite = plan.card, plan.suite
    return {
        "schema_version": 1,
        "suite": plan.name,
        "model": {"name": suite.model, "kind": card.kind, "digest": card.digest, "family": card.family},
        "dataset": {"name": suite.dataset, "split": suite.split, "digest": ids_digest(ids), "n": len(ids)},
        "prompt": {
            "path": suite.prompt,
            "digest": sha256(plan.root / suite.prompt),
            "version": plan.prompt.gatehouse.version,
        },
        "engine": {"identity": model.answerer.identity, "precision": model.precision, "device": model.device},
        "metrics": {name: metric.declared() for name, metric in metrics.items()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe()._asdict(),
    }


def write(
    run: dict[str, Any],
    metrics: dict[str, Metric],
    cases: Sequence[Case],
    answers: Sequence[Answer],
    columns: dict[str, list[Value]],
    *,
    folder: Path,
) -> dict[str, Any]:
    """Write `rows.parquet`, `run.json` and `metrics.json` in a folder that then replaces the old one.

    Metrics are computed from the rows as a gate reads them back, so that both see the same numbers.

    Returns:
        What `metrics.json` holds.
    """
    with replacing_folder(folder) as new:
        write_rows(new / "rows.parquet", _table(cases, answers, columns))
        write_json(new / "run.json", run)
        summary = summarise(run["suite"], read_results(new, metrics), metrics)
        write_json(new / "metrics.json", summary)
    return summary


def _table(
    cases: Sequence[Case], answers: Sequence[Answer], columns: dict[str, list[Value]]
) -> dict[str, Sequence[Any]]:
    rows = [case.row for case in cases]
    table: dict[str, Sequence[Any]] = {
        "id": [row.id for row in rows],
        "repeat": [case.repeat for case in cases],
        "slice": [row.slice for row in rows],
        "twin": [row.twin for row in rows],
        "group": [row.group for row in rows],
        "line": [row.line for row in rows],
        "input": [json.dumps(row.inputs, ensure_ascii=False) for row in rows],
        "gold": [row.answer for row in rows],
        "output": [case.output for case in cases],
        "state": [case.state for case in cases],
        "error": [case.error for case in cases],
    }
    is_missing = [case.state == "infra_error" for case in cases]
    amounts = {
        name: [NAN if gone else float(getattr(case, name)) for case, gone in zip(cases, is_missing, strict=True)]
        for name in ("prompt_tokens", "completion_tokens", "cost_usd")
    }
    times = {name: [getattr(answer, name) for answer in answers] for name in ("latency_ms", "ttft_ms")}
    return table | columns | times | amounts | {"is_cached": [answer.is_cached for answer in answers]}
