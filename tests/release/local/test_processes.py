"""The local target with a real gateway before stand-ins of models: what dies, what is asked, what is passed on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.release.local.target import LocalTarget
from pipelines.release.looks import requests_of
from pipelines.release.targets import withdraw
from tests.release.local import model
from tests.release.local.laptop import PARAMS, PROMPT, SERVING, Laptop
from tests.release.local.test_parts import fresh, manifest_of, text

__all__ = ["fresh"]
TERMS = {
    "rollout": "r.1", "stage": "canary-1", "since": 0.0, "max_requests_per_user": 20, "unit": "user", "window_s": 60.0,
}  # fmt: skip


@pytest.fixture
def target(fresh: Laptop, tmp_path: Path) -> Iterator[LocalTarget]:
    found = LocalTarget(fresh.root, program=model.program(tmp_path))
    yield found
    found.close()


def until(is_so: Callable[[], Any]) -> None:
    ends = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.05)


def gateway() -> psutil.Process:
    children = psutil.Process().children()
    return next(one for one in children if "scripts.serve" in one.cmdline())


def kill_gateway() -> None:
    died = gateway()
    died.kill()
    died.wait()


def is_up(target: LocalTarget) -> bool:
    return all([target.is_ready("local", "stable"), target.is_ready("local", "candidate")])


def n_candidate(target: LocalTarget) -> float:
    return requests_of(target.counters("r.1", 0.0))[0] or 0.0


def test_traffic_finds_a_gateway_that_was_started_anew_and_a_dead_one_stops_no_rollback(
    fresh: Laptop, target: LocalTarget
) -> None:
    target.deploy("local", "stable", manifest_of(fresh))
    worded = {**PROMPT, "messages": [{"role": "user", "content": "Label: {{message}}"}]}
    fresh.commit({"prompts/triage.prompt.yml": text(worded)}, "Word it anew")
    target.deploy("local", "candidate", manifest_of(fresh))
    until(lambda: is_up(target))
    target.set_weight(0.5, TERMS)
    until(lambda: n_candidate(target) >= 1)
    kill_gateway()
    before = n_candidate(target)
    until(lambda: is_up(target))
    until(lambda: n_candidate(target) >= before + 1)
    assert target.split().share == 0.5

    kill_gateway()
    withdraw(target, "local")
    assert (target.split().share, target.deployed("local", "candidate")) == (0.0, "")
    until(lambda: target.is_ready("local", "stable"))


def test_staging_asks_what_differs_and_gives_its_gateway_the_declared_keys_alone(
    fresh: Laptop, target: LocalTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHOUSE_REPLY_KEY", "reply-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dvc-secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

    class Mute(model.Handler):
        text = ""

    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Mute)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    reply = {
        "kind": "openai", "base_url": f"http://127.0.0.1:{upstream.server_port}/v1", "model": "reply",
        "api_key_variable": "GATEHOUSE_REPLY_KEY",
    }  # fmt: skip
    variants = {"stable": {"upstream": "reply", "weight": 1}}
    route = {"salt": "r", "variants": variants, "prompt": "prompts/reply.prompt.yml"}
    serving = {
        **SERVING,
        "upstreams": {**SERVING["upstreams"], "reply": reply},
        "prices": {**SERVING["prices"], "reply": SERVING["prices"]["candidate"]},
        "routes": {**SERVING["routes"], "reply": route},
    }
    suites = {**PARAMS["suites"], "reply": {**PARAMS["suites"]["triage"], "prompt": "prompts/reply.prompt.yml"}}
    prompt = {**json.loads(json.dumps(PROMPT)), "name": "reply"}
    files = {"serving.yaml": serving, "params.yaml": {**PARAMS, "suites": suites}, "prompts/reply.prompt.yml": prompt}
    fresh.commit({path: text(value) for path, value in files.items()}, "Reply too")
    serves = manifest_of(fresh)
    fresh.commit({"prompts/reply.prompt.yml": text({**prompt, "description": "warmer"})}, "Be warmer")

    target.compare_with(serves)
    target.deploy("local-staging", "stable", manifest_of(fresh))
    until(lambda: target.is_ready("local-staging", "stable"))
    found = target.smoke("local-staging", "stable")
    upstream.shutdown()
    assert (found.passed, found.said.split(";")[0]) == (False, "3 of 6 questions answered well")
    assert Mute.asked == "Bearer reply-secret"
    assert not {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"} & gateway().environ().keys()
    served = next(one for one in psutil.Process().children() if {"serve", "candidate"} <= {*one.cmdline()})
    assert not {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI", "GATEHOUSE_REPLY_KEY"} & served.environ().keys()
