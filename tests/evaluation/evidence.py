"""Rows of invented suites, in memory and as files, for tests of what is decided on them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.files import write_json
from pipelines.core.gates import Evaluation
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.catalogue import LATENCY_METRICS, METRICS, Metric
from pipelines.evaluation.deciding.checks import Evidence
from pipelines.evaluation.gate import Decision, decide
from pipelines.evaluation.results import Column, Results, Run
from pipelines.evaluation.row_table import ids_digest, write_rows

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
FETCHED = Baseline("fetched", "v1.0.0", "c0ffee", "2026-11-01T00:00:00+00:00")
NONE = Baseline("none", reason="nothing was ever released")
NAN = math.nan
Values = Sequence[float | None]


def names(n: int) -> list[str]:
    return [f"{number:016x}" for number in range(n)]


def run_record(ids: Sequence[str], **changes: Any) -> dict[str, Any]:
    """Return what `run.json` says, with `changes` to any of its keys."""
    record = {
        "schema_version": 1,
        "suite": "triage",
        "model": {"name": "candidate", "kind": "adapter", "digest": "d1", "family": "f1"},
        "dataset": {"name": "triage", "split": "test", "digest": ids_digest(ids), "n": len(ids)},
        "judges": {},
        "created": "2026-11-19T00:00:00+00:00",
        "machine": {"cpu": "one", "cores": 2},
    }
    return {**record, **changes}


def suite(
    ids: Sequence[str] | None = None,
    *,
    slices: Sequence[str] | None = None,
    clusters: Sequence[int] | None = None,
    run: Mapping[str, Any] | None = None,
    of: Sequence[str] | None = None,
    **metrics: Values,
) -> Results:
    """Return a suite's rows; None does not apply, NaN is missing; `of` are the data set's ids if not the rows'."""
    ids = names(len(next(iter(metrics.values())))) if ids is None else ids
    columns = {
        name: Column(
            np.array([NAN if value is None else value for value in values], dtype=float),
            np.array([value is not None for value in values], dtype=bool),
        )
        for name, values in metrics.items()
    }
    record = Run.model_validate(run_record(of or ids, **(run or {})))
    is_whole = ids_digest(ids) == record.dataset.digest
    groups = None if clusters is None else np.array(clusters, dtype=np.int64)
    return Results(
        np.array(ids, dtype=str), np.array(slices or [""] * len(ids), dtype=str), groups, columns, record, is_whole
    )


def gates(**rules: dict[str, Any]) -> Evaluation:
    """Return gates with one gate over suite `triage` that has these rules by metric."""
    return evaluation([{"name": "quality", "stage": "quality", "suite": "triage", "metrics": rules}])


def evaluation(declared: list[dict[str, Any]], **changes: Any) -> Evaluation:
    return Evaluation.model_validate({"gates": declared, **changes})


def verdict(
    rules: Evaluation,
    results: Results | Mapping[str, Results] | None,
    before: Results | Mapping[str, Results] | None = None,
    *,
    baseline: Baseline | None = None,
    judged: Sequence[str] = (),
    metrics: Mapping[str, Metric] | None = None,
) -> Decision:
    """Decide; a single suite is called `triage`."""
    sides = [
        {} if side is None else {"triage": side} if isinstance(side, Results) else dict(side)
        for side in (results, before)
    ]
    known = {**METRICS, **(metrics or {})}
    declared = {
        name: {key: value for key, value in known.items() if value.kind != "quantile"} for name in ("triage", "reply")
    }
    declared["latency"] = {name: METRICS[name] for name in LATENCY_METRICS}
    state = baseline or (FETCHED if sides[1] else NONE)
    evidence = Evidence(declared, {"triage": frozenset(judged)}, sides[0], state, sides[1], NOW)
    return decide(evidence, rules, rng=np.random.default_rng(0))


def right(n_right: int, n: int) -> list[float]:
    return [1.0] * n_right + [0.0] * (n - n_right)


def write_suite(folder: Path, columns: Mapping[str, Sequence[Any]], **changes: Any) -> None:
    """Write `rows.parquet` and `run.json` as an evaluation leaves them; `id` and `state` are filled in."""
    n = len(next(iter(columns.values())))
    table = {"id": names(n), "repeat": [0] * n, "slice": ["plain"] * n, "state": ["scored"] * n, **columns}
    write_rows(folder / "rows.parquet", table)
    write_json(folder / "run.json", run_record(list(dict.fromkeys(table["id"])), **changes))
