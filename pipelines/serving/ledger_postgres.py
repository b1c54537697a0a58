"""The ledger in Postgres: one statement per batch, which adds up what it really inserted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pipelines.core.errors import ConfigError, one_line
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
from pipelines.serving.ledger_rows import COLUMNS, Rating, array

SCHEMES = ("postgresql://", "postgres://")
LOCK = 4_283_790_113
"""Key of the advisory lock under which one of several gateways makes the tables."""
# Declared limits of one connection: nothing here may take minutes because a machine is gone without a word.
PATIENCE = {
    "connect_timeout": 4,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "gatehouse",
}
STATEMENT_TIMEOUT_MS = 30_000
KINDS = ", ".join(f"{column.name} {column.kind}" for column in COLUMNS)
# Groups in one order everywhere, so that two gateways never wait for each other's rows.
INSERT = f"""
WITH booked AS (
  INSERT INTO gatehouse_requests ({NAMES})
  SELECT {NAMES} FROM json_to_recordset(%s::json) AS given({KINDS})
  ON CONFLICT (id) DO NOTHING
  RETURNING {NAMES}
)
INSERT INTO gatehouse_spending ({GROUP_NAMES}, {SUM_NAMES})
SELECT {GROUP_NAMES}, {SUM_TERMS} FROM booked GROUP BY {GROUP_NAMES} ORDER BY {GROUP_NAMES}
ON CONFLICT ({GROUP_NAMES}) DO UPDATE SET {ADD}
"""  # noqa: S608


class PostgresLedger(Database):
    """The ledger in Postgres.

    Args:
        url: Of the database; never shown.
        variable: Environment variable that it came from, for messages.
        writes: False makes no tables.

    Raises:
        ConfigError: The URL is none of Postgres.
    """

    def __init__(self, url: str, variable: str, *, writes: bool = True) -> None:
        self._variable = variable
        self._writes = writes
        self._connection: psycopg.Connection[Any] | None = None
        try:
            found = conninfo_to_dict(url) if url.startswith(SCHEMES) else None
        except psycopg.Error:
            found = None
        if found is None:
            raise ConfigError(f"{variable}: a URL such as postgresql://USER:PASSWORD@HOST/DATABASE is needed")
        self._values: dict[str, Any] = PATIENCE | found

    def open(self) -> None:
        """Connect; see `Database`."""
        with self._translated():
            self._connection = psycopg.connect(**self._values, autocommit=True, prepare_threshold=None)
            self._connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
            self._migrate()

    def _migrate(self) -> None:
        assert self._connection is not None
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            exists = self._connection.execute("SELECT to_regclass('gatehouse_version') IS NOT NULL").fetchone()
            if exists and exists[0]:
                row = self._connection.execute("SELECT max(version) FROM gatehouse_version").fetchone()
                found = int(row[0] or 0) if row else 0
                refuse_newer(found, self._variable)
                if found == VERSION:
                    return
            if not self._writes:
                raise ConfigError(f"{self._variable}: this database holds no ledger yet; `make serve` begins one")
            for statement in tables():
                self._connection.execute(statement)
            self._connection.execute("CREATE TABLE IF NOT EXISTS gatehouse_version (version INTEGER NOT NULL)")
            self._connection.execute("INSERT INTO gatehouse_version VALUES (%s)", (VERSION,))

    def book(self, rows: Sequence[bytes], ratings: Sequence[Rating]) -> None:
        """Take rows and ratings; see `Database`."""
        with self._translated(), self._connected().transaction():
            if rows:
                self._connected().execute(INSERT, (array(list(rows)).decode(),))
            for rating in ratings:
                values = (rating.rating, rating.rated_s, rating.id, rating.project, rating.rated_s)
                self._connected().execute(RATE.replace("?", "%s"), values)

    def query(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT; see `Database`."""
        with self._translated():
            return self._connected().execute(sql.replace("?", "%s"), tuple(values)).fetchall()

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection[Any]:
        assert self._connection is not None
        return self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise Unfit(_words(error)) from None
        except psycopg.Error as error:
            raise Away(f"{self._variable}: {_words(error)}") from None


def _words(error: psycopg.Error) -> str:
    """Return what happened without the row that it happened to."""
    return one_line(error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__, 200)
