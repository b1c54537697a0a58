"""Write `rows.parquet`, the rows that everything after the evaluation reads.

In a metric's column null means that the metric does not apply to the row, and NaN that it applies and is missing.
pandas makes one of both, so that only pyarrow touches these files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.files import digest, replacing

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = b"1"
STATES = ("scored", "model_error", "infra_error", "judge_error")
FAILED = ("infra_error", "judge_error")
TEXTS = ("id", "slice", "twin", "group", "input", "gold", "output", "state", "error")
WHOLE = ("repeat", "line")


def ids_digest(ids: Sequence[str]) -> str:
    """Return the digest of a data set as evaluated: of its row ids, whatever their order and repeats."""
    return digest(sorted(set(ids)))


def write_rows(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write `rows.parquet`, whole or not at all.

    Args:
        path: The file.
        columns: Values by column name, all of one length. Texts, `repeat`, `line` and `is_cached` have their own
            types; every other column is a number, in which None is written as null and NaN as NaN.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: pa.array(_clean(name, values), type=column_type(name)) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({"schema_version": SCHEMA_VERSION})
    with replacing(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def column_type(name: str) -> pa.DataType:
    """Return the type that a column of this name has."""
    import pyarrow as pa

    if name in TEXTS:
        return pa.string()
    if name in WHOLE:
        return pa.int32()
    return pa.bool_() if name == "is_cached" else pa.float64()


def _clean(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if name not in TEXTS:
        return values
    # A model can write half a surrogate pair, which UTF-8 cannot hold.
    return [None if value is None else str(value).encode("utf-8", "replace").decode() for value in values]
