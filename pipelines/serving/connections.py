"""One connection to an upstream, HTTP/1.1 on httptools: a fraction of a general client's cost.

Whatever goes wrong is a `Broken` that says how far the request had come, because that decides what may be asked again
and what must be paid for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal, NamedTuple, cast

import httptools

HIGH_WATER_BYTES = 262_144
"""A client that reads slowly: the upstream is not read on while more than this waits."""
STALE_S = 1.0
MOST_HEADERS = 200
MOST_HEADER_BYTES = 65_536

Cause = Literal["connect", "stale", "reset", "timeout", "garbage", "too_large"]


class Broken(Exception):
    """No whole answer.

    Attributes:
        cause: `connect`: the request never left. `stale`: a kept connection was being closed, no byte came back.
            `reset`: it ended in the middle. `timeout`, `garbage` (no HTTP), `too_large`.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Timeouts(NamedTuple):
    """Seconds; see `UpstreamLimits`."""

    connect: float
    first_byte: float
    idle: float
    total: float


class Connection(asyncio.Protocol):
    """One connection; answers one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, most_bytes: int) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None  # goes on from one request to the next
        self._timer_due = 0.0
        self._is_asked = False
        self._waiter: asyncio.Future[None] | None = None
        self.is_open = False
        self.is_reused = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._n_header_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._n_bytes = self._n_waiting = 0
        self._has_head = self.is_done = self._streams = self._is_paused = False
        self._error: Broken | None = None

    # --- what the pool and upstreams call

    async def send(self, data: bytes, *, streams: bool) -> None:
        """Send a request and wait for the whole answer, or (`streams`, and the status is 200) for its head.

        Raises:
            Broken: It did not come.
        """
        assert self._transport is not None
        if self.is_reused:
            self._begin()
        self._streams = streams
        now = self._loop.time()
        self._sent_at, self._total_due = now, now + self._timeouts.total
        self._due = now + min(self._timeouts.first_byte, self._timeouts.total)
        self._is_asked = True
        self._watch()
        self._transport.write(data)
        await self._wait()

    def content(self) -> bytes:
        """Return the whole body after `send`."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def piece(self) -> bytes:
        """Return the next bytes of a streamed body, b"" after the last.

        Raises:
            Broken: It broke off; what came before has been returned.
        """
        while not self._pieces:
            if self.is_done:
                return b""
            await self._wait()
        piece = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._n_waiting = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._due = min(self._loop.time() + self._timeouts.idle, self._total_due)
            self._watch()
            self._transport.resume_reading()
        return piece

    def abort(self) -> None:
        """End the connection at once: the upstream sees that nobody waits any more."""
        self.is_open = self._is_asked = False
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- what the loop and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self._is_asked:
            self._fail("garbage", "sent bytes that nobody asked for")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("garbage", "does not speak HTTP")

    def eof_received(self) -> bool:
        """The other side says no more; close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self.is_open = False
        self._stop_timer()
        if not self._is_asked:
            return
        if self._has_head and b"content-length" not in self.headers and b"transfer-encoding" not in self.headers:
            self.on_message_complete()  # a body without a length ends with its connection
        elif self.is_reused and not self.status and self._loop.time() - self._sent_at < STALE_S:
            self._fail("stale", "closed a kept connection")
        else:
            self._fail("reset", "closed the connection before the answer was whole")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        self._n_header_bytes += len(name) + len(value)
        if len(self.headers) >= MOST_HEADERS or self._n_header_bytes > MOST_HEADER_BYTES:
            self._fail("garbage", "sends headers without end")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._has_head = True
        self._due = self._total_due
        if self._streams and self.status == 200:
            self._due = min(self._loop.time() + self._timeouts.idle, self._total_due)
            # The timer may be set later than the idle limit allows.
            self._watch()
            self._wake()
        else:
            self._streams = False

    def on_body(self, data: bytes) -> None:
        """A piece of the body came."""
        self._pieces.append(data)
        self._n_bytes += len(data)
        if self._n_bytes > self._most_bytes:
            self._fail("too_large", "answers without end")
        if self._streams:
            self._n_waiting += len(data)
            self._due = min(self._loop.time() + self._timeouts.idle, self._total_due)
            if self._n_waiting > HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
                self._is_paused = True
                self._due = self._total_due
                self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.status < 200 and not self._has_head:  # 100 Continue, 103 Early Hints
            self.headers.clear()
            return
        self.is_done = True
        self._is_asked = False
        if self.is_open and not self._parser.should_keep_alive():
            self.abort()
        self._wake()

    def _on_timer(self) -> None:
        self._timer = None
        if not self._is_asked:
            return
        if self._loop.time() < self._due:
            self._watch()
        else:
            self._fail("timeout", "did not answer in time")

    def _watch(self) -> None:
        """See to it that the timer rings when the answer is due; one that rings earlier looks and is set anew."""
        if self._is_asked and (self._timer is None or self._timer_due > self._due):
            self._stop_timer()
            self._timer_due = self._due
            self._timer = self._loop.call_at(self._due, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, cause: Cause, message: str) -> None:
        if self._error is None and not self.is_done:
            self._error = Broken(cause, message)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(self._error)
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
