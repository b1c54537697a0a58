"""/v1/verdict: the release's judge, asked beside the event loop with what this process knows."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ServiceError
from pipelines.core.split import Split
from pipelines.serving.pages import PrivatePages
from pipelines.serving.splitting import Splitting, UnderWay, Verdict
from tests.serving import inside
from tests.serving.gateway import declared, upstream


def ask(folder: Path, verdict: Verdict | None, splitting: Splitting | None, *, query: str = "") -> tuple[int, Any]:
    sides = {"stable": {"upstream": "one", "weight": 1}, "candidate": {"upstream": "one", "weight": 1}}
    routes = {"desk": {"variants": sides, "salt": "s"}}
    file = declared({"one": upstream("http://127.0.0.1:1/v1")}, routes, rollout={"weights": {"file": "split.json"}})
    gateway, _ = inside.make(folder, file, splitting=splitting)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/verdict", "query_string": query.encode(), "headers": []}
    asyncio.run(PrivatePages(gateway, folder, verdict)(scope, None, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_the_judge_gets_query_split_and_counters_in_a_thread_of_its_own(tmp_path: Path) -> None:
    seen: list[Any] = []

    def verdict(query: dict[str, str], rollout: UnderWay) -> tuple[int, dict[str, Any]]:
        seen.append((query, rollout, threading.current_thread() is threading.main_thread()))
        return 200, {"verdict": "advance"}

    splitting, split = Splitting(), Split(rollout="v1.0.0-a.1", stage="canary-2", weight=10.0)
    splitting.apply(split)
    assert ask(tmp_path, verdict, splitting, query="stage=canary-2&x=%20") == (200, {"verdict": "advance"})
    ((query, rollout, is_on_the_loop),) = seen
    assert query == {"stage": "canary-2", "x": " "}
    assert (rollout.root, rollout.split, is_on_the_loop) == (tmp_path, split, False)
    assert rollout.serving.rollout is not None
    assert rollout.counters == splitting.counters()


@pytest.mark.parametrize("splitting", [None, Splitting()])
def test_without_a_judge_there_is_no_release(tmp_path: Path, splitting: Splitting | None) -> None:
    status, value = ask(tmp_path, None, splitting)
    assert (status, value["error"]["code"]) == (404, "no_release")


def test_a_judge_that_cannot_judge_is_a_503_in_one_line(tmp_path: Path) -> None:
    def verdict(query: dict[str, str], rollout: UnderWay) -> tuple[int, dict[str, Any]]:
        raise ServiceError("Prometheus does not answer\nat all")

    status, value = ask(tmp_path, verdict, Splitting())
    assert (status, value["error"]["code"]) == (503, "no_verdict")
    assert value["error"]["message"] == r"Prometheus does not answer\nat all"
