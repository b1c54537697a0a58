"""The exact cache's second level: Redis, shared by all gateways. Where it is away or slow, it seems to be empty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from pipelines.core.errors import ConfigError
from pipelines.serving.breaker import CircuitBreaker
from pipelines.serving.parts import Answer

PREFIX = b"gatehouse:answer:2:"
"""The number changes with the format, so that gateways of two versions can share one Redis."""
CONNECT_S = 0.1
TIMEOUT_S = 0.05
FAILURES = 3
OPEN_S = 5.0
MOST_BYTES = 1_048_576
MOST_CONNECTIONS = 64
DIGEST_BYTES = 16


class Kept(NamedTuple):
    """An answer and when it ends to be valid: wall clock, seconds since 1970."""

    answer: Answer
    ends_s: float


class RedisStore:
    """Keeps answers in Redis. Never raises, and never takes longer than its timeouts.

    Args:
        url: `redis://`, `rediss://` or `unix://`; may hold a password and is never shown.

    Raises:
        ConfigError: The URL is none of Redis.
    """

    def __init__(self, url: str) -> None:
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        self._errors = (RedisError, OSError, TimeoutError, UnicodeError)
        self._n_busy = 0
        try:
            pool = ConnectionPool.from_url(
                url,
                socket_connect_timeout=CONNECT_S,
                socket_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                max_connections=MOST_CONNECTIONS,
            )
        except ValueError:
            raise ConfigError(
                "the URL of Redis (its variable is caches.redis_url_variable in serving.yaml) cannot be read; "
                "it must begin with redis://, rediss:// or unix://"
            ) from None
        self._redis = Redis(connection_pool=pool)
        self.breaker = CircuitBreaker(FAILURES, OPEN_S, clock=time.monotonic, on_change=lambda state: None)

    async def get(self, key: bytes) -> Kept | None:
        """Return an answer, or None if there is none to be had in time."""
        content = await self._do(lambda: self._redis.get(PREFIX + key))
        return unpack(key, content) if isinstance(content, bytes) else None

    async def put(self, key: bytes, answer: Answer, ttl_s: float) -> None:
        """Keep an answer for so long, if that works."""
        if len(answer.content) > MOST_BYTES:
            return
        kept, lives_ms = pack(key, answer, time.time() + ttl_s), max(1, round(ttl_s * 1000))
        await self._do(lambda: self._redis.set(PREFIX + key, kept, px=lives_ms))

    async def close(self) -> None:
        """Close the connections."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._redis.aclose()
        except self._errors:
            pass

    async def _do(self, work: Callable[[], Any]) -> Any:
        """Return what Redis answers, or None if it cannot be asked now or does not answer in time."""
        if self._n_busy >= MOST_CONNECTIONS or not self.breaker.allows():
            return None
        self._n_busy += 1
        try:
            async with asyncio.timeout(CONNECT_S + TIMEOUT_S):
                found = await work()
        except self._errors:
            self.breaker.fail()
            return None
        except BaseException:
            self.breaker.withdraw()
            raise
        finally:
            self._n_busy -= 1
        self.breaker.succeed()
        return found


def pack(key: bytes, answer: Answer, ends_s: float) -> bytes:
    """Return an answer as it is kept: a digest of it and its question, a line about it, its bytes."""
    about = [ends_s, answer.model, answer.upstream, answer.prompt_tokens, answer.completion_tokens]
    rest = orjson.dumps(about) + b"\n" + answer.content
    return _digest(key, rest) + rest


def unpack(key: bytes, kept: bytes) -> Kept | None:
    """Return an answer, or None where what was kept is none: cut off, or given to another question."""
    digest, rest = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    if _digest(key, rest) != digest:
        return None
    about, _, content = rest.partition(b"\n")
    try:
        ends_s, model, upstream, prompt_tokens, completion_tokens = orjson.loads(about)
        answer = Answer(orjson.loads(content), content, model, upstream, prompt_tokens, completion_tokens)
        return Kept(answer, float(ends_s))
    except (ValueError, TypeError):
        return None


def _digest(key: bytes, rest: bytes) -> bytes:
    return blake2b(b"%d:%b%b" % (len(key), key, rest), digest_size=DIGEST_BYTES).digest()
