"""Hold the rows that a run handed over against the rows that the data asks for: none missing, added or relabelled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError
from pipelines.core.files import canonical_json, write_json
from pipelines.core.params import Params
from pipelines.core.rows import Row
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, of_suite
from pipelines.evaluation.results import read_results
from pipelines.evaluation.summary import summarise
from pipelines.review.evaluated import Suite

AGAIN = re.compile(r"\.[0-9]+\Z")  # the second and later timing of a row
MARKS = ("slice", "twin", "group")


def most_rows(params: Params, suites: Mapping[str, Suite]) -> int:
    """Return the most rows that any suite can have; where the data lies outside of Git, a bound that is never met."""
    counts = [len(one.rows) * params.suites[name].repeats for name, one in suites.items()]
    unknown = [10_000_000] if len(suites) < len(params.suites) else []
    return max([*counts, *unknown, params.latency.requests], default=0)


def check(evaluation: Path, params: Params, suites: Mapping[str, Suite]) -> None:
    """Check every suite that was handed over, and write its `metrics.json` anew from its rows.

    Args:
        evaluation: Folder of the suites; their rows are files of our own by now.
        params: The pull request's parameters.
        suites: What the data asks for; a suite whose data lies outside of Git is not there.

    Raises:
        ConfigError: A suite's rows are not those of its data.
    """
    for path in sorted(evaluation.glob("*/rows.parquet")):
        name, shown = path.parent.name, f"evaluation/{path.parent.name}/rows.parquet"
        declared = params.latency.suite if name == LATENCY_SUITE else name
        if declared not in params.suites:
            raise ConfigError(f"{shown}: params.yaml declares no such suite")
        if not (path.parent / "run.json").is_file():
            raise ConfigError(f"evaluation/{name}/run.json: was not handed over")
        if declared in suites:
            _check_rows(path, shown, suites[declared].rows, _times(name, params))
        metrics = of_suite(params.suites[name]) if name != LATENCY_SUITE else {n: METRICS[n] for n in LATENCY_METRICS}
        try:
            summary = summarise(name, read_results(path.parent, metrics), metrics)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{evaluation}/", "evaluation/")) from None
        write_json(path.parent / "metrics.json", summary)


def _times(name: str, params: Params) -> int | None:
    """Return how often each row must be there; None where only the number of rows is declared."""
    return None if name == LATENCY_SUITE else params.suites[name].repeats


def _check_rows(path: Path, shown: str, expected: Sequence[Row], times: int | None) -> None:
    table = _columns(path, shown)
    known = {row.id: row for row in expected}
    ids = table["id"] if times is not None else [AGAIN.sub("", str(each)) for each in table["id"]]
    if strange := next((each for each in ids if each not in known), None):
        raise ConfigError(f"{shown}: row {str(strange)[:40]!r} is not in the data")
    if times is not None:
        counts = Counter(ids)
        if wrong := next((each for each in known if counts[each] != times), None):
            raise ConfigError(f"{shown}: row {wrong} is there {counts[wrong]} times, {times} are declared")
        pairs = set(zip(ids, table["repeat"], strict=True))
        if len(pairs) < len(ids) or not all(0 <= repeat < times for repeat in table["repeat"]):
            raise ConfigError(f"{shown}: a repeat is there twice or was not declared")
    for at, each in enumerate(ids):
        row = known[each]
        if wrong_column := _differing(table, at, row):
            raise ConfigError(f"{shown}: row {each}: {wrong_column} is not what the data says")


def _differing(table: Mapping[str, Sequence[Any]], at: int, row: Row) -> str | None:
    if table["gold"][at] != row.answer:
        return "gold"
    try:
        inputs = json.loads(table["input"][at] or "")
    except (ValueError, RecursionError):
        return "input"
    if canonical_json(inputs) != canonical_json(row.inputs):
        return "input"
    return next((mark for mark in MARKS if (table[mark][at] or None) != getattr(row, mark)), None)


def _columns(path: Path, shown: str) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    names = ["id", "repeat", "gold", "input", *MARKS]
    with pq.ParquetFile(path) as file:
        if lacking := [name for name in names if name not in file.schema_arrow.names]:
            raise ConfigError(f"{shown}: column '{lacking[0]}' is missing")
        found: dict[str, list[Any]] = file.read(columns=names).to_pydict()
    return found
