"""Read `rows.parquet` of candidate and baseline and pair them row by row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError
from pipelines.evaluation.reporting.view import Before, Example, Move

NOTICEABLE = 0.05  # share of a metric's range; a similarity that moves by less is not worth a reviewer's time
LONGEST_TEXT = 4_000  # characters of one input or answer; a model that never stops must not swell the report
COLUMNS = ("id", "repeat", "slice", "line", "input", "gold", "output", "state", "error", "latency_ms", "cost_usd")


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else: a report must not fail on what it is there to show."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read the named columns of a Parquet file, those that it has.

    Raises:
        ConfigError: The file is no Parquet file.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=[name for name in columns if name in file.schema_arrow.names])
            rows: list[dict[str, Any]] = table.to_pylist()
            return rows
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as rows ({error}); run `python -m scripts.evaluate`") from None


def read_examples(suite: str, folder: Path, baseline: Path, metrics: dict[str, Any], gated: set[str]) -> list[Example]:
    """Read one suite's rows, paired with the baseline's by id and repeat.

    Args:
        suite: Name of the suite.
        folder: Folder of its `rows.parquet`.
        baseline: Folder of the baseline's; it may be missing.
        metrics: `metrics` of `run.json`: direction, kind, low, high, column per metric.
        gated: Metrics that a gate watches: they decide whether a row counts as regressed or improved.

    Returns:
        The rows in the order of the file; empty if there is no file.
    """
    path = folder / "rows.parquet"
    if not path.is_file():
        return []
    shown = {name: meta for name, meta in metrics.items() if isinstance(meta, dict) and meta.get("kind") != "quantile"}
    columns = tuple(dict.fromkeys([*COLUMNS, *shown]))
    before = _read_before(baseline / "rows.parquet", shown)
    watched = {name: shown[name] for name in shown if name in gated and _range(shown[name])}
    examples = [_example(suite, row, shown) for row in read_table(path, columns)]
    if before is None:
        return examples
    return [_paired(example, before, watched) for example in examples]


def _read_before(path: Path, metrics: dict[str, Any]) -> dict[tuple[str, int], Before] | None:
    if not path.is_file():
        return None
    rows = read_table(path, tuple(dict.fromkeys(["id", "repeat", "output", "state", *metrics])))
    return {
        (str(row.get("id")), _count(row.get("repeat"))): Before(
            _text(row.get("output")), _text(row.get("state")), _scores(row, metrics)
        )
        for row in rows
    }


def _example(suite: str, row: dict[str, Any], metrics: dict[str, Any]) -> Example:
    return Example(
        suite=suite,
        id=_text(row.get("id")),
        repeat=_count(row.get("repeat")),
        slice=_text(row.get("slice")),
        line=None if number(row.get("line")) is None else _count(row.get("line")),
        inputs=_inputs(row.get("input")),
        gold=_text(row.get("gold")),
        output=_text(row.get("output")),
        state=_text(row.get("state")),
        error=_text(row.get("error")),
        scores=_scores(row, metrics),
        latency_ms=number(row.get("latency_ms")),
        cost_usd=number(row.get("cost_usd")),
    )


def _paired(example: Example, before: dict[tuple[str, int], Before], watched: dict[str, Any]) -> Example:
    old = before.get((example.id, example.repeat)) or before.get((example.id, 0))
    if old is None:
        return example._replace(move="new")
    gains: dict[str, float] = {}
    for name, meta in watched.items():
        now, then = example.scores.get(name), old.scores.get(name)
        if now is not None and then is not None and now != then:
            sign = 1 if meta.get("direction") == "higher" else -1
            gains[name] = sign * (now - then) / _range(meta)
    worst, best = min(gains.values(), default=0.0), max(gains.values(), default=0.0)
    move: Move = "regressed" if worst <= -NOTICEABLE else "improved" if best >= NOTICEABLE else "same"
    size = worst if move == "regressed" else best if move == "improved" else 0.0
    return example._replace(before=old, move=move, moved=tuple(sorted(gains, key=lambda name: gains[name])), size=size)


def _range(meta: dict[str, Any]) -> float:
    """Return the width of a metric's declared range, or 0 where it is open."""
    low, high = number(meta.get("low")), number(meta.get("high"))
    return 0.0 if low is None or high is None else high - low


def _scores(row: dict[str, Any], metrics: dict[str, Any]) -> dict[str, float | None]:
    """Leave out metrics that do not apply (null); one that applies and is missing (NaN) is None."""
    return {name: number(row[name]) for name in metrics if row.get(name) is not None}


def _inputs(value: Any) -> tuple[tuple[str, str], ...]:
    try:
        inputs = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        inputs = value
    if isinstance(inputs, dict):
        return tuple((_text(name), _text(text)) for name, text in inputs.items())
    return (("input", _text(inputs)),)


def _count(value: Any) -> int:
    found = number(value)
    return 0 if found is None else int(found)


def _text(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else str(value)
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]} … ({len(text) - LONGEST_TEXT} more characters)"
