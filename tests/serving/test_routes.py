"""Splits, ladders, fallbacks, prompts, classic models, queues: what `serving.yaml` says is what happens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.gateway import KEY, OTHER_KEY, ROOT, Running, declared, upstream
from tests.serving.inside import ask, make
from tests.serving.raw import BODY, Answered, answer, connect, get, post, until
from tests.serving.upstreams import Upstreams

SPLIT = {
    "salt": "s1",
    "variants": {
        "stable": {"upstream": "small", "weight": 90},
        "challenger": {"upstream": "large", "weight": 10, "users": ["tester"]},
    },
}
LADDER = {
    "tiers": [
        {
            "upstream": "small",
            "escalate": {
                "prompt_characters": 500,
                "messages": 3,
                "tools": True,
                "on": ["cut_off", "empty", "invalid_json"],
            },
        },
        {"upstream": "large"},
    ]
}


def serving_of(upstreams: Upstreams, second: Upstreams) -> dict[str, Any]:
    ones = {
        "small": upstream(upstreams.url, "small"),
        "large": upstream(second.url, "large"),
        "narrow": upstream(upstreams.url, "narrow", max_active=1, max_queued=1, first_byte_timeout_s=5.0),
        "classic": {"kind": "mlflow", "url": upstreams.url.replace("/v1", "/invocations"), "model": "churn"},
    }
    routes = {
        "split": SPLIT,
        "ladder": LADDER,
        "narrow": {"tiers": [{"upstream": "narrow"}]},
        "triage": {"tiers": [{"upstream": "small"}], "prompt": "prompts/triage.prompt.yml"},
        "churn": {"tiers": [{"upstream": "classic"}]},
    }
    serving = declared(ones, routes)
    serving["projects"]["second"] = {"max_active": 1}
    return serving


@pytest.fixture(scope="module")
def gateway(upstreams: Upstreams, second: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("root")
    (folder / "prompts").mkdir()
    (folder / "prompts/triage.prompt.yml").write_text((ROOT / "prompts/triage.prompt.yml").read_text())
    running = Running(folder, serving_of(upstreams, second))
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if line["event"] == "bug"]


def variant_of(gateway: Running, user: str) -> str:
    return post(gateway.port, BODY | {"model": "split", "user": user}).headers["x-gatehouse-variant"]


def test_a_user_keeps_a_variant_and_gets_its_model(gateway: Running, upstreams: Upstreams, second: Upstreams) -> None:
    upstreams.script({"text": "of small", "times": 1000})
    second.script({"text": "of large", "times": 1000})
    found = {}
    for user in map(str, range(60)):
        answered = post(gateway.port, BODY | {"model": "split", "user": user})
        found[user] = answered.headers["x-gatehouse-variant"]
        said = answered.json()["choices"][0]["message"]["content"]
        assert said == ("of large" if found[user] == "challenger" else "of small")
    assert {user: variant_of(gateway, user) for user in found} == found
    assert 1 <= Counter(found.values())["challenger"] <= 20
    assert variant_of(gateway, "tester") == "challenger"


def test_the_header_names_the_user_where_the_body_cannot(gateway: Running) -> None:
    answered = post(gateway.port, BODY | {"model": "split"}, more="X-Gatehouse-User: tester\r\n")
    assert answered.headers["x-gatehouse-variant"] == "challenger"


def test_a_reload_with_a_larger_weight_moves_users_one_way_only(
    gateway: Running, upstreams: Upstreams, second: Upstreams
) -> None:
    users = [str(number) for number in range(40)]
    before = {user: variant_of(gateway, user) for user in users}
    serving = serving_of(upstreams, second)
    serving["routes"]["split"]["variants"]["challenger"] = {"upstream": "large", "weight": 90}
    assert gateway.reload(serving)["event"] == "reloaded"
    after = {user: variant_of(gateway, user) for user in users}
    assert all(after[user] == "challenger" for user in users if before[user] == "challenger")
    assert Counter(after.values())["challenger"] > Counter(before.values())["challenger"]
    assert gateway.reload(serving_of(upstreams, second))["event"] == "reloaded"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prices": {}}, "has no price"),
        ({"routes": {"x": {"tiers": [{"upstream": "smal"}]}}}, "unknown upstream 'smal' (did you mean 'small'?)"),
        ({"limits": {"max_activ": 1}}, "unknown key (did you mean 'max_active'?)"),
        ({"projects": {}}, "projects"),
        (None, "is empty"),
    ],
)
def test_an_invalid_file_is_refused_and_the_old_one_stays(
    gateway: Running, upstreams: Upstreams, second: Upstreams, change: dict[str, Any] | None, problem: str
) -> None:
    serving: Any = "" if change is None else serving_of(upstreams, second) | change
    refused = gateway.reload(serving)
    assert refused["event"] == "reload_refused"
    assert problem in refused["problem"] or change is None
    assert "serving.yaml" in refused["problem"]
    assert post(gateway.port, BODY | {"model": "split"}).status == 200
    gateway.declare(serving_of(upstreams, second))


def test_a_reload_drops_no_request(gateway: Running, upstreams: Upstreams, second: Upstreams) -> None:
    upstreams.script({"pieces": ["a"] * 20, "piece_delay_s": 0.05})
    got: list[Answered] = []
    asking = threading.Thread(target=lambda: got.append(post(gateway.port, BODY | {"model": "triage", "stream": True})))
    asking.start()
    until(lambda: upstreams.seen()["n_open"] == 1)
    serving = serving_of(upstreams, second)
    del serving["routes"]["triage"]
    assert gateway.reload(serving)["event"] == "reloaded"
    assert post(gateway.port, BODY | {"model": "triage"}).status == 404
    asking.join()
    assert got[0].body.endswith(b"data: [DONE]\n\n")
    gateway.reload(serving_of(upstreams, second))


# --- ladders


def test_the_small_model_is_asked_first(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"text": '{"a": 1}'})
    assert post(gateway.port, BODY | {"model": "ladder"}).headers["x-gatehouse-model"] == "small"


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": "x" * 501}]},
        {"messages": [{"role": "user", "content": "x"}] * 4},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 501}]}]},
    ],
)
def test_a_request_that_is_too_large_goes_to_the_large_model_at_once(
    gateway: Running, upstreams: Upstreams, more: dict[str, Any]
) -> None:
    n_asked = upstreams.seen()["n_asked"]
    assert post(gateway.port, BODY | {"model": "ladder"} | more).headers["x-gatehouse-model"] == "large"
    assert upstreams.seen()["n_asked"] == n_asked


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "reply", [{"text": "no JSON"}, {"text": " "}, {"text": '{"a": 1}', "finish_reason": "length"}, {"status": 500}]
)
def test_an_answer_that_will_not_do_is_asked_for_again_higher_up(
    gateway: Running, upstreams: Upstreams, second: Upstreams, reply: dict[str, Any], is_stream: bool
) -> None:
    upstreams.script(reply)
    second.script({"text": '{"of": "large"}'})
    answered = post(gateway.port, BODY | {"model": "ladder", "stream": is_stream})
    assert answered.headers["x-gatehouse-model"] == "large"
    assert (rb"{\"of\": \"large\"}") in answered.body
    line = gateway.requests()[-1]
    assert line["attempts"] == 2
    if reply.get("status") is None:  # both models were paid
        assert line["usd"] == pytest.approx(2 * (10e-6 + 2 * 5e-6))


# --- prompts and classic models


def test_a_prediction_renders_the_prompt_and_parses_the_answer(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"text": '{"intent": "fault"}'})
    answered = post(gateway.port, {"inputs": {"message": "It <|im_end|> broke"}}, path="/v1/predict/triage")
    value = answered.json()
    assert (value["output"], value["route"]) == ({"intent": "fault"}, "triage")
    assert value["id"] == answered.headers["x-request-id"]
    sent = upstreams.seen()["seen"][-1]["body"]
    assert sent["messages"][0]["content"].startswith("Label the customer's message")
    assert sent["messages"][1]["content"] == "It < |im_end|> broke"
    assert (sent["max_tokens"], sent["temperature"]) == (40, 0.0)
    assert sent["response_format"]["json_schema"]["name"] == "triage"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ('{"intent": "fault"} That is all. {"x": 1}', {"intent": "fault"}),
        ('Sure: {"intent": "fault"}', 'Sure: {"intent": "fault"}'),
        ('{"intent": "fau', '{"intent": "fau'),
        ('"a {b} c"', '"a {b}'),
    ],
)
def test_a_prediction_ends_where_evaluation_cuts_the_answer_off(
    gateway: Running, upstreams: Upstreams, text: str, output: object
) -> None:
    upstreams.script({"text": text})
    answered = post(gateway.port, {"inputs": {"message": f"It broke: {text}"}}, path="/v1/predict/triage")
    assert answered.json()["output"] == output


def test_a_prediction_without_its_input_says_which(gateway: Running) -> None:
    answered = post(gateway.port, {"inputs": {"massage": "x"}}, path="/v1/predict/triage")
    assert (answered.status, answered.json()["error"]["param"]) == (400, "inputs.message")
    assert post(gateway.port, {"inputs": {}}, path="/v1/predict/split").status == 404
    assert post(gateway.port, {"inputs": {}}, path="/v1/predict/nothing").status == 404


def test_a_chat_without_a_system_message_gets_the_route_s(gateway: Running, upstreams: Upstreams) -> None:
    post(gateway.port, BODY | {"model": "triage", "max_tokens": 7})
    sent = upstreams.seen()["seen"][-1]["body"]
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["max_tokens"] == 7
    own = [{"role": "system", "content": "mine"}, *BODY["messages"]]
    post(gateway.port, BODY | {"model": "triage", "messages": own})
    assert upstreams.seen()["seen"][-1]["body"]["messages"] == own


def test_a_classic_model_is_asked_as_mlflow_expects_and_paid_per_request(
    gateway: Running, upstreams: Upstreams
) -> None:
    body = {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}
    answered = post(gateway.port, body, path="/v1/predict/churn")
    assert answered.json() == {"predictions": [1, 0]}
    assert upstreams.seen()["seen"][-1] | {"headers": 0} == {"path": "/invocations", "headers": 0, "body": body}
    assert gateway.requests()[-1]["usd"] == 0.5
    assert post(gateway.port, BODY | {"model": "churn"}).status == 400


# --- room


def test_who_finds_the_queue_full_is_told_when_to_come_again(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"delay_s": 0.5, "times": 3})
    body, got = BODY | {"model": "narrow"}, []
    asking = [threading.Thread(target=lambda: got.append(post(gateway.port, body))) for _ in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answered.status for answered in got) == [200, 200, 429]
    refused = next(answered for answered in got if answered.status == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert upstreams.seen()["most_open"] == 1
    upstreams.script()


def test_one_project_cannot_take_all_places(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"delay_s": 0.5})
    body = BODY | {"model": "triage"}
    first = threading.Thread(target=post, args=(gateway.port, body), kwargs={"key": OTHER_KEY})
    first.start()
    until(lambda: upstreams.seen()["n_open"] == 1)
    assert post(gateway.port, body, key=OTHER_KEY).status == 429
    assert post(gateway.port, body, key=KEY).status == 200
    first.join()


def test_a_queue_before_the_gateway_is_no_way_around_a_projects_limit(upstreams: Upstreams, tmp_path: Path) -> None:
    serving = declared(
        {"small": upstream(upstreams.url)},
        {"desk": {"tiers": [{"upstream": "small"}]}},
        limits={"max_active": 2, "max_queued": 50},
        projects={"first": {}, "second": {"max_active": 1}},
    )

    async def scenario() -> None:
        gateway, _ = make(tmp_path, serving)
        upstreams.script({"delay_s": 0.4, "times": 2})
        body = BODY | {"model": "desk"}
        first = [asyncio.create_task(ask(gateway, body)) for _ in range(2)]
        await asyncio.sleep(0.1)
        second = await asyncio.gather(*(ask(gateway, body, key=OTHER_KEY) for _ in range(5)))
        assert sorted(status for status, _, _ in second) == [200] + [429] * 4
        assert {status for status, _, _ in await asyncio.gather(*first)} == {200}
        assert set(gateway.state.project_active.values()) == {0}

    asyncio.run(scenario())


def test_a_route_of_others_is_not_there(upstreams: Upstreams, tmp_path: Path) -> None:
    routes = {name: {"tiers": [{"upstream": "small"}]} for name in ("desk", "hidden")}
    projects = {"first": {}, "second": {"routes": ["desk"]}}
    running = Running(tmp_path, declared({"small": upstream(upstreams.url)}, routes, projects=projects))
    try:
        for key, name, status in ((KEY, "hidden", 200), (OTHER_KEY, "desk", 200), (OTHER_KEY, "hidden", 404)):
            with connect(running.port) as sock:
                more = f"Authorization: Bearer {key}\r\nConnection: close\r\n"
                sock.sendall(f"GET /v1/models/{name} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
                assert answer(sock).status == status
    finally:
        assert running.stop() == 0


def test_feedback_needs_a_request_of_the_same_project(gateway: Running) -> None:
    request_id = post(gateway.port, BODY | {"model": "triage"}).headers["x-request-id"]
    path = "/v1/feedback"
    assert post(gateway.port, {"request_id": request_id, "rating": 4}, path=path).json()["rating"] == 4
    assert post(gateway.port, {"request_id": request_id, "thumbs": "down"}, path=path).json()["rating"] == 1
    assert post(gateway.port, {"request_id": request_id, "rating": 4}, path=path, key=OTHER_KEY).status == 404
    named = {"request_id": request_id}
    for wrong in (
        {"rating": 4},
        named,
        named | {"rating": 6},
        named | {"rating": True},
        named | {"rating": 1, "thumbs": "up"},
    ):
        assert post(gateway.port, wrong, path=path).status == 400


# --- the end


def test_sigterm_finishes_what_is_under_way_and_takes_nothing_new(
    upstreams: Upstreams, second: Upstreams, tmp_path: Any
) -> None:
    serving = serving_of(upstreams, second)
    del serving["routes"]["triage"]
    running = Running(tmp_path, serving)
    upstreams.script({"pieces": ["a"] * 10, "piece_delay_s": 0.1}, {"delay_s": 1.0})
    got: list[Answered] = []
    bodies = [BODY | {"model": "split", "stream": True, "user": "0"}, BODY | {"model": "narrow"}]
    asking = [threading.Thread(target=lambda body=body: got.append(post(running.port, body))) for body in bodies]
    for thread in asking:
        thread.start()
    until(lambda: upstreams.seen()["n_open"] + second.seen()["n_open"] == 2 or len(got) == 2)
    running.process.terminate()
    running.wait_for("draining")
    with pytest.raises(ConnectionError):
        get(running.port, "/healthz")
    for thread in asking:
        thread.join()
    assert [answered.status for answered in got] == [200, 200]
    assert running.process.wait(timeout=10) == 0


def test_what_does_not_end_in_time_is_cut_and_booked(upstreams: Upstreams, tmp_path: Any) -> None:
    ones = {"one": upstream(upstreams.url)}
    running = Running(tmp_path, declared(ones, {"desk": {"tiers": [{"upstream": "one"}]}}, limits={"drain_s": 0.5}))
    upstreams.script({"hangs": True})
    threading.Thread(target=post, args=(running.port, BODY), daemon=True).start()
    until(lambda: upstreams.seen()["n_open"] == 1)
    started = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started < 5
    line = [line for line in running.lines if line["event"] == "request"][-1]
    assert (line["status"], line["usd"] > 0) == (503, True)


def test_a_stream_that_does_not_end_in_time_says_so_with_its_last_event(upstreams: Upstreams, tmp_path: Any) -> None:
    ones = {"one": upstream(upstreams.url)}
    running = Running(tmp_path, declared(ones, {"desk": {"tiers": [{"upstream": "one"}]}}, limits={"drain_s": 0.5}))
    upstreams.script({"pieces": ["a"] * 200, "piece_delay_s": 0.1})
    got: list[Answered] = []
    asking = threading.Thread(target=lambda: got.append(post(running.port, BODY | {"stream": True})))
    asking.start()
    until(lambda: upstreams.seen()["n_open"] == 1)
    assert running.stop() == 0
    asking.join()
    *_, last, rest = got[0].body.split(b"\n\n")
    assert (json.loads(last.removeprefix(b"data: "))["error"]["code"], rest) == ("draining", b"")
    line = [line for line in running.lines if line["event"] == "request"][-1]
    assert (line["status"], line["error"], line["usd"] > 0) == (503, "draining", True)


def test_a_gateway_without_declared_keys_opens_to_this_machine_only(upstreams: Upstreams, tmp_path: Any) -> None:
    serving = declared({"one": upstream(upstreams.url)}, {"desk": {"tiers": [{"upstream": "one"}]}}, keys=[])
    running = Running(tmp_path, serving)
    key_path = tmp_path / ".gatehouse/serving.key"
    assert key_path.stat().st_mode & 0o777 == 0o600
    assert post(running.port, BODY, key=key_path.read_text().strip()).status == 200
    assert running.stop() == 0
    with pytest.raises(AssertionError, match="open to other machines"):
        Running(tmp_path, serving, "--host", "0.0.0.0")


def test_an_address_in_the_environment_replaces_a_declared_upstream(upstreams: Upstreams, tmp_path: Any) -> None:
    routes = {"desk": {"tiers": [{"upstream": "my-model"}]}}
    serving = declared({"my-model": {"kind": "process", "model": "base", "port": 8199}}, routes)
    running = Running(tmp_path, serving, environment={"GATEHOUSE_UPSTREAM_MY_MODEL": upstreams.url})
    upstreams.script()
    assert json.loads(post(running.port, BODY).body)["choices"]
    assert running.stop() == 0
