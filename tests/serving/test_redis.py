"""The second level of the exact cache, on a real Redis: shared, and never in the way when it is ill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.serving import redis_store
from pipelines.serving.config import Serving
from pipelines.serving.parts import Answer
from pipelines.serving.redis_store import PREFIX, RedisStore, pack, unpack
from tests.serving.gateway import Running, declared, upstream
from tests.serving.inside import ask, make
from tests.serving.redis_server import RedisServer
from tests.serving.rules import caches
from tests.serving.upstreams import Upstreams

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
ANSWER = Answer({"a": [1]}, b'{"a":[1]}', "small", "one", 10, 5)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    process = RedisServer()
    yield process
    process.kill()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no illness of Redis."""
    monkeypatch.setattr(redis_store, "CONNECT_S", 10.0)
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 10.0)


@asynccontextmanager
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    found = RedisStore(server.url)
    yield found
    await found.close()


def serving(upstreams: Upstreams) -> dict[str, Any]:
    route = {"tiers": [{"upstream": "one"}], "cache": {}}
    return declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}})


def test_what_one_gateway_was_told_the_other_knows(upstreams: Upstreams, server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with store(server) as one, store(server) as other:
            declared_file = serving(upstreams)
            first, second = (
                make(tmp_path, declared_file, caches=caches(Serving.model_validate(declared_file), redis))[0]
                for redis in (one, other)
            )
            upstreams.script({"text": "told once"})
            assert (await ask(first, BODY))[1]["x-gatehouse-cache"] == "miss"
            for _ in range(100):
                if server.client.dbsize():
                    break
                await asyncio.sleep(0.02)
            _, headers, content = await ask(second, BODY)
            assert (headers["x-gatehouse-cache"], b"told once" in content) == ("exact", True)
            assert 0 < server.client.pttl(server.client.keys()[0]) <= 3_600_000

    asyncio.run(scenario())


def test_an_answer_from_redis_lives_no_longer_than_it_was_promised(
    upstreams: Upstreams, server: RedisServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with store(server) as redis:
            declared_file = Serving.model_validate(serving(upstreams))
            kept = caches(declared_file, redis)
            server.client.set(PREFIX + b"old", pack(b"old", ANSWER, time.time() - 1))
            server.client.set(PREFIX + b"young", pack(b"young", ANSWER, time.time() + 0.2))
            assert await kept._second_level(b"old") is None
            assert await kept._second_level(b"young") == ANSWER
            assert kept.memory.get(b"young") == ANSWER
            await asyncio.sleep(0.25)
            assert kept.memory.get(b"young") is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"garbage" * 100,
        pack(b"q", ANSWER, 1e12)[:-1],
        pack(b"q", ANSWER, 1e12) + b"x",
        pack(b"other", ANSWER, 1e12),
        b"\0" * 16 + b"[]\n{}",
    ],
)
def test_garbage_is_no_answer(server: RedisServer, garbage: bytes) -> None:
    async def scenario() -> None:
        async with store(server) as redis:
            server.client.set(PREFIX + b"q", garbage)
            assert await redis.get(b"q") is None
            assert redis.breaker.state == "closed"
            server.client.delete(PREFIX + b"q")
            server.client.rpush(PREFIX + b"q", b"a list, not a value")
            assert await redis.get(b"q") is None

    asyncio.run(scenario())


def test_what_is_kept_is_read_back_as_it_was() -> None:
    kept = unpack(b"q", pack(b"q", ANSWER, 12.5))
    assert kept is not None
    assert (kept.answer, kept.ends_s) == (ANSWER, 12.5)


@pytest.mark.parametrize("illness", ["kill", "freeze"])
def test_a_redis_that_is_ill_is_left_alone_and_used_again_when_it_is_back(
    upstreams: Upstreams, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, illness: str
) -> None:
    for name in ("OPEN_S", "CONNECT_S", "TIMEOUT_S"):
        monkeypatch.setattr(redis_store, name, 0.2)

    async def scenario() -> None:
        async with store(server) as redis:
            declared_file = serving(upstreams)
            kept = caches(Serving.model_validate(declared_file), redis)
            gateway, _ = make(tmp_path, declared_file, caches=kept)
            assert (await ask(gateway, BODY))[0] == 200
            getattr(server, illness)()
            for number in range(20):
                assert (await ask(gateway, BODY | {"seed": number}))[0] == 200
            assert redis.breaker.state == "open"
            server.start() if illness == "kill" else server.thaw()
            await asyncio.sleep(0.25)
            for number in range(100, 200):
                assert (await ask(gateway, BODY | {"seed": number}))[0] == 200
                await asyncio.sleep(0.02)
                if redis.breaker.state == "closed" and server.client.dbsize():
                    break
            assert redis.breaker.state == "closed"
            assert server.client.dbsize() > 0

    asyncio.run(scenario())


def test_a_gateway_without_its_redis_starts_and_answers(upstreams: Upstreams, tmp_path: Path) -> None:
    declared_file = serving(upstreams)
    declared_file["caches"]["redis_url_variable"] = "DESK_REDIS"
    running = Running(tmp_path, declared_file, environment={"DESK_REDIS": "redis://:secret-word@127.0.0.1:1/0"})
    try:
        import openai

        from tests.serving.gateway import KEY

        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0)
        for seed in range(5):
            client.chat.completions.create(**BODY, seed=seed)
        assert [line["cache"] for line in running.requests(5)] == ["miss"] * 5
        client.chat.completions.create(**BODY, seed=0)
        assert running.requests(6)[-1]["cache"] == "exact"
    finally:
        assert running.stop() == 0
    assert "secret-word" not in str(running.lines)


def test_more_questions_at_once_than_connections_are_no_illness(server: RedisServer) -> None:
    async def scenario() -> None:
        async with store(server) as redis:
            await redis.put(b"q", ANSWER, 60)
            got = await asyncio.gather(*(redis.get(b"q") for _ in range(1000)))
            assert any(kept is not None and kept.answer == ANSWER for kept in got)
            assert redis.breaker.state == "closed"

    asyncio.run(scenario())


def test_a_url_that_is_none_of_redis_is_one_line_without_it() -> None:
    with pytest.raises(ConfigError, match=r"caches\.redis_url_variable") as caught:
        RedisStore("http://user:secret-word@host")
    assert "secret-word" not in str(caught.value)
