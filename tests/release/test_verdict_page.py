"""`/v1/verdict`: each of its words, and a real gateway whose candidate fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipelines.core.split import Split, write
from pipelines.release import prometheus
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.judge import plan_of
from pipelines.release.tallies import Tally
from pipelines.release.targets import CountersUnavailable
from pipelines.release.verdict_page import VerdictPage
from pipelines.serving.config import Serving
from tests.serving.gateway import Running, declared, upstream
from tests.serving.raw import BODY, Answered, get, post
from tests.serving.upstreams import Upstreams

GATES = Path(__file__).parents[2] / "gates.yaml"
KEY = "0123456789abcdef.1"
ROUTES = {
    "desk": {
        "variants": {"stable": {"upstream": "old", "weight": 0}, "candidate": {"upstream": "new", "weight": 1}},
        "salt": "s",
    }
}
NOTHING = Counters()
ENOUGH = Counters((Epoch(5, Arm(requests=2, latency=((30.0, 2),)), Arm(), "canary-1"),))
HARM = Counters((Epoch(5, Arm(requests=9, errors=9, latency=((30.0, 9),)), Arm(), "canary-1"),))


class UnderWay(NamedTuple):
    """What a gateway knows."""

    serving: Serving
    split: Split | None
    counters: Mapping[str, Any]


def serving(weights: dict[str, Any], old: str = "http://h/v1", new: str = "http://h/v1") -> dict[str, Any]:
    upstreams = {"old": upstream(old, "large"), "new": upstream(new, "small", breaker={"failures": 1000})}
    bounds = {"latency_bounds_s": [1, 30], "ttft_bounds_s": [1, 10]}
    return declared(upstreams, ROUTES, rollout={"weights": weights}, metrics=bounds)


def under_way(counters: Counters = NOTHING, *, weights: dict[str, Any] | None = None, **more: Any) -> UnderWay:
    file = Serving.model_validate_json(json.dumps(serving(weights or {"file": "split.json"})))
    split = Split(**{"rollout": KEY, "stage": "canary-1", "weight": 5.0, "since": time.time() - 60, **more})
    return UnderWay(file, split, Tally(counters).as_json())


def asked(given: UnderWay, page: VerdictPage | None = None, **query: str) -> tuple[str, dict[str, Any]]:
    status, found = (page or VerdictPage(GATES))(query, given)
    assert status == (
        503 if found["verdict"] == "unknown" else 200
    )  # a web metric of Argo Rollouts takes 503 for an error
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all("\n" not in reason for reason in found["reasons"])
    return found["verdict"], found


def test_without_a_rollout_there_is_nothing_to_say() -> None:
    status, found = VerdictPage(GATES)({}, under_way()._replace(split=None))
    assert (status, found["error"]["code"]) == (404, "no_release")


def test_a_candidate_whose_only_pod_is_away_harms_nobody_and_is_waited_for() -> None:
    assert asked(under_way(HARM)._replace(split=Split(weight=0.0)))[0] == "hold"


def test_enough_requests_without_harm_advance_and_everything_that_led_there_is_said() -> None:
    word, found = asked(under_way(ENOUGH))
    assert word == "advance"
    assert (found["rollout"], found["stage"], found["weight"], found["n_requests"]) == (KEY, "canary-1", 5.0, 2)
    assert found["gates_sha256"] == plan_of("local")(GATES.read_bytes()).gates_sha256
    assert {one["gate"] for one in found["checks"]} == {"error_rate", "schema_failure_rate", "latency_p95_ms"}


@pytest.mark.parametrize("since", [0.0, 1.0, 60.0])
def test_a_stage_that_just_began_or_is_held_does_not_advance_but_goes_back(since: float) -> None:
    given: dict[str, Any] = {"since": time.time() - 0.5 if since == 1.0 else since and time.time() - since}
    assert asked(under_way(ENOUGH, **given))[0] == ("advance" if since == 60.0 else "hold")
    assert asked(under_way(HARM, **given))[0] == "rollback"


def test_another_stage_than_the_one_in_force_never_advances() -> None:
    assert asked(under_way(ENOUGH), stage="canary-1")[0] == "advance"
    word, found = asked(under_way(ENOUGH), stage="canary-2\n")
    assert (word, found["reasons"][0]) == ("hold", "stage canary-1 is in force, not canary-2\\n")
    assert asked(under_way(HARM), stage="canary-2")[0] == "rollback"


def test_time_that_is_up_rolls_back_as_inconclusive() -> None:
    assert asked(under_way(since=time.time() - 230))[0] == "hold"
    word, found = asked(under_way(since=time.time() - 250))
    assert (word, found["reasons"][0]) == ("rollback", "inconclusive, not enough evidence within 240 s")


def test_counts_that_cannot_be_true_are_invalid() -> None:
    broken = Counters((Epoch(5, Arm(requests=1, errors=3), Arm(), "canary-1"),))
    assert asked(under_way(broken))[0] == "invalid"
    assert asked(under_way()._replace(counters={"canary": 3}))[0] == "invalid"


def test_what_it_cannot_judge_by_is_unknown_and_says_why(tmp_path: Path) -> None:
    word, found = asked(under_way(HARM, stage="canary-9"))
    assert (word, found["reasons"][0][:43]) == ("unknown", "gates.yaml: declares no stage 'canary-9'; t")
    assert asked(under_way(HARM), VerdictPage(tmp_path / "none.yaml"))[0] == "unknown"
    (tmp_path / "gates.yaml").write_text("schema_version: [")
    word, found = asked(under_way(HARM), VerdictPage(tmp_path / "gates.yaml"))
    assert (word, "not valid YAML" in found["reasons"][0]) == ("unknown", True)


def test_in_a_cluster_its_own_rollout_counts_and_prometheus_is_asked_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []

    def answering(*arguments: Any, token: str) -> dict[str, Any]:
        calls.append(arguments)
        assert token == "a-token"
        if len(calls) > 1:
            raise CountersUnavailable("Prometheus does not answer")
        return Tally(HARM).as_json()

    monkeypatch.setattr(prometheus, "counters", answering)
    route = {"http_route": {"name": "r", "namespace": "n", "stable": "s", "candidate": "c"}}
    page, given = VerdictPage(GATES, "http://prometheus", "a-token"), under_way(weights=route)
    word, found = asked(given, page)
    assert (word, found["n_requests"], len(found["checks"])) == (
        "invalid",
        0,
        0,
    )  # no bound at 5 s, as its gates ask for
    assert (calls[0][:2], calls[0][3]) == (("http://prometheus", KEY), "user")
    assert calls[0][2] < time.time() - 604_800  # the A/B test alone may have lasted as long
    assert [asked(given, page)[0] for _ in range(3)] == ["unknown"] * 3


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Upstreams, Upstreams]]:
    both = Upstreams(), Upstreams()
    yield both
    for one in both:
        one.kill()


def test_a_gateway_says_rollback_of_a_candidate_that_fails_and_nothing_else_before(
    pair: tuple[Upstreams, Upstreams], tmp_path: Path
) -> None:
    pair[1].script({"status": 500, "times": 1000})
    running = Running(
        tmp_path,
        serving({"file": "split.json"}, *(one.url for one in pair)),
        environment={"GATEHOUSE_GATES": str(GATES)},
    )

    def verdict() -> Answered:
        return get(int(running.private_url.rpartition(":")[2]), "/v1/verdict?stage=ab_test")

    try:
        assert verdict().status == 404
        write(tmp_path / "split.json", Split(rollout=KEY, stage="ab_test", weight=50.0, window_s=15, since=time.time()))
        running.wait_for("rollout_split")
        words = []
        for user in range(60):
            post(running.port, BODY | {"user": str(user)})
            words.append(verdict().json()["verdict"])
        assert list(dict.fromkeys(words)) == ["hold", "rollback"]
        found = verdict().json()
        assert (found["stage"], found["checks"][0]["gate"], found["checks"][0]["status"]) == (
            "ab_test", "error_rate", "failed",
        )  # fmt: skip
    finally:
        assert running.stop() == 0
    assert not [line for line in running.lines if line["event"] == "bug"]
