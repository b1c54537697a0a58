"""Read a suite's rows and run into arrays that keep "missing" and "not applicable" apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json
from pipelines.evaluation.catalogue import METRICS, Metric
from pipelines.evaluation.row_table import FAILED, SCHEMA_VERSION, STATES, ids_digest

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Column(NamedTuple):
    """One metric over a suite's rows, repeats averaged.

    Attributes:
        values: Shape (n_rows,); NaN where the metric does not apply or is missing.
        applies: Shape (n_rows,); whether the metric applies to the row.
    """

    values: Floats
    applies: Flags


class Calibration(BaseModel):
    """How often a judge agrees with people, on rows that people labelled 0 (m0 of them) and 1 (m1)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    m0: int
    m1: int
    correct0: int
    correct1: int


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    family: str | None = None


class _Dataset(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    n: int


class Run(BaseModel):
    """What a gate needs of `run.json`; other keys are for people."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model: _Model
    dataset: _Dataset
    judges: dict[str, str] = {}
    calibration: dict[str, Calibration] = {}
    created: str = ""
    machine: Any = None


class Results(NamedTuple):
    """A suite's rows as arrays, one entry per example.

    Attributes:
        ids: Content hashes, sorted, shape (n_rows,).
        slices: Slice per row, empty text where there is none, shape (n_rows,).
        clusters: Number of the conversation (or twin pair) per row, shape (n_rows,); None if each row stands alone.
        columns: Metric by name.
        run: What `run.json` says.
        is_whole: Whether the rows are those that `run.json` was written for.
    """

    ids: NDArray[np.str_]
    slices: NDArray[np.str_]
    clusters: NDArray[np.int64] | None
    columns: dict[str, Column]
    run: Run
    is_whole: bool = True


def read_run(path: Path) -> Run:
    """Read `run.json`.

    Raises:
        ConfigError: The file is missing, or lacks what a gate needs (the message names the key).
    """
    try:
        return Run.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {key}: {first['msg'].lower()}; run `python -m scripts.evaluate` again") from None


def read_results(folder: Path, metrics: Mapping[str, Metric]) -> Results:
    """Read a suite's rows and run.

    Args:
        folder: `evaluation/<suite>`.
        metrics: The metrics that the suite declares; one without a column is left out.

    Returns:
        The rows in order of their ids, repeats averaged: a row of which one repeat is missing is missing.

    Raises:
        ConfigError: A file is missing or broken, a state is unknown, an id stands there twice, or a value is not one
            that its metric can have; the message names file, row and column.
    """
    run = read_run(folder / "run.json")
    path = folder / "rows.parquet"
    table = _table(path, metrics)
    ids = _texts(path, table, "id")
    states = _texts(path, table, "state")
    if (ids == "").any():
        raise ConfigError(f"{path}: row {int(np.argmax(ids == ''))} has no id; evaluate again")
    for row in np.flatnonzero(~np.isin(states, STATES))[:1]:
        _refuse(path, ids[row], "state", repr(str(states[row])), f"one of {', '.join(STATES)}")
    has_failed = np.isin(states, FAILED)
    twins = _texts(path, table, "twin")
    # A pair's gap is written in one of its rows, and is missing if either of them failed.
    may_miss = has_failed | (np.isin(twins, twins[has_failed]) & (twins != ""))
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    if len(unique) < len(ids):
        _check_repeats(path, table, ids)
    columns = {
        name: _averaged(_checked(path, table, metric, ids, may_miss, has_failed), inverse, len(unique))
        for name, metric in metrics.items()
        if metric.column in table.column_names
    }
    clusters = _clusters(_texts(path, table, "group")[first], twins[first])
    is_whole = ids_digest(unique.tolist()) == run.dataset.digest
    return Results(unique, _texts(path, table, "slice")[first], clusters, columns, run, is_whole)


def _table(path: Path, metrics: Mapping[str, Metric]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {"id", "repeat", "slice", "twin", "group", "state"} | {metric.column for metric in metrics.values()}
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            version = (file.schema_arrow.metadata or {}).get(b"schema_version")
            table = file.read(columns=[name for name in names if name in wanted])
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run `python -m scripts.evaluate`") from None
    except (pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0][:120]
        raise ConfigError(f"{path}: not a readable Parquet file ({cause}); evaluate again") from None
    for name in ("id", "state"):
        if name not in names:
            raise ConfigError(f"{path}: column '{name}' is missing; run `python -m scripts.evaluate` again")
    if version not in (None, SCHEMA_VERSION):
        raise ConfigError(f"{path}: schema_version is {version!r}, this code reads 1; evaluate again")
    return table


def _texts(path: Path, table: pa.Table, name: str) -> NDArray[np.str_]:
    """Return a text column, shape (n_rows,), with empty text for null and for a column that is not there.

    Raises:
        ConfigError: The column of the file at `path` holds no texts, or some that are not UTF-8.
    """
    import pyarrow as pa

    if name not in table.column_names or table.num_rows == 0:
        return np.zeros(table.num_rows, dtype="U1")
    try:
        coded = table[name].cast(pa.string()).combine_chunks().dictionary_encode("encode")
        words = np.array([word or "" for word in coded.dictionary.to_pylist()], dtype=str)
    except (pa.ArrowException, UnicodeDecodeError):
        raise ConfigError(
            f"{path}: column '{name}' holds {table[name].type} that is no text in UTF-8; evaluate again"
        ) from None
    found: NDArray[np.str_] = words[_numbers(coded.indices, np.dtype(np.int32))]
    return found


def _numbers(array: pa.Array, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return a copy of an array's memory, in which a null may be any number."""
    memory = array.buffers()[1]  # to_numpy would import pandas, which takes as long as everything else here
    if memory is None:
        return np.zeros(len(array), dtype=kind)
    return np.frombuffer(memory, dtype=kind, count=len(array), offset=array.offset * kind.itemsize).copy()


def _is_null(array: pa.Array) -> Flags:
    import pyarrow as pa

    return _numbers(array.is_null().cast(pa.uint8()), np.dtype(np.uint8)).astype(bool)


def _check_repeats(path: Path, table: pa.Table, ids: NDArray[np.str_]) -> None:
    """Refuse a row that stands there twice, other than as another repeat."""
    keys = np.char.add(np.char.add(ids, ", repeat "), _texts(path, table, "repeat"))
    unique, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        raise ConfigError(f"{path}: id {unique[np.argmax(counts > 1)]}: stands there twice; evaluate again")


def _checked(
    path: Path, table: pa.Table, metric: Metric, ids: NDArray[np.str_], may_miss: Flags, has_failed: Flags
) -> Column:
    """Return a metric's column over rows and repeats, shape (n_rows * n_repeats,), once every value is believable."""
    import pyarrow as pa

    column = table[metric.column]
    try:
        array = column.cast(pa.float64()).combine_chunks()
    except pa.ArrowException:
        raise ConfigError(
            f"{path}: column '{metric.column}' holds {column.type}, numbers are needed; evaluate again"
        ) from None
    is_null = _is_null(array)
    values: Floats = np.where(is_null, np.nan, _numbers(array, np.dtype(np.float64)))
    is_everywhere = metric.kind == "quantile" or (metric.name in METRICS and not METRICS[metric.name].needs)
    # What always applies and was not measured because the request failed is missing, however it was written.
    applies = ~is_null | (has_failed & is_everywhere)
    is_missing = np.isnan(values) & applies
    # A gold answer that does not fit into the model's context has no likelihood, though nothing failed.
    may_lack = metric.name in METRICS and METRICS[metric.name].needs == "local"
    for row in np.flatnonzero(is_missing & ~may_miss & (not may_lack))[:1]:
        _refuse(path, ids[row], metric.column, "NaN", "a number, since the row did not fail")
    if is_everywhere and metric.kind != "quantile":
        for row in np.flatnonzero(~applies)[:1]:
            _refuse(path, ids[row], metric.column, "null", "a number, since the metric applies to every row")
    low = -np.inf if metric.low is None else metric.low - 1e-9
    high = np.inf if metric.high is None else metric.high + 1e-9
    is_outside = (values < low) | (values > high) | np.isinf(values)
    for row in np.flatnonzero(is_outside)[:1]:
        _refuse(path, ids[row], metric.column, f"{values[row]:g}", _range(metric))
    if metric.kind == "binary":
        for row in np.flatnonzero((values != 0) & (values != 1) & ~np.isnan(values))[:1]:
            _refuse(path, ids[row], metric.column, f"{values[row]:g}", "0 or 1")
    return Column(values, applies)


def _range(metric: Metric) -> str:
    low = "" if metric.low is None else f" of at least {metric.low:g}"
    return f"a finite number{low}" if metric.high is None else f"a number from {metric.low:g} to {metric.high:g}"


def _refuse(path: Path, row: str, column: str, found: str, needed: str) -> None:
    raise ConfigError(f"{path}: row {row}: {column}: found {found}, needed is {needed}; evaluate again")


def _averaged(column: Column, inverse: NDArray[np.int64], n_rows: int) -> Column:
    """Average the repeats inside each row; one missing repeat, or one that is not there, makes the row missing."""
    n_repeats = np.bincount(inverse, minlength=n_rows)
    n_applies = np.bincount(inverse, column.applies, minlength=n_rows)
    sums = np.bincount(inverse, np.where(column.applies, column.values, 0.0), minlength=n_rows)
    values = np.where(n_applies == n_repeats.max(initial=0), sums / np.maximum(n_repeats, 1), np.nan)
    return Column(values, n_applies > 0)


def _clusters(groups: NDArray[np.str_], twins: NDArray[np.str_]) -> NDArray[np.int64] | None:
    """Number the clusters: rows of one conversation, or else counterfactual twins, whose answers are nearly one."""
    if not ((groups != "") | (twins != "")).any():
        return None
    own = np.arange(len(groups), dtype=np.int64)
    labels = np.where(groups != "", np.char.add("g", groups), np.where(twins != "", np.char.add("t", twins), ""))
    named, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not (sizes[named != ""] > 1).any():
        return None
    return np.where(labels != "", len(groups) + codes, own).astype(np.int64)
