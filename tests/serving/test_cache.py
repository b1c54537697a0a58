"""What is remembered, for whom, for how long, and what is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.cache import ENTRY_BYTES, Memory
from pipelines.serving.config import Serving
from pipelines.serving.config_policies import ExactCache, RouteCache
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Answer
from pipelines.serving.questions import question
from tests.serving.gateway import OTHER_KEY, declared, upstream
from tests.serving.inside import ask, make, texts
from tests.serving.rules import caches
from tests.serving.upstreams import Upstreams

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def answer(size: int = 2) -> Answer:
    return Answer({"a": "x" * size}, b'{"a":"%b"}' % (b"x" * size), "small", "one", 1, 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_answer_asked_for_longest_ago_goes_first() -> None:
    memory = Memory(ExactCache(max_entries=2))
    for key in (b"a", b"b"):
        memory.put(key, answer())
    assert memory.get(b"a") is not None
    memory.put(b"c", answer())
    assert [memory.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_what_is_remembered_is_what_was_given() -> None:
    memory = Memory(ExactCache())
    memory.put(b"a", answer())
    assert memory.get(b"a") == answer()


def test_an_answer_is_forgotten_at_the_end_of_its_time_and_not_before() -> None:
    clock = Clock()
    memory = Memory(ExactCache(ttl_s=10), clock=clock)
    memory.put(b"a", answer())
    memory.put(b"short", answer(), ttl_s=4)
    clock.now = 9.999
    assert memory.get(b"a") is not None
    assert memory.get(b"short") is None
    clock.now = 10
    assert memory.get(b"a") is None
    assert (len(memory), memory.n_bytes) == (0, 0)


def test_bytes_are_bounded_and_one_answer_never_takes_it_all() -> None:
    limit = 20 * ENTRY_BYTES
    memory = Memory(ExactCache(max_bytes=limit))
    for number in range(100):
        memory.put(str(number).encode(), answer(100))
        memory.put(b"same", answer(100))
        assert memory.n_bytes <= limit
    assert len(memory) >= 10
    memory.put(b"huge", answer(limit))
    assert memory.get(b"huge") is None
    memory.resize(ExactCache(max_entries=3))
    assert len(memory) == 3


def asked(body: dict[str, Any], *, identity: str = "model 1", route: RouteCache | None = None, **more: str) -> Any:
    exchange = Exchange(more.pop("endpoint", "chat"))
    exchange.route, exchange.project, exchange.user = "desk", "first", ""
    for name, value in more.items():
        setattr(exchange, name, value)
    return question({"desk": route or RouteCache()}, exchange, identity, body)


def test_a_question_is_what_decides_its_answer_and_nothing_else() -> None:
    key = asked(BODY).key
    for same in (
        BODY | {"stream": True, "stream_options": {"include_usage": True}, "user": "anna", "metadata": {"a": 1}},
        dict(reversed(BODY.items())),
        BODY | {"messages": [{"content": "hello", "role": "user"}]},
    ):
        assert asked(same).key == key
    for other in (
        BODY | {"messages": [{"role": "user", "content": "hello "}]},
        BODY | {"messages": [{"role": "system", "content": "hello"}]},
        BODY | {"max_tokens": 5},
        BODY | {"seed": 1},
        BODY | {"temperature": 0.0, "top_p": 0.5},
        BODY | {"tools": []},
        BODY | {"n": 2},
        BODY | {"unknown_to_us": 1},
    ):
        assert asked(other).key != key
    assert asked(BODY, identity="model 2").key != key
    assert asked(BODY, project="second").key != key
    assert asked(BODY, endpoint="completions").key != key


def test_answers_kept_by_user_are_kept_from_other_users_and_from_nobody() -> None:
    by_user = RouteCache(scope="user")
    keys = {asked(BODY, route=by_user, user=user, project=project).key for user, project in
            (("anna", "first"), ("bo", "first"), ("anna", "second"), ("t:anna", "firs"))}  # fmt: skip
    assert len(keys) == 4
    assert asked(BODY, route=by_user) is None


@pytest.mark.parametrize(
    ("changed", "is_remembered"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.01}, False),
        ({"temperature": None}, False),
        ({"stream": True, "logprobs": True}, False),
        ({"logprobs": True}, True),
        ({"audio": {"voice": "a"}}, False),
    ],
)
def test_only_answers_that_would_be_the_same_again_are_remembered(changed: dict[str, Any], is_remembered: bool) -> None:
    assert (asked(BODY | changed) is not None) == is_remembered


def test_drawn_answers_embeddings_and_predictions_are_remembered_where_that_is_meant() -> None:
    without = {"model": "desk", "messages": []}
    assert asked(without) is None
    assert asked(without, route=RouteCache(sampled=True)) is not None
    assert asked({"model": "desk", "input": "hello"}, endpoint="embeddings") is not None
    assert asked({"inputs": [[1, 2]]}, endpoint="predict") is not None


def test_a_gateway_remembers_by_project_and_variant_and_streams_from_memory(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    async def scenario() -> None:
        route = {
            "salt": "s",
            "variants": {
                "old": {"upstream": "one", "weight": 50, "users": ["anna"]},
                "new": {"upstream": "two", "weight": 50, "users": ["bo"]},
            },
            "cache": {},
        }
        models = {"one": upstream(upstreams.url, digest="1"), "two": upstream(upstreams.url, digest="2")}
        serving = declared(models, {"desk": route}, caches={"exact": {}})
        gateway, ledger = make(tmp_path, serving, caches=caches(Serving.model_validate(serving)))
        upstreams.script({"text": "to anna"}, {"text": "to bo"}, {"text": "to the other project"})
        said = []
        for user, streams in (("anna", True), ("bo", False), ("anna", False), ("bo", True), ("anna", True)):
            _, headers, content = await ask(gateway, BODY | {"user": user, "stream": streams})
            text = texts(content) if streams else json.loads(content)["choices"][0]["message"]["content"]
            said.append((text, headers["x-gatehouse-cache"]))
        assert said == [
            ("to anna", "miss"), ("to bo", "miss"), ("to anna", "exact"), ("to bo", "exact"), ("to anna", "exact")
        ]  # fmt: skip
        assert [row.usd > 0 for row in ledger.rows] == [True, True, False, False, False]
        _, headers, content = await ask(gateway, BODY | {"user": "anna"}, key=OTHER_KEY)
        assert (b"other project" in content, headers["x-gatehouse-cache"]) == (True, "miss")

    asyncio.run(scenario())


@pytest.mark.parametrize("reply", [{"finish_reason": "length"}, {"status": 400}, {"raw": "garbage"}])
@pytest.mark.parametrize("streams", [False, True])
def test_no_error_and_no_truncated_answer_is_remembered(
    upstreams: Upstreams, tmp_path: Path, reply: dict[str, Any], streams: bool
) -> None:
    async def scenario() -> None:
        route = {"tiers": [{"upstream": "one"}], "cache": {}}
        serving = declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}})
        kept = caches(Serving.model_validate(serving))
        gateway, _ = make(tmp_path, serving, caches=kept)
        upstreams.script(reply)
        await ask(gateway, BODY | {"stream": streams})
        assert len(kept.memory) == 0
        upstreams.script({"text": "good"})
        await ask(gateway, BODY | {"stream": streams})
        assert len(kept.memory) == 1

    asyncio.run(scenario())
