"""The ledger in an SQLite file: a batch is one transaction of small statements with rests between them.

Whoever answers requests shares the processor and Python's lock with this, and waits for a statement at most, not for a
batch: that is what the slowest of a hundred requests feels.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from pipelines.core.errors import ConfigError
from pipelines.serving.ledger_database import (
    ADD,
    GROUP_NAMES,
    NAMES,
    RATE,
    SUM_NAMES,
    SUM_TERMS,
    VERSION,
    Away,
    Database,
    Unfit,
    refuse_newer,
    tables,
)
from pipelines.serving.ledger_rows import COLUMNS, Rating

BUSY_S = 2.0
ROWS_AT_ONCE, REST_S = 16, 0.0005
"""Rows of one statement, about 0.4 ms of work, and what others have for themselves after it."""
VALUES: Callable[[Any], tuple[Any, ...]] = operator.itemgetter(*(column.name for column in COLUMNS))
# Rows get growing rowids, and nobody else writes within this transaction: what is behind the last one is new. Left to
# itself SQLite walks through the index of days instead, whose order is half of what the groups want: through every row.
ADD_UP = (
    f"INSERT INTO gatehouse_spending ({GROUP_NAMES}, {SUM_NAMES}) SELECT {GROUP_NAMES}, {SUM_TERMS} "  # noqa: S608
    f"FROM gatehouse_requests NOT INDEXED WHERE rowid > ? GROUP BY {GROUP_NAMES} "
    f"ON CONFLICT ({GROUP_NAMES}) DO UPDATE SET {ADD}"
)


class SqliteLedger(Database):
    """The ledger in a file.

    Args:
        path: Of the file; it and its folder are made where they are missing.
        writes: False opens what is there for reading.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Connect; see `Database`."""
        if not self._writes and not self._path.exists():
            raise ConfigError(f"{self._path}: there is no ledger yet; `make serve` begins one")
        with self._translated():
            if self._writes:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            mode = "rw" if self._writes else "ro"
            self._connection = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode={mode}",
                uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False,
            )  # fmt: skip
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            refuse_newer(found, str(self._path))
            if self._writes:
                self._connection.execute("PRAGMA journal_mode = WAL")
                # A batch is on the disk before the spool forgets it.
                self._connection.execute("PRAGMA synchronous = FULL")
                if found < VERSION:
                    self._migrate()

    def _migrate(self) -> None:
        with self._transaction() as connection:
            for statement in tables():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def book(self, rows: Sequence[bytes], ratings: Sequence[Rating]) -> None:
        """Take rows and ratings; see `Database`."""
        with self._translated(), self._transaction() as connection:
            if rows:
                (last,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM gatehouse_requests").fetchone()
                for first in range(0, len(rows), ROWS_AT_ONCE):
                    some = [_values(row) for row in rows[first : first + ROWS_AT_ONCE]]
                    connection.execute(_insert(len(some)), tuple(chain.from_iterable(some)))
                    time.sleep(REST_S)
                connection.execute(ADD_UP, (last,))
            for rating in ratings:
                values = (rating.rating, rating.rated_s, rating.id, rating.project, rating.rated_s)
                connection.execute(RATE, values)

    def query(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT; see `Database`."""
        with self._translated():
            assert self._connection is not None
            return self._connection.execute(sql, tuple(values)).fetchall()

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
            raise Unfit(str(error)) from None
        except OverflowError:
            raise Unfit("a number is too large for the database") from None
        except sqlite3.DatabaseError as error:
            raise Away(f"{self._path}: {error}") from None  # locked, full, damaged, or no database
        except OSError as error:
            raise Away(f"{self._path}: {error.strerror}") from None


@cache
def _insert(n_rows: int) -> str:
    one = f"({', '.join('?' for _ in COLUMNS)})"
    return f"INSERT INTO gatehouse_requests ({NAMES}) VALUES {', '.join([one] * n_rows)} ON CONFLICT (id) DO NOTHING"  # noqa: S608


def _values(row: bytes) -> tuple[Any, ...]:
    """Return the columns of a row in their order; reading 23 names in C costs twice what reading them here does."""
    try:
        return VALUES(orjson.loads(row))
    except (ValueError, KeyError, TypeError):
        raise Unfit("a row is not the JSON object that the ledger keeps") from None
