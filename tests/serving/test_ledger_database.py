"""Both databases take the same rows, once, and add them up to the same sums."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipelines.core.errors import ConfigError
from pipelines.serving.config import LedgerSettings
from pipelines.serving.ledger_database import Away, Database, Found, Unfit, open_database
from pipelines.serving.ledger_postgres import PostgresLedger
from pipelines.serving.ledger_rows import Rating
from pipelines.serving.ledger_sqlite import ADD_UP, SqliteLedger
from tests.serving.ledgers import Postgres, exchange, row, sums_agree


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made: Database
    if request.param == "sqlite":
        made = SqliteLedger(tmp_path / "folder/ledger.db")
    else:
        made = PostgresLedger(request.getfixturevalue("postgres").url(), "GATEHOUSE_LEDGER_URL")
    made.open()
    yield made
    made.close()


def test_every_field_of_a_request_comes_back(database: Database) -> None:
    booked = exchange(
        id="req_" + "0" * 24, time_s=1_767_225_599.5, project="first", key="one", user="ann ✓ 'x' \"y\"", route="desk",
        variant="b", endpoint="chat", model="small", upstream="up", prompt_tokens=10**9, completion_tokens=5,
        usd=0.1 + 0.2, is_estimated=True, n_attempts=3, is_stream=True, latency_ms=1234.5678, ttft_ms=0.25,
        cache="miss", guardrail="redact", status=502, error="upstream_error",
    )  # fmt: skip
    database.book([row(booked)], [])
    found = database.query("SELECT * FROM gatehouse_requests", ())
    assert found == [
        ("req_" + "0" * 24, 1_767_225_599.5, "2025-12-31", "first", "one", "ann ✓ 'x' \"y\"", "desk", "b", "chat",
         "small", "up", 10**9, 5, 0.1 + 0.2, 1, 3, 1, 1234.568, 0.25, "miss", "redact", 502, "upstream_error",
         None, None)
    ]  # fmt: skip


def test_rows_that_come_again_change_nothing(database: Database) -> None:
    first, second, third = exchange(), exchange(usd=0.5), exchange(project="second", status=429)
    database.book([row(first), row(second)], [])
    database.book([row(second), row(third), row(first), row(third)], [])
    database.book([row(first)], [])
    sums = "SELECT project, n_requests, n_failed, usd FROM gatehouse_spending ORDER BY project"
    assert database.query(sums, ()) == [("first", 2, 0, 0.501), ("second", 1, 1, 0.001)]
    assert sums_agree(database)


def test_a_batch_in_a_file_is_added_up_from_its_own_rows_however_many_are_before_it(tmp_path: Path) -> None:
    database = SqliteLedger(tmp_path / "ledger.db")
    database.open()
    steps = [str(step[-1]) for step in database.query(f"EXPLAIN QUERY PLAN {ADD_UP}", (7,))]
    database.close()
    (reading,) = [step for step in steps if "gatehouse_requests" in step]
    assert "INTEGER PRIMARY KEY (rowid>?)" in reading


def test_what_a_cache_answered_costs_no_tokens(database: Database) -> None:
    database.book([row(exchange()), row(exchange(cache="exact", usd=0.0, n_attempts=0, prompt_tokens=700))], [])
    sums = "SELECT n_requests, n_cached, prompt_tokens, completion_tokens, usd FROM gatehouse_spending"
    assert database.query(sums, ()) == [(2, 1, 10, 5, 0.001)]


def test_the_latest_rating_counts_in_whatever_order_they_come(database: Database) -> None:
    rated = exchange()
    early, late = Rating(rated.id, "first", 2, 100.0), Rating(rated.id, "first", 5, 100.5)
    database.book([row(rated)], [early, late])
    assert database.find(rated.id) == Found("first", "desk", "stable", 5, 100.5)
    database.book([row(rated)], [early, late])
    database.book([], [early])
    assert database.find(rated.id) == Found("first", "desk", "stable", 5, 100.5)
    database.book([], [Rating(rated.id, "second", 1, 200.0)])  # not theirs
    assert database.find(rated.id) == Found("first", "desk", "stable", 5, 100.5)
    assert database.find("req_" + "f" * 24) is None


@pytest.mark.parametrize("bad", [b"{}", b'{"id": "x"', b'{"id": null}'])
def test_a_batch_with_a_row_that_does_not_fit_is_refused_whole(database: Database, bad: bytes) -> None:
    with pytest.raises(Unfit):
        database.book([row(exchange()), bad], [])
    assert database.query("SELECT count(*) FROM gatehouse_requests", ()) == [(0,)]
    database.book([row(exchange())], [])
    assert sums_agree(database)


def test_a_user_with_a_nul_does_not_stop_the_ledger(database: Database) -> None:
    database.book([row(exchange(user="a\0b"))], [])
    assert database.query("SELECT user_id FROM gatehouse_requests", ()) == [("a\N{REPLACEMENT CHARACTER}b",)]


def test_what_projects_spent_is_said_by_day(database: Database) -> None:
    days = {"2026-01-31": 1_769_817_600.0, "2026-02-01": 1_769_904_000.0}
    database.book([row(exchange(time_s=start + number)) for start in days.values() for number in (0, 86_399)], [])
    assert sorted(database.spent("2026-01-31")) == [("first", day, 0.002) for day in days]
    assert database.spent("2026-02-01") == [("first", "2026-02-01", 0.002)]


def test_a_newer_ledger_is_refused_in_one_line(tmp_path: Path, postgres: Postgres) -> None:
    newer = SqliteLedger(tmp_path / "ledger.db")
    newer.open()
    newer.close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match=r"ledger.db: its tables have version 99, this gateway knows 1"):
        SqliteLedger(tmp_path / "ledger.db").open()
    url = postgres.url()
    there = PostgresLedger(url, "X")
    there.open()
    there.close()
    with psycopg.connect(url) as connected:
        connected.execute("INSERT INTO gatehouse_version VALUES (99)")
    with pytest.raises(ConfigError, match=r"X: its tables have version 99"):
        PostgresLedger(url, "X").open()


def test_several_gateways_make_the_tables_of_one_postgres_once(postgres: Postgres) -> None:
    url = postgres.url()
    several = [PostgresLedger(url, "X") for _ in range(4)]
    for one in several:
        one.open()
        one.book([row(exchange())], [])
    assert several[0].query("SELECT sum(n_requests) FROM gatehouse_spending", ()) == [(4,)]
    assert several[0].query("SELECT count(*) FROM gatehouse_version", ()) == [(1,)]
    for one in several:
        one.close()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql://u:secret@h/d?nonsense=1", "secret"])
def test_a_wrong_url_is_named_by_its_variable_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("GATEHOUSE_LEDGER_URL", url)
    with pytest.raises(ConfigError, match=r"^GATEHOUSE_LEDGER_URL: a URL such as postgresql://") as caught:
        open_database(LedgerSettings(), tmp_path)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_away(tmp_path: Path) -> None:
    with pytest.raises(Away, match=r"^X: ") as caught:
        PostgresLedger("postgresql://u:secret@127.0.0.1:1/d", "X").open()
    assert "secret" not in str(caught.value)
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Away, match=r"ledger.db: file is not a database"):
        SqliteLedger(tmp_path / "ledger.db").open()
    with pytest.raises(ConfigError, match=r"there is no ledger yet; `make serve` begins one"):
        SqliteLedger(tmp_path / "none.db", writes=False).open()


def test_a_ledger_that_is_only_looked_at_is_not_made(postgres: Postgres) -> None:
    with pytest.raises(ConfigError, match=r"X: this database holds no ledger yet"):
        PostgresLedger(postgres.url(), "X", writes=False).open()


def test_a_ledger_can_be_looked_at_while_it_is_written_and_afterwards(tmp_path: Path) -> None:
    writing = SqliteLedger(tmp_path / "ledger.db")
    writing.open()
    for is_open in (True, False):
        writing.book([row(exchange())], []) if is_open else writing.close()
        looking = SqliteLedger(tmp_path / "ledger.db", writes=False)
        looking.open()
        assert looking.query("SELECT count(*) FROM gatehouse_requests", ()) == [(1,)]
        with pytest.raises(Away, match="readonly"):
            looking.book([row(exchange())], [])
        looking.close()
