"""Weights from an HTTPRoute: followed through all that a Kubernetes API server may do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.split import Split
from pipelines.serving.config_rollout import HttpRoute
from pipelines.serving.logs import Log
from pipelines.serving.route_watch import TERMS, RouteWatch, split_of
from pipelines.serving.split_sources import Taker
from pipelines.serving.splitting import Splitting
from tests.serving.gateway import Declared, Running, declared, upstream
from tests.serving.kubernetes import TOKEN, Kubernetes
from tests.serving.raw import BODY, Answered, get, post, until
from tests.serving.upstreams import Upstreams

NAME = "vllm"
DECLARED = HttpRoute(name=NAME, namespace="prod", stable="vllm-stable", candidate="vllm-candidate")


def terms(stage: str = "canary-1", **more: Any) -> dict[str, Any]:
    return {"rollout": "v1.0.0-a.1", "stage": stage, "max_requests_per_user": 20, "unit": "user", "window_s": 60} | more


def refs(stable: Any, candidate: Any) -> list[dict[str, Any]]:
    weights = {"vllm-stable": stable, "vllm-candidate": candidate}
    return [
        {"kind": "Service", "port": 8000, "name": name, **({} if weight == "unset" else {"weight": weight})}
        for name, weight in weights.items()
        if weight is not None
    ]


def route(stable: Any, candidate: Any, said: Any = "terms") -> dict[str, Any]:
    annotations = {} if said is None else {TERMS: json.dumps(terms()) if said == "terms" else said}
    return {
        "metadata": {"name": NAME, "annotations": annotations},
        "spec": {"rules": [{"backendRefs": refs(stable, candidate)}]},
    }


# --- what a route says


@pytest.mark.parametrize(
    ("stable", "candidate", "weight"),
    [
        (95, 5, 5.0),
        (0, 100, 100.0),
        (100, 0, 0.0),
        (1, 2, 66.666666667),
        ("unset", 1, 50.0),
        (100, None, 0.0),
        (None, 7, 100.0),
    ],
)
def test_the_candidates_percent_is_its_part_of_both_weights(stable: Any, candidate: Any, weight: float) -> None:
    found = split_of(DECLARED, route(stable, candidate))
    assert (found.weight, found.stage) == (weight, "canary-1" if weight else "")


def test_a_weight_of_nothing_needs_no_terms_so_that_the_way_back_is_always_open() -> None:
    for said in (None, "", "{", "[]", "null"):
        assert split_of(DECLARED, route(100, 0, said)) == Split(weight=0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (route(95, 5, None), "annotation"),
        (route(95, 5, "{"), "annotation"),
        (route(95, 5, "[" * 100_000), "annotation"),
        (route(95, 5, "[1]"), "annotation"),
        (route(95, 5, json.dumps(terms(rollout=""))), "rollout"),
        (route(95, 5, json.dumps(terms(weight=50, more=1))), "more"),
        (route(0, 0), "both weights are 0"),
        (route(95.5, 4.5), "whole numbers"),
        (route(True, 5), "whole numbers"),
        (route(105, -5), "whole numbers"),
        (route("95", 5), "whole numbers"),
        (route(None, None), "no backendRef"),
        ({"metadata": {}, "spec": {}}, "no backendRef"),
        ({"metadata": {}, "spec": {"rules": [{"backendRefs": [{}]}]}}, "form"),
        ({"metadata": {}, "spec": []}, "form"),
        ({"metadata": {}, "spec": {"rules": [{"backendRefs": refs(9, 1)}, {"backendRefs": refs(8, 2)}]}}, "different"),
        ({"metadata": [], "spec": {"rules": [{"backendRefs": refs(9, 1)}]}}, "annotation"),
        ({"metadata": {"annotations": ["x"]}, "spec": {"rules": [{"backendRefs": refs(9, 1)}]}}, "annotation"),
        ([], "form"),
    ],
)
def test_what_says_nothing_clear_is_refused_in_one_line(value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        split_of(DECLARED, value)
    assert "prod/vllm" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_rules_for_other_services_do_not_matter() -> None:
    value = route(95, 5)
    value["spec"]["rules"] += [{"backendRefs": [{"name": "another", "weight": 1}]}, {}, {"backendRefs": refs(95, 5)}]
    assert split_of(DECLARED, value).weight == 5.0


# --- a real gateway that watches


def serving(upstreams: Upstreams) -> Declared:
    variants = {"stable": {"upstream": "old", "weight": 50}, "candidate": {"upstream": "new", "weight": 50}}
    both = {"old": upstream(upstreams.url, "large"), "new": upstream(upstreams.url)}
    weights = {"http_route": DECLARED.model_dump()}
    return declared(both, {"desk": {"variants": variants, "salt": "s"}}, rollout={"weights": weights})


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    made = Kubernetes(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def gateway(upstreams: Upstreams, kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Running]:
    kubernetes.put(NAME, route(95, 5))
    kubernetes.put("another", route(0, 100))
    running = Running(tmp_path, serving(upstreams), environment=kubernetes.environment)
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if line["event"] == "bug"]


def private(gateway: Running, path: str) -> Answered:
    return get(int(gateway.private_url.rpartition(":")[2]), path)


def weight(gateway: Running) -> Any:
    return private(gateway, "/v1/rollout").json().get("weight")


def lines(gateway: Running, event: str) -> list[dict[str, Any]]:
    return [line for line in gateway.lines if line["event"] == event]


def test_from_its_first_request_on_a_gateway_deals_as_the_route_says_and_follows_it(
    gateway: Running, kubernetes: Kubernetes
) -> None:
    order = [line["event"] for line in gateway.lines]
    assert order.index("rollout_split") < order.index("listening")
    assert weight(gateway) == 5.0
    for stable, candidate in ((50, 50), (0, 100), (90, 10)):
        kubernetes.put(NAME, route(stable, candidate))
        until(lambda candidate=candidate: weight(gateway) == candidate)
    assert len([path for path in kubernetes.asked if "watch=true" not in path]) == 1  # the rest came by the watch
    kubernetes.put(NAME, route(90, 20, None))
    until(lambda: lines(gateway, "rollout_split_refused"))
    assert weight(gateway) == 10.0
    kubernetes.put(NAME, route(100, 0, None))
    until(lambda: weight(gateway) == 0.0)
    assert post(gateway.port, BODY | {"user": "ann"}).headers["x-gatehouse-variant"] == "stable"
    kubernetes.put(NAME, route(1, 1))
    until(lambda: weight(gateway) == 50.0)
    kubernetes.delete(NAME)
    until(lambda: weight(gateway) == 0.0)


def test_bookmarks_move_the_version_on_from_which_the_next_watch_begins(
    gateway: Running, kubernetes: Kubernetes
) -> None:
    kubernetes.bookmark()
    kubernetes.longest_watch_s = 0.0
    kubernetes.put("another", route(1, 0))  # wakes the watch, which then ends
    until(lambda: len(kubernetes.asked) >= 3)
    versions = [path.rpartition("=")[2] for path in kubernetes.asked if "watch=true" in path]
    assert int(versions[1]) == int(versions[0]) + 10
    assert all("allowWatchBookmarks=true" in path for path in kubernetes.asked if "watch=true" in path)


@pytest.mark.parametrize("is_event", [False, True])
def test_a_version_that_is_too_old_has_all_read_anew(gateway: Running, kubernetes: Kubernetes, is_event: bool) -> None:
    kubernetes.is_gone_an_event = is_event
    kubernetes.stop()
    until(lambda: lines(gateway, "rollout_weights_lost"))
    kubernetes.routes[NAME] = {**route(20, 80), "metadata": {**route(20, 80)["metadata"], "resourceVersion": "150"}}
    kubernetes.forget()
    kubernetes.start()
    until(lambda: weight(gateway) == 80.0, 20.0)
    kubernetes.forget()  # under a running watch
    kubernetes.put(NAME, route(30, 70))
    until(lambda: weight(gateway) == 70.0, 20.0)
    assert len(lines(gateway, "rollout_weights_found")) == 1


def test_while_nobody_answers_the_last_weights_stay_and_their_age_is_told(
    gateway: Running, kubernetes: Kubernetes
) -> None:
    kubernetes.put(NAME, route(0, 100))
    until(lambda: weight(gateway) == 100.0)
    kubernetes.stop()
    (lost,) = until_any(gateway, "rollout_weights_lost")
    assert "API server" in lost["problem"]

    def age() -> float:
        text = private(gateway, "/metrics").body.decode()
        return float(text.partition("\ngatehouse_rollout_weights_age_seconds ")[2].split()[0])

    before = age()
    until(lambda: age() > before + 0.2)
    assert weight(gateway) == 100.0
    assert post(gateway.port, BODY | {"user": "ann"}).headers["x-gatehouse-variant"] == "candidate"
    assert private(gateway, "/readyz").status == 200
    kubernetes.token = "rotated"
    (kubernetes.folder / "token").write_text("rotated\n")
    kubernetes.start()
    until(lambda: lines(gateway, "rollout_weights_found"), 20.0)
    kubernetes.put(NAME, route(100, 0))
    until(lambda: weight(gateway) == 0.0)


def until_any(gateway: Running, event: str) -> list[dict[str, Any]]:
    until(lambda: lines(gateway, event))
    return lines(gateway, event)


def test_without_any_answer_at_the_start_all_is_stable_and_the_gateway_is_ready(
    upstreams: Upstreams, kubernetes: Kubernetes, tmp_path: Path
) -> None:
    kubernetes.put(NAME, route(0, 100))
    kubernetes.stop()
    running = Running(tmp_path, serving(upstreams), environment=kubernetes.environment)
    try:
        assert post(running.port, BODY | {"user": "ann"}).headers["x-gatehouse-variant"] == "stable"
        assert private(running, "/readyz").status == 200
        assert private(running, "/v1/rollout").status == 404
        kubernetes.start()
        until(lambda: weight(running) == 100.0)
    finally:
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no cluster", "KUBERNETES_SERVICE_HOST is not set"),
        ("no account", "ca.crt"),
        ("no token", "token"),
        ("another authority", "cannot be connected to"),
        ("no permission", "answered 401"),
        ("another namespace", "answered 403"),
    ],
)
def test_what_cannot_be_asked_is_told_once_and_nothing_is_split(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    kubernetes.put(NAME, route(0, 100))
    environment, declared = kubernetes.environment, DECLARED
    if what == "no cluster":
        environment["KUBERNETES_SERVICE_HOST"] = ""
    elif what == "no account":
        environment["GATEHOUSE_SERVICE_ACCOUNT"] = str(tmp_path / "none")
    elif what == "no token":
        (tmp_path / "token").unlink()
    elif what == "another authority":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        Kubernetes(elsewhere).stop()
        environment["GATEHOUSE_SERVICE_ACCOUNT"] = str(elsewhere)
    elif what == "no permission":
        kubernetes.token = "of-another-account"
    else:
        declared = DECLARED.model_copy(update={"namespace": "elsewhere"})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    splitting, (reader, writer) = Splitting(), os.pipe()
    log = Log(writer)

    async def follow() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):  # several tries
                await RouteWatch(declared, Taker(splitting, log)).follow()

    asyncio.run(follow())
    log.finish()
    (line,) = os.read(reader, 65_536).splitlines()
    os.close(reader)
    os.close(writer)
    found = json.loads(line)
    assert found["event"] == "rollout_weights_lost"
    assert said in found["problem"]
    assert TOKEN not in found["problem"]
    assert (splitting.split, splitting.age_s()) == (None, None)
