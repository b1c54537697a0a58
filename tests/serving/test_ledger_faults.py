"""What happens to the ledger in kills, full disks, jumping clocks, without its database. Real processes only."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.serving.ledger_sqlite import SqliteLedger
from tests.serving.gateway import KEY, ROOT, Running, declared, upstream
from tests.serving.ledgers import Postgres, rows_of, sums_agree
from tests.serving.raw import BODY, Answered, connect, get, head, post, until
from tests.serving.upstreams import Upstreams

STREAM = BODY | {"stream": True}
ROUTES = {"desk": {"tiers": [{"upstream": "one"}]}}
COST = 10e-6 + 2 * 5e-6
LEDGER = ".gatehouse/ledger.db"


def serving(upstreams: Upstreams, **more: Any) -> dict[str, Any]:
    return declared({"one": upstream(upstreams.url)}, ROUTES, **{"ledger": {"flush_s": 0.05}, **more})


def rate(gateway: Running, answered: Answered, rating: int) -> Answered:
    body = {"request_id": answered.headers["x-request-id"], "rating": rating}
    return post(gateway.port, body, path="/v1/feedback")


def metric(gateway: Running, name: str) -> float:
    text = get(int(gateway.private_url.rpartition(":")[2]), "/metrics").body.decode()
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))


def test_every_answered_request_is_booked_once_after_a_kill_under_load(upstreams: Upstreams, tmp_path: Path) -> None:
    gateway = Running(tmp_path, serving(upstreams))
    answered: list[str] = []

    def load() -> None:
        try:
            while True:
                got = post(gateway.port, STREAM if len(answered) % 2 else BODY)
                if got.status == 200 and (b"[DONE]" in got.body or got.body.endswith(b"}")):
                    answered.append(got.headers["x-request-id"])
        except OSError:
            return

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 150, 60)
    gateway.process.kill()
    for thread in threads:
        thread.join()
    again = Running(tmp_path, serving(upstreams))
    assert again.stop() == 0
    booked = [row["id"] for row in rows_of(tmp_path / LEDGER)]
    assert len(set(booked)) == len(booked)
    assert set(answered) <= set(booked)
    assert len(booked) - len(answered) <= len(threads)
    database = SqliteLedger(tmp_path / LEDGER, writes=False)
    database.open()
    assert sums_agree(database)


def test_a_killed_postgres_stops_no_answer_and_gets_every_row_when_it_is_back(
    upstreams: Upstreams, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.url()
    gateway = Running(tmp_path, serving(upstreams), environment={"GATEHOUSE_LEDGER_URL": url})

    def booked() -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT id, usd, rating FROM gatehouse_requests").fetchall()

    first = post(gateway.port, BODY)
    until(lambda: len(booked()) == 1)
    postgres.kill()
    answers = [post(gateway.port, BODY) for _ in range(20)]
    assert {answered.status for answered in answers} == {200}
    gateway.wait_for("ledger_away")
    assert metric(gateway, "gatehouse_ledger_rows_waiting") == 20
    assert metric(gateway, "gatehouse_ledger_connected") == 0
    assert rate(gateway, answers[0], 5).status == 200  # still on the spool
    assert post(gateway.port, {"request_id": "req_" + "0" * 24, "rating": 1}, path="/v1/feedback").status == 503
    postgres.start()
    gateway.wait_for("ledger_back")
    until(lambda: len(booked()) == 21 and metric(gateway, "gatehouse_ledger_rows_waiting") == 0)
    rows = {found: (usd, rating) for found, usd, rating in booked()}
    assert set(rows) == {answered.headers["x-request-id"] for answered in [first, *answers]}
    assert [usd for usd, _ in rows.values()] == [pytest.approx(COST)] * 21
    assert rows[answers[0].headers["x-request-id"]][1] == 5
    assert gateway.stop() == 0
    assert "postgresql://" not in json.dumps(gateway.lines)


def test_a_gateway_that_starts_without_its_database_says_what_it_does_about_budgets(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    nowhere = {"GATEHOUSE_LEDGER_URL": "postgresql://u:secret@127.0.0.1:1/d"}
    projects = {"first": {"budget_usd_per_day": 1.0}, "second": {}}
    gateway = Running(tmp_path, serving(upstreams, projects=projects), environment=nowhere)
    refused = post(gateway.port, BODY)
    assert (refused.status, refused.json()["error"]["code"]) == (503, "budget_unknown")
    assert refused.headers["retry-after"] == "5"
    assert post(gateway.port, BODY, key="gh-test-key-of-the-second-project").status == 200
    assert gateway.stop() == 0
    assert gateway.wait_for("ledger_left")["records"] == 2
    allowing = serving(upstreams, projects=projects, ledger={"when_unknown": "allow"})
    gateway = Running(tmp_path, allowing, environment=nowhere)
    assert post(gateway.port, BODY).status == 200
    assert gateway.stop() == 0
    assert gateway.wait_for("ledger_left")["records"] == 3
    assert "secret" not in json.dumps(gateway.lines)
    gateway = Running(tmp_path, allowing)
    assert gateway.stop() == 0
    assert [row["status"] for row in rows_of(tmp_path / LEDGER)] == [503, 200, 200]


def test_a_full_disk_is_refused_before_it_costs_and_recovers_by_itself(upstreams: Upstreams, tmp_path: Path) -> None:
    ledger = {"flush_s": 0.05, "segment_bytes": 65_536}
    gateway = Running(tmp_path, serving(upstreams, ledger=ledger))
    _, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (65_535, hard))
    statuses = []
    while (not statuses or statuses[-1] == 200) and len(statuses) < 500:
        statuses.append(post(gateway.port, BODY).status)
    assert statuses[-1] == 503
    gateway.wait_for("ledger_full")
    n_asked = upstreams.seen()["n_asked"]
    refused = post(gateway.port, BODY)
    assert refused.json()["error"]["code"] == "ledger_unavailable"
    assert get(gateway.port, "/readyz").status == 503
    assert get(gateway.port, "/healthz").status == 200
    assert upstreams.seen()["n_asked"] == n_asked
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    gateway.wait_for("ledger_writable")
    assert post(gateway.port, BODY).status == 200
    assert gateway.stop() == 0
    rows = rows_of(tmp_path / LEDGER)
    assert [row["status"] for row in rows] == [*statuses, 503, 200]
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_locked_sqlite_file_stops_no_answer(upstreams: Upstreams, tmp_path: Path) -> None:
    gateway = Running(tmp_path, serving(upstreams))
    connection = sqlite3.connect(tmp_path / LEDGER, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        assert post(gateway.port, BODY).status == 200
    gateway.wait_for("ledger_away")
    assert rows_of(tmp_path / LEDGER) == []
    connection.execute("COMMIT")
    until(lambda: len(rows_of(tmp_path / LEDGER)) == 3)
    assert gateway.stop() == 0


def test_a_clock_that_goes_back_over_midnight_reopens_no_budget_and_loses_no_rating(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    to_midnight = 86_400 - time.time() % 86_400
    clock.write_text(str(to_midnight - 3600))  # 23:00
    environment = {"GATEHOUSE_TEST_CLOCK": str(clock), "PYTHONPATH": str(ROOT / "tests/serving/clock")}
    projects = {"first": {"budget_usd_per_day": 2.5 * COST}, "second": {}}
    gateway = Running(tmp_path, serving(upstreams, projects=projects), environment=environment)
    evening = [post(gateway.port, BODY) for _ in range(4)]
    assert [answered.status for answered in evening] == [200, 200, 200, 429]
    assert 3000 < int(evening[-1].headers["retry-after"]) <= 3600
    assert evening[-1].json()["error"]["code"] == "budget_exceeded"
    assert rate(gateway, evening[0], 1).status == 200
    clock.write_text(str(to_midnight + 3600))
    assert [post(gateway.port, BODY).status for _ in range(2)] == [200, 200]
    clock.write_text(str(to_midnight - 1800))  # back
    assert post(gateway.port, BODY).status == 429
    assert rate(gateway, evening[0], 5).status == 200
    clock.write_text(str(to_midnight + 7200))
    assert [post(gateway.port, BODY).status for _ in range(2)] == [200, 429]
    assert gateway.stop() == 0
    rows = rows_of(tmp_path / LEDGER)
    days = sorted({row["day"] for row in rows})
    assert [sum(row["usd"] for row in rows if row["day"] == day) for day in days] == [pytest.approx(3 * COST)] * 2
    assert rows[0]["rating"] == 5
    assert all(row["latency_ms"] >= 0 for row in rows)
    clock.write_text(str(to_midnight - 1800))
    gateway = Running(tmp_path, serving(upstreams, projects=projects), environment=environment)
    assert post(gateway.port, BODY).status == 429  # a restart reopens nothing either
    assert gateway.stop() == 0


def test_a_second_gateway_on_the_same_spool_is_refused_in_one_line(upstreams: Upstreams, tmp_path: Path) -> None:
    gateway = Running(tmp_path, serving(upstreams))
    command = [sys.executable, "-m", "scripts.serve", "--root", str(tmp_path), "--port", "0", "--private-port", "0"]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ)
    said = [line for line in second.stderr.splitlines() if "spool" in line]
    assert second.returncode == 2
    assert len(said) == 1
    assert f"another gateway (process {gateway.process.pid}) has this spool; give each its own" in said[0]
    assert "Traceback" not in second.stderr
    assert post(gateway.port, BODY).status == 200
    assert gateway.stop() == 0


def test_streams_that_are_left_retries_and_fallbacks_are_one_row_each_and_never_free(
    upstreams: Upstreams, second: Upstreams, tmp_path: Path
) -> None:
    ones = {
        "one": upstream(upstreams.url, retries={"attempts": 3, "backoff_s": 0.01}),
        "two": upstream(second.url, "large"),
    }
    routes = {"desk": {"tiers": [{"upstream": "one"}], "fallbacks": ["two"]}}
    gateway = Running(tmp_path, declared(ones, routes, ledger={"flush_s": 0.05}))
    upstreams.script(
        {"status": 503, "times": 2}, {}, {"reset_after": 0}, {"piece_delay_s": 0.05, "pieces": ["a "] * 200}
    )
    assert post(gateway.port, BODY).status == 200  # the third attempt
    assert post(gateway.port, BODY).status == 200  # the fallback, after an answer that was lost on its way
    content = json.dumps(STREAM).encode()
    with connect(gateway.port) as sock:
        sock.sendall(head(len(content)) + content)
        assert sock.recv(100)
    until(lambda: len(rows_of(tmp_path / LEDGER)) == 3)
    assert gateway.stop() == 0
    rows = rows_of(tmp_path / LEDGER)
    assert [(row["status"], row["n_attempts"], row["model"]) for row in rows] == [
        (200, 3, "small"), (200, 2, "large"), (499, 1, "small")
    ]  # fmt: skip
    assert all(row["usd"] > 0 for row in rows)
    assert rows[1]["usd"] > COST
    assert (rows[2]["is_estimated"], rows[2]["is_stream"], rows[2]["error"]) == (1, 1, "client_gone")
    assert KEY not in json.dumps(rows)
