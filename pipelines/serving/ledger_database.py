"""The ledger's tables, the same in SQLite and Postgres, and which of the two is meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipelines.core.errors import ConfigError
from pipelines.serving.config import LedgerSettings
from pipelines.serving.ledger_rows import COLUMNS, MAY_BE_NULL, Rating

VERSION = 1
GROUPS = ("day", "project", "route", "variant", "model")
"""What one row of `gatehouse_spending` stands for; `gatehouse_requests` knows the single requests."""
SUMS = {
    "n_requests": "count(*)",
    "n_failed": "sum(CASE WHEN status >= 400 THEN 1 ELSE 0 END)",
    "n_cached": "sum(CASE WHEN cache IN ('exact', 'semantic', 'shared') THEN 1 ELSE 0 END)",
    "n_estimated": "sum(is_estimated)",
    "prompt_tokens": "sum(CASE WHEN n_attempts > 0 THEN prompt_tokens ELSE 0 END)",
    "completion_tokens": "sum(CASE WHEN n_attempts > 0 THEN completion_tokens ELSE 0 END)",
    "usd": "sum(usd)",
}
"""Tokens are those that were paid for: a cached answer has none."""

NAMES = ", ".join(column.name for column in COLUMNS)
GROUP_NAMES = ", ".join(GROUPS)
SUM_NAMES = ", ".join(SUMS)
SUM_TERMS = ", ".join(SUMS.values())
ADD = ", ".join(f"{name} = gatehouse_spending.{name} + excluded.{name}" for name in SUMS)


RATE = (
    "UPDATE gatehouse_requests SET rating = ?, rated_s = ? WHERE id = ? AND project = ? "
    "AND (rated_s IS NULL OR rated_s < ?)"
)


class Away(Exception):
    """The database cannot be reached or takes nothing now: everything can be tried again later. Holds no secret."""


class Unfit(Exception):
    """The database will never take this batch: something in it is not as the tables want it."""


class Found(NamedTuple):
    """A request of the ledger, as a rating needs it."""

    project: str
    route: str
    variant: str
    rating: int | None
    rated_s: float | None


class Database(Protocol):
    """Where the ledger is kept in the end. Used by one thread. Everything but `close` raises Away."""

    def open(self) -> None:
        """Connect, and make or bring up to date the tables.

        Raises:
            ConfigError: A newer version made them.
        """

    def book(self, rows: Sequence[bytes], ratings: Sequence[Rating]) -> None:
        """Take rows (JSON objects) and ratings, all or none; what is there already stays as it is.

        Raises:
            Unfit: It never will.
        """

    def spent(self, since: str) -> list[tuple[str, str, float]]:
        """Return (project, day, USD) from a day on."""
        sql = "SELECT project, day, sum(usd) FROM gatehouse_spending WHERE day >= ? GROUP BY project, day"
        return [(project, day, usd) for project, day, usd in self.query(sql, (since,))]

    def find(self, request_id: str) -> Found | None:
        """Return a request."""
        sql = "SELECT project, route, variant, rating, rated_s FROM gatehouse_requests WHERE id = ?"
        return next((Found(*row) for row in self.query(sql, (request_id,))), None)

    def query(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT, whose placeholders are `?`."""

    def close(self) -> None:
        """Disconnect."""


def tables() -> list[str]:
    """Return the statements that make the tables of version 1."""
    columns = ", ".join(
        f"{column.name} {column.kind}{'' if column.name in MAY_BE_NULL else ' NOT NULL'}" for column in COLUMNS
    )
    kinds = {column.name: column.kind for column in COLUMNS}
    groups = ", ".join(f"{name} TEXT NOT NULL" for name in GROUPS)
    sums = ", ".join(f"{name} {kinds.get(name, 'BIGINT')} NOT NULL" for name in SUMS)
    return [
        f"CREATE TABLE IF NOT EXISTS gatehouse_requests ({columns}, rating INTEGER, rated_s DOUBLE PRECISION, "
        "PRIMARY KEY (id))",
        "CREATE INDEX IF NOT EXISTS gatehouse_requests_day ON gatehouse_requests (day, project)",
        f"CREATE TABLE IF NOT EXISTS gatehouse_spending ({groups}, {sums}, PRIMARY KEY ({GROUP_NAMES}))",
    ]


def refuse_newer(found: int, where: str) -> None:
    """Refuse tables that this version does not know.

    Raises:
        ConfigError: They are newer.
    """
    if found > VERSION:
        raise ConfigError(f"{where}: its tables have version {found}, this gateway knows {VERSION}; use a newer one")


def open_database(settings: LedgerSettings, root: Path, *, writes: bool = True) -> Database:
    """Return the database that is declared, not yet connected.

    Args:
        settings: `ledger` of serving.yaml.
        root: Folder of the repository.
        writes: False for what only looks: nothing is made where nothing is.

    Raises:
        ConfigError: The URL is none of Postgres. It is not repeated: it may hold a password.
    """
    url = os.environ.get(settings.url_variable, "")
    if not url:
        from pipelines.serving.ledger_sqlite import SqliteLedger

        return SqliteLedger(root / settings.path, writes=writes)
    from pipelines.serving.ledger_postgres import PostgresLedger

    return PostgresLedger(url, settings.url_variable, writes=writes)
