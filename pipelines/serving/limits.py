"""How much may be under way at once, and how much of a request is read."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from pipelines.serving.errors import Refused, busy, invalid

Receive = Callable[[], Awaitable[Any]]
MOST_DISCARDED_BYTES = 268_435_456
"""A body that is too large is read on and forgotten, up to here: who still writes would not see the answer."""


class Admission:
    """A bounded queue before a bounded number of places; first come, first served.

    Args:
        what: Named in the refusal.
        max_active: Places.
        max_queued: Who comes while so many wait is refused at once.
        timeout_s: Who waits longer is refused.
    """

    def __init__(self, what: str, max_active: int, max_queued: int, timeout_s: float) -> None:
        self.what = what
        self.max_active = max_active
        self.max_queued = max_queued
        self.timeout_s = timeout_s
        self.n_active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left_at = 0.0
        self._interval_s = 0.0

    @property
    def n_queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Take a place; `leave` must follow.

        Raises:
            Refused: 429 with Retry-After.
        """
        if self.n_active < self.max_active and not self._waiting:
            self.n_active += 1
            return
        if len(self._waiting) >= self.max_queued:
            raise busy(self.what, self.retry_after_s())
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._left_at = loop.time()  # how fast places come free is known only while somebody waits
        place = loop.create_future()
        self._waiting.append(place)
        timer = loop.call_later(self.timeout_s, self._give_up, place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # the place was given in the moment in which its taker went away
            elif place in self._waiting:
                self._waiting.remove(place)
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give the place to who waits longest."""
        self.n_active -= 1
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        self._interval_s += 0.2 * (min(now - self._left_at, 60.0) - self._interval_s)
        self._left_at = now
        self._fill()

    def retry_after_s(self) -> int:
        """Return in how many seconds the queue will probably be through, 1 to 60."""
        return min(60, max(1, math.ceil(self._interval_s * (len(self._waiting) + 1))))

    def resize(self, max_active: int, max_queued: int, timeout_s: float) -> None:
        """Take over new limits; nobody who is in is sent away."""
        self.max_active, self.max_queued, self.timeout_s = max_active, max_queued, timeout_s
        self._fill()

    def _fill(self) -> None:
        while self._waiting and self.n_active < self.max_active:
            place = self._waiting.popleft()
            if not place.done():
                self.n_active += 1
                place.set_result(None)

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if not place.done():
            if place in self._waiting:
                self._waiting.remove(place)
            place.set_exception(busy(self.what, self.retry_after_s()))


class Bodies:
    """Reads request bodies, never holding more than so much of all of them together."""

    def __init__(self, max_body_bytes: int, max_buffered_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.max_buffered_bytes = max_buffered_bytes
        self.n_bytes = 0

    async def read(self, receive: Receive, declared: int | None) -> bytes:
        """Return the body; `release(len(body))` must follow.

        Args:
            receive: ASGI's.
            declared: Content-Length, or None.

        Raises:
            Refused: 413 where it is too large; 429 where all bodies together are.
            asyncio.CancelledError: The client left.
        """
        if declared is not None and declared > self.max_body_bytes:
            raise await self._discard(receive, declared)
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            self.n_bytes += len(body)
            return body
        return await self._read_on(receive, body)

    def release(self, n_bytes: int) -> None:
        """Forget a body."""
        self.n_bytes -= n_bytes

    async def _read_on(self, receive: Receive, first: bytes) -> bytes:
        pieces, n_read = [first], len(first)
        self.n_bytes += n_read
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise asyncio.CancelledError
                piece = message.get("body", b"")
                pieces.append(piece)
                n_read += len(piece)
                self.n_bytes += len(piece)
                if n_read > self.max_body_bytes:
                    raise await self._discard(receive, None)
                if self.n_bytes > self.max_buffered_bytes:
                    raise busy("the memory for request bodies", 5)
                if not message.get("more_body"):
                    return b"".join(pieces)
        except BaseException:
            self.n_bytes -= n_read
            raise

    async def _discard(self, receive: Receive, declared: int | None) -> Refused:
        n_read = 0
        if declared is None or declared <= MOST_DISCARDED_BYTES:
            while n_read <= MOST_DISCARDED_BYTES:
                message = await receive()
                n_read += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
        refused = invalid(
            f"the body is larger than {self.max_body_bytes:,} bytes", code="request_too_large", status=413
        )
        refused.closes = True
        return refused
