"""Read a hostile `rows.parquet` in a process of its own with little to spend, and write a clean one from its values.

A Parquet file of a kilobyte can ask for a terabyte, or for a page of the parser that nobody has tested; whatever it
does, it does it here: `python -m pipelines.review.rows_file FROM TO MOST_ROWS`.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from pipelines.core.errors import ConfigError, one_line

MOST_BYTES = 1 << 28
MOST_MEMORY = 6 << 30  # address space, of which pyarrow reserves much and uses little
MOST_SECONDS = 120
MOST_COLUMNS = 200
COLUMN = re.compile("[a-z][a-z0-9_]{0,62}")
REFUSED = 2


def cleaned(source: Path, target: Path, *, most_rows: int) -> None:
    """Write the values of a hostile file as a file of our own.

    Args:
        source: Anything.
        target: Where the clean file goes.
        most_rows: More are refused.

    Raises:
        ConfigError: It is too large, no Parquet file, or holds other columns than rows have.
    """
    if source.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{source.name}: has more than {MOST_BYTES:,} bytes")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "pipelines.review.rows_file", str(source), str(target), str(most_rows)]
    package = str(Path(__file__).resolve().parents[2])
    # Nothing of this job's environment: a parser that is taken over must find no token.
    variables = {"PYTHONPATH": package, "PATH": os.defpath, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=variables, capture_output=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{source.name}: takes more than {MOST_SECONDS} s to read") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        cause = said[-1] if said and done.returncode == REFUSED else "cannot be read within its limits"
        raise ConfigError(f"{source.name}: {one_line(cause, 200)}")


def main(source: str, target: str, most_rows: str) -> None:
    """Convert one file under limits that the process cannot raise again."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MOST_BYTES, 2 * MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow as pa

    try:
        convert(Path(source), Path(target), int(most_rows))
    except ConfigError as error:
        cause = str(error)
    except MemoryError:
        cause = "needs more memory than a file of rows does"
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        cause = f"not a readable Parquet file ({str(error).splitlines()[0][:120] if str(error) else 'empty'})"
    else:
        return
    sys.stderr.write(f"{one_line(cause, 200)}\n")
    raise SystemExit(REFUSED)


def convert(source: Path, target: Path, most_rows: int) -> None:
    """Copy the columns of a rows file, each as the type that rows have.

    Raises:
        ConfigError: There are other columns, or more rows than asked for.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.evaluation.row_table import SCHEMA_VERSION, column_type

    with pq.ParquetFile(source, memory_map=False) as file:
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
        if n_rows > most_rows:
            raise ConfigError(f"has {n_rows:,} rows, where the data asks for at most {most_rows:,}")
        if len(schema.names) > MOST_COLUMNS or len(set(schema.names)) < len(schema.names):
            raise ConfigError("has too many columns, or one twice")
        if odd := [name for name in schema.names if not COLUMN.fullmatch(name)]:
            raise ConfigError(f"has a column {odd[0][:40]!r}, which no metric has")
        if any(pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type) for field in schema):
            raise ConfigError("has a column of lists or keys; texts and numbers are needed")
        table = file.read(use_threads=False)
    if table.num_rows != n_rows:
        raise ConfigError("holds another number of rows than it says")
    table.validate(full=True)
    columns = {name: table[name].cast(column_type(name)) for name in schema.names}
    clean = pa.table(columns).replace_schema_metadata({"schema_version": SCHEMA_VERSION})
    pq.write_table(clean, target, compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
