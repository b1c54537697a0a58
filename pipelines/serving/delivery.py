"""What is sent to the client: heads, bodies, events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pipelines.serving.errors import Refused
from pipelines.serving.exchange import Exchange

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON: Header = (b"content-type", b"application/json")
EVENTS: Header = (b"content-type", b"text/event-stream; charset=utf-8")


class Delivery:
    """Sends the answer to one request.

    Args:
        exchange: What is known of it: its id, variant, model and cache become headers.
        send: ASGI's.
        closes: The connection ends with this answer.

    Attributes:
        has_started: The status has been sent; it cannot change any more.
    """

    __slots__ = ("_closes", "_exchange", "_is_open", "_send", "has_started")

    def __init__(self, exchange: Exchange, send: Send, *, closes: bool) -> None:
        self._exchange = exchange
        self._send = send
        self._closes = closes
        self.has_started = self._is_open = False

    async def answer(self, kind: Header, content: bytes) -> None:
        """Send a whole answer."""
        await self._whole(200, [kind, *self._describe()], content)

    async def refuse(self, refused: Refused) -> None:
        """Send an error; a stream that has begun ends with it."""
        if not self.has_started:
            await self._whole(refused.status, [JSON, *refused.headers()], refused.content())
        elif self._is_open:
            await self.write(b"data: %b\n\n" % refused.content(), is_last=True)

    async def write(self, data: bytes, is_last: bool) -> None:
        """Send a piece of a stream; the first brings the head with it."""
        if not self.has_started:
            await self._start(200, [EVENTS, (b"cache-control", b"no-cache"), *self._describe()])
        self._is_open = not is_last
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _whole(self, status: int, headers: list[Header], content: bytes) -> None:
        headers.append((b"content-length", b"%d" % len(content)))
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": content})

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.has_started = True
        headers.append((b"x-request-id", self._exchange.id.encode()))
        if self._closes:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _describe(self) -> list[Header]:
        exchange = self._exchange
        return [
            (b"x-gatehouse-variant", exchange.variant.encode()),
            (b"x-gatehouse-model", exchange.model.encode("latin-1", "replace")),
            (b"x-gatehouse-cache", exchange.cache.encode()),
        ]
