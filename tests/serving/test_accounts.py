"""Feedback, metrics and what a reload keeps, in a real gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.gateway import OTHER_KEY, Running, declared, upstream
from tests.serving.ledgers import rows_of
from tests.serving.raw import BODY, Answered, get, post, until
from tests.serving.upstreams import Upstreams

LEDGER = {"flush_s": 0.05}


def serving(upstreams: Upstreams, **more: Any) -> dict[str, Any]:
    sides = {"stable": {"upstream": "one", "weight": 1}, "new": {"upstream": "one", "weight": 1, "users": ["ann"]}}
    routes = {"desk": {"variants": sides, "salt": "s"}}
    return declared({"one": upstream(upstreams.url)}, routes, **{"ledger": LEDGER, **more})


@pytest.fixture(scope="module")
def gateway(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("root"), serving(upstreams))
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if line["event"] == "bug"]


def private(gateway: Running, path: str) -> Answered:
    return get(int(gateway.private_url.rpartition(":")[2]), path)


def samples(gateway: Running) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(private(gateway, "/metrics").body.decode())
    return {(s.name, json.dumps(s.labels, sort_keys=True)): s.value for family in families for s in family.samples}


def at(name: str, **labels: str) -> tuple[str, str]:
    return name, json.dumps(labels, sort_keys=True)


def rate(gateway: Running, request_id: str, **more: Any) -> Answered:
    key = more.pop("key", None)
    return post(gateway.port, {"request_id": request_id, **more}, path="/v1/feedback", **({"key": key} if key else {}))


def stored(gateway: Running, request_id: str) -> Any:
    path = gateway.folder / ".gatehouse/ledger.db"
    until(lambda: any(row["id"] == request_id for row in rows_of(path)))
    return next(row["rating"] for row in rows_of(path) if row["id"] == request_id)


def test_a_rating_reaches_its_row_and_its_variant(gateway: Running) -> None:
    answered = post(gateway.port, BODY | {"user": "ann"})
    request_id = answered.headers["x-request-id"]
    name = "gatehouse_ratings_total"
    before = samples(gateway)[at(name, route="desk", variant="new", rating="5")]
    assert rate(gateway, request_id, thumbs="up").json() == {"request_id": request_id, "rating": 5}
    until(lambda: stored(gateway, request_id) == 5)
    assert rate(gateway, request_id, rating=5).status == 200  # again: the same, and not counted
    assert rate(gateway, request_id, rating=2).status == 200
    until(lambda: stored(gateway, request_id) == 2)
    found = samples(gateway)
    assert found[at(name, route="desk", variant="new", rating="5")] == before + 1
    assert found[at(name, route="desk", variant="new", rating="2")] == 1


@pytest.mark.parametrize("request_id", ["req_" + "0" * 24, "nonsense", "req_\0", "x" * 64])
def test_feedback_on_what_nobody_asked_is_a_404(gateway: Running, request_id: str) -> None:
    answered = rate(gateway, request_id, rating=1)
    assert (answered.status, answered.json()["error"]["code"]) == (404, "request_not_found")


def test_another_project_cannot_rate(gateway: Running) -> None:
    request_id = post(gateway.port, BODY).headers["x-request-id"]
    assert rate(gateway, request_id, rating=1, key=OTHER_KEY).status == 404
    assert stored(gateway, request_id) is None


def test_an_answer_of_an_earlier_process_can_be_rated(upstreams: Upstreams, tmp_path: Path) -> None:
    first = Running(tmp_path, serving(upstreams))
    request_id = post(first.port, BODY).headers["x-request-id"]
    assert rate(first, request_id, rating=4).status == 200
    assert first.stop() == 0
    again = Running(tmp_path, serving(upstreams))
    before = sum(value for (name, _), value in samples(again).items() if name == "gatehouse_ratings_total")
    assert rate(again, request_id, rating=4).status == 200
    assert sum(value for (name, _), value in samples(again).items() if name == "gatehouse_ratings_total") == before
    assert rate(again, request_id, rating=1).status == 200
    assert again.stop() == 0
    assert [row["rating"] for row in rows_of(tmp_path / ".gatehouse/ledger.db")] == [1]


def test_without_a_release_there_is_no_verdict(gateway: Running) -> None:
    answered = private(gateway, "/v1/verdict?route=desk")
    assert (answered.status, answered.json()["error"]["code"]) == (404, "no_release")
    assert post(gateway.port, BODY, path="/v1/verdict").status == 404
    assert get(gateway.port, "/metrics").status == 404


def test_a_real_scrape_is_complete_and_passes_prometheus_own_checks(gateway: Running) -> None:
    post(gateway.port, BODY | {"stream": True})
    post(gateway.port, BODY | {"model": "unknown"})
    text = private(gateway, "/metrics").body
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert names >= {
        "gatehouse_requests", "gatehouse_request_duration_seconds", "gatehouse_time_to_first_token_seconds",
        "gatehouse_active_requests", "gatehouse_assigned", "gatehouse_tokens", "gatehouse_cost_usd",
        "gatehouse_upstream_attempts", "gatehouse_upstream_health", "gatehouse_ratings",
        "gatehouse_ledger_rows_waiting", "gatehouse_ledger_accepting", "gatehouse_ledger_connected",
        "gatehouse_build_info", "process_resident_memory_bytes",
    }  # fmt: skip
    assert samples(gateway)[at("gatehouse_requests_total", route="", variant="", status="404")] >= 1
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_reload_keeps_counts_rows_and_what_was_spent(upstreams: Upstreams, tmp_path: Path) -> None:
    gateway = Running(tmp_path, serving(upstreams))
    assert [post(gateway.port, BODY | {"user": "ann"}).status for _ in range(2)] == [200, 200]
    projects = {"first": {"budget_usd_per_day": 2 * 20e-6}, "second": {}}
    assert gateway.reload(serving(upstreams, projects=projects))["event"] == "reloaded"
    refused = post(gateway.port, BODY | {"user": "ann"})
    assert (refused.status, refused.headers["x-should-retry"]) == (429, "false")
    found = samples(gateway)
    assert found[at("gatehouse_requests_total", route="desk", variant="new", status="200")] == 2
    assert found[at("gatehouse_budget_used_ratio", project="first", period="day")] == pytest.approx(1.0)
    elsewhere = gateway.reload(serving(upstreams, ledger={"path": "elsewhere.db"}))
    assert (elsewhere["event"], "restart" in elsewhere["problem"]) == ("reload_refused", True)
    assert gateway.stop() == 0
    assert [row["status"] for row in rows_of(tmp_path / ".gatehouse/ledger.db")] == [200, 200, 429]
