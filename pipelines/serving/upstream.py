"""One upstream: ask it, again where that is safe, leave it alone while it is ill, and pay for what it did."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable

import orjson

from pipelines.serving.breaker import CircuitBreaker
from pipelines.serving.config_upstreams import MlflowUpstream, OpenAIUpstream, ProcessUpstream
from pipelines.serving.connections import Broken, Connection, Timeouts
from pipelines.serving.errors import Refused, invalid, unavailable, upstream_failed
from pipelines.serving.exchange import Exchange
from pipelines.serving.failures import Failed, of_connection, of_status
from pipelines.serving.limits import Admission
from pipelines.serving.parts import Answer, Body, Metrics
from pipelines.serving.pool import Pool
from pipelines.serving.replies import guess_tokens, has_said, lost_tokens, parse_answer, usage_of

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
Declared = OpenAIUpstream | ProcessUpstream | MlflowUpstream
Cost = Callable[[int, int], float]


class Upstream:
    """One upstream.

    Args:
        name: As declared.
        declared: Its settings.
        url: Where it is: base URL, or the whole URL of an MLflow server.
        digest: Of the model's weights, or "".
        cost: USD of (prompt tokens, completion tokens).
        metrics: Told of every attempt.
    """

    def __init__(self, name: str, declared: Declared, url: str, digest: str, cost: Cost, metrics: Metrics) -> None:
        self.name = name
        self.declared = declared
        self.url = url.rstrip("/")
        self.model = declared.model
        self.identity = f"{self.model} {digest or self.url}"
        self.cost = cost
        self.is_starting = False  # set while its process loads its model
        self._metrics = metrics
        self._drops = frozenset(declared.drops)
        timeouts = Timeouts(
            declared.connect_timeout_s, declared.first_byte_timeout_s, declared.idle_timeout_s, declared.timeout_s
        )
        self._pool = Pool(url, timeouts, declared.max_answer_bytes)
        self.admission = Admission(
            f"upstream {name}", declared.max_active, declared.max_queued, declared.first_byte_timeout_s
        )
        self.breaker = CircuitBreaker(
            declared.breaker.failures,
            declared.breaker.open_s,
            clock=time.monotonic,
            on_change=lambda state: metrics.health(name, state),
        )
        self._key = os.environ.get(getattr(declared, "api_key_variable", None) or "", "")
        self._heads = self._build_heads()
        metrics.health(name, "closed")

    async def ask(self, exchange: Exchange, endpoint: str, body: Body) -> Answer:
        """Return a whole answer, paid for.

        Raises:
            Failed: There is none.
        """
        content = self._content(body, streams=False)
        lost = guess_tokens(len(content)), lost_tokens(body, endpoint)
        connection = await self._send(exchange, endpoint, content, lost, streams=False)
        answer = connection.content()
        self.release(connection)
        value = parse_answer(answer, endpoint)
        if value is None:
            self.charge(exchange, lost[0], max(lost[1], guess_tokens(len(answer))), is_estimated=True)
            exchange.fail(self.name)
            refused = upstream_failed(f"upstream {self.name} did not answer in OpenAI's format", "upstream_garbage")
            raise self._count(Failed(refused, "garbage", is_illness=True))
        self.breaker.succeed()
        self._metrics.attempted(self.name, "ok")
        usage = usage_of(value, has_text=endpoint in ("chat", "completions") and has_said(value))
        counts = usage or (lost[0], guess_tokens(len(answer)))
        self.charge(exchange, *counts, is_estimated=usage is None)
        return Answer(value, answer, self.model, self.name, *counts)

    async def open(self, exchange: Exchange, endpoint: str, body: Body) -> tuple[Connection, int]:
        """Return a connection whose streamed answer has begun, and the size of the request in bytes.

        `release` must follow, and `charge`.

        Raises:
            Failed: No stream began.
        """
        content = self._content(body, streams=True)
        lost = guess_tokens(len(content)), 1
        return await self._send(exchange, endpoint, content, lost, streams=True), len(content)

    def charge(self, exchange: Exchange, prompt: int, completion: int, *, is_estimated: bool) -> None:
        """Pay for an attempt."""
        usd = self.cost(prompt, completion)
        exchange.charge(self.model, usd, prompt, completion, is_estimated=is_estimated)

    def release(self, connection: Connection) -> None:
        """Take back a connection and its place."""
        self._pool.give(connection)
        self.admission.leave()

    def ended(self, outcome: str) -> None:
        """Report how a stream ended: `ok`, `gone` (the client left), or what went wrong."""
        self._metrics.attempted(self.name, outcome)
        if outcome == "ok":
            self.breaker.succeed()
        elif outcome == "gone":
            self.breaker.withdraw()
        else:
            self.breaker.fail()

    @property
    def is_ill(self) -> bool:
        """Tell whether nothing would be sent to it now."""
        return self.is_starting or self.breaker.state == "open"

    def close(self) -> None:
        """Close idle connections; those at work close when they are done."""
        self._pool.close()

    def _build_heads(self) -> dict[str, bytes]:
        rest = self.url.partition("://")[2]
        host, slash, path = rest.partition("/")
        secret = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        fixed = f"Host: {host}\r\n{secret}Content-Type: application/json\r\nAccept-Encoding: identity\r\n"
        if isinstance(self.declared, MlflowUpstream):
            return {"predict": f"POST {slash}{path} HTTP/1.1\r\n{fixed}".encode("latin-1")}
        return {
            endpoint: f"POST {slash}{path}{tail} HTTP/1.1\r\n{fixed}".encode("latin-1")
            for endpoint, tail in PATHS.items()
        }

    def _content(self, body: Body, *, streams: bool) -> bytes:
        if isinstance(self.declared, MlflowUpstream):
            return orjson.dumps(body)
        drops = self._drops
        asked = {key: value for key, value in body.items() if key not in drops} if drops else body.copy()
        asked["model"] = self.model
        if streams:
            asked["stream"] = True
            if "stream_options" not in drops:
                asked["stream_options"] = {"include_usage": True}
        else:
            asked.pop("stream", None)
            asked.pop("stream_options", None)
        return orjson.dumps(asked)

    async def _send(
        self, exchange: Exchange, endpoint: str, content: bytes, lost: tuple[int, int], *, streams: bool
    ) -> Connection:
        """Send a request, more than once where that is safe, and return the connection with a status of 2xx.

        `lost` is what is paid, in tokens, for an attempt that worked and whose answer did not come.
        """
        head = self._heads.get(endpoint)
        if head is None:
            raise Failed(
                invalid(f"the model behind this route does not take {endpoint} requests", param="model"),
                "refused",
                is_clients_fault=True,
            )
        parts = head, exchange.id.encode(), len(content), content
        data = b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % parts
        retries = self.declared.retries
        n_left, pause = retries.attempts, retries.backoff_s
        while True:
            n_left -= 1
            try:
                return await self._attempt(exchange, data, lost, streams)
            except Failed as failed:
                note = exchange.reject if failed.is_clients_fault else exchange.fail
                note(self.name)
                if failed.wait_s is None or n_left <= 0 or failed.wait_s > retries.max_backoff_s:
                    raise
                # Full jitter: clients that failed together do not come back together.
                wait_s = max(failed.wait_s, random.uniform(0, min(pause, retries.max_backoff_s)))  # noqa: S311
            await asyncio.sleep(wait_s)
            pause *= 2

    async def _attempt(self, exchange: Exchange, data: bytes, lost: tuple[int, int], streams: bool) -> Connection:
        exchange.upstream, exchange.model = self.name, self.model
        if self.is_starting:
            self._metrics.attempted(self.name, "open")
            raise Failed(unavailable(f"upstream {self.name} is starting", "upstream_starting"), "open")
        try:
            await self.admission.enter()
        except Refused as refused:
            self._metrics.attempted(self.name, "busy")
            raise Failed(refused, "busy") from None
        connection = None
        try:
            if not self.breaker.allows():
                self._metrics.attempted(self.name, "open")
                wait_s = max(1, round(self.breaker.retry_after_s()))
                message = f"upstream {self.name} failed too often and is left alone for a while"
                raise Failed(unavailable(message, "upstream_unavailable", retry_after_s=wait_s), "open")
            exchange.n_attempts += 1
            connection = await self._pool.take()
            try:
                await connection.send(data, streams=streams)
            except Broken as broken:
                if broken.cause != "stale":
                    raise
                connection = await self._pool.take(fresh=True)
                await connection.send(data, streams=streams)
            if 200 <= connection.status < 300:
                return connection
            raise self._count(of_status(self.name, connection, self._key))
        except Broken as broken:
            self._give_up(connection)
            if broken.cause != "connect":  # it may have worked, and charge for it
                self.charge(exchange, *lost, is_estimated=True)
            raise self._count(of_connection(self.name, broken)) from None
        except Failed:
            self._give_up(connection)
            raise
        except BaseException:  # the client left
            self._give_up(connection)
            self.breaker.withdraw()  # a trial that nobody saw the end of
            if connection is not None:
                self._metrics.attempted(self.name, "gone")
                self.charge(exchange, *lost, is_estimated=True)
            raise

    def _give_up(self, connection: Connection | None) -> None:
        if connection is not None:
            self._pool.give(connection)
        self.admission.leave()

    def _count(self, failed: Failed) -> Failed:
        self._metrics.attempted(self.name, failed.outcome)
        if failed.is_illness:
            self.breaker.fail()
        else:
            self.breaker.succeed()
        return failed
