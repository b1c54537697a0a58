"""What is remembered: equal questions in memory, then in Redis; questions that mean the same behind them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from pipelines.serving.config import Serving
from pipelines.serving.config_policies import ExactCache
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Answer, Body, Question
from pipelines.serving.questions import question, route_caches
from pipelines.serving.redis_store import RedisStore
from pipelines.serving.semantic import Semantic

ENTRY_BYTES = 1024
"""What an entry takes beside its bytes, about."""
LARGEST_SHARE = 8
"""An answer that takes more than this part of the whole cache is not remembered."""
MOST_TASKS = 256
CLOSE_S = 1.0


class Memory:
    """The answers used last, for a limited time, bounded in number and in bytes.

    Kept are bytes, read again when they are asked for: thousands of parsed answers would take several times the memory,
    and Python's collector of cycles would look through all of them again and again while everybody waits.

    Args:
        declared: Limits.
        clock: Monotonic seconds.
    """

    def __init__(self, declared: ExactCache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._declared = declared
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, int, tuple[Any, ...]]] = OrderedDict()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Answer | None:
        """Return an answer that is young enough."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry[0]:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        content = entry[2][0]
        return Answer(orjson.loads(content), *entry[2])

    def put(self, key: bytes, answer: Answer, ttl_s: float | None = None) -> None:
        """Remember an answer; forget those that were not asked for the longest.

        Args:
            key: Of the question.
            answer: What is remembered.
            ttl_s: For so long, if that is less than declared.
        """
        size = ENTRY_BYTES + len(answer.content)
        if size * LARGEST_SHARE > self._declared.max_bytes:
            return
        lives_s = self._declared.ttl_s if ttl_s is None else min(ttl_s, self._declared.ttl_s)
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (self._clock() + lives_s, size, tuple(answer[1:]))
        self.n_bytes += size
        self._shrink()

    def resize(self, declared: ExactCache) -> None:
        """Take over new limits; what is remembered stays as long as it was promised."""
        self._declared = declared
        self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._declared.max_entries or self.n_bytes > self._declared.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.n_bytes -= self._entries.pop(key)[1]


class AnswerCaches:
    """All levels. What takes time (Redis, embeddings of new entries) happens beside the requests.

    Args:
        serving: Which levels there are and which route uses them; `caches.exact` must be declared.
        redis: Second level of the exact cache.
        semantic: Questions that mean the same.
    """

    def __init__(self, serving: Serving, redis: RedisStore | None = None, semantic: Semantic | None = None) -> None:
        assert serving.caches.exact is not None
        self.memory = Memory(serving.caches.exact)
        self.redis = redis
        self.semantic = semantic
        self._tasks: set[asyncio.Task[None]] = set()
        self._read(serving)

    def renew(self, serving: Serving) -> None:
        """Take over a new file; what is remembered stays, as far as it fits."""
        assert serving.caches.exact is not None
        self.memory.resize(serving.caches.exact)
        if self.semantic is not None and serving.caches.semantic is not None:
            self.semantic.resize(serving.caches.semantic)
        self._read(serving)

    def fits(self, serving: Serving) -> bool:
        """Tell whether these are the levels that a file declares; limits may differ."""
        declared = serving.caches
        return (
            (declared.semantic is not None) == (self.semantic is not None)
            and declared.redis_url_variable == self._redis_url_variable
            and (declared.semantic is None or declared.semantic.timeout_s == self._timeout_s)
        )

    def start(self) -> None:
        """Start what works beside the requests."""
        if self.semantic is not None:
            self.semantic.start()

    def question(self, exchange: Exchange, identity: str, body: Body) -> Question | None:
        """Return a request as caches see it, or None if its answer must neither be remembered nor shared."""
        return question(self._routes, exchange, identity, body)

    async def get(self, exchange: Exchange, question: Question) -> Answer | None:
        """Return a remembered answer and note its level."""
        answer = self.memory.get(question.key)
        if answer is None and self.redis is not None:
            answer = await self._second_level(question.key)
        if answer is not None:
            exchange.cache = "exact"
            return answer
        exchange.cache = "miss"
        if self.semantic is not None and self._uses_semantic(question):
            answer = await self.semantic.get(question)
            if answer is not None:
                exchange.cache = "semantic"
        if answer is None and (answer := self.memory.get(question.key)) is not None:  # it came while we waited
            exchange.cache = "exact"
        return answer

    def put(self, question: Question, answer: Answer) -> None:
        """Remember an answer."""
        self.memory.put(question.key, answer)
        if self.redis is not None:
            self._do(self.redis.put(question.key, answer, self._ttl_s))
        if self.semantic is not None and self._uses_semantic(question):
            self._do(self.semantic.put(question, answer))

    async def close(self) -> None:
        """Finish what is under way, as far as it is quick, and give up connections and processes."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=CLOSE_S)
        for task in list(self._tasks):
            task.cancel()
        if self.redis is not None:
            await self.redis.close()
        if self.semantic is not None:
            await self.semantic.close()

    async def _second_level(self, key: bytes) -> Answer | None:
        assert self.redis is not None
        kept = await self.redis.get(key)
        if kept is None:
            return None
        left_s = kept.ends_s - time.time()
        if left_s <= 0:
            return None
        self.memory.put(key, kept.answer, left_s)
        return kept.answer

    def _read(self, serving: Serving) -> None:
        assert serving.caches.exact is not None
        self._ttl_s = serving.caches.exact.ttl_s
        self._redis_url_variable = serving.caches.redis_url_variable
        self._timeout_s = serving.caches.semantic.timeout_s if serving.caches.semantic else 0.0
        self._routes = route_caches(serving)

    def _uses_semantic(self, question: Question) -> bool:
        route = self._routes.get(question.route)
        return route is not None and route.semantic

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MOST_TASKS:  # it does not keep up: rather forget than pile up
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
