"""uvicorn's HTTP/1.1 protocol with what it lacks: limits on headers and slow clients, word of a client that left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipelines.serving.cycle import Cycle


class Slowness(NamedTuple):
    """What a client may take its time for, in seconds, and how large its headers may be, in bytes."""

    header_s: float
    read_s: float
    write_s: float
    max_header_bytes: int


class Line:
    """A client's connection, as a request sees it.

    Attributes:
        on_gone: Called when the connection ends before the answer did, or the request did not arrive in time.
        why: 408 where the latter is the reason.
    """

    __slots__ = ("on_gone", "why")

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.why = 0


class Nowhere(list[tuple[bytes, bytes]]):
    """A list that keeps nothing."""

    def append(self, item: tuple[bytes, bytes]) -> None:
        """Forget it."""


NOWHERE = Nowhere()


class GatewayProtocol(HttpToolsProtocol):
    """One client's connection. Its timers run only while the client owes something."""

    slowness: Slowness

    def connection_made(self, transport: Any) -> None:
        """A client has come, and owes headers."""
        super().connection_made(transport)
        self._line = Line()
        self._owes: str = "headers"
        self._idle_since = 0.0
        self._n_loose_bytes = 0  # of headers, trailers and chunks' heads, since a body's last byte
        self._write_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = self.loop.call_later(self.slowness.header_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a whole request in one piece sets no timer."""
        self._n_loose_bytes += len(data)
        self._feed(data)
        if self._owes and self._n_loose_bytes > self.slowness.max_header_bytes:
            self._too_large()
        elif self._owes and self._read_timer is None and not self.transport.is_closing():
            wait_s = self.slowness.header_s if self._owes == "headers" else self.slowness.read_s
            self._read_timer = self.loop.call_later(wait_s, self._too_slow)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["gatehouse.line"] = self._line  # type: ignore[typeddict-unknown-key]
        self._owes = "headers"

    def on_headers_complete(self) -> None:
        """Its headers are there; a body may follow."""
        if self.parser.should_upgrade():
            return  # they come once more, without the offer
        self._owes = "body"
        self._n_loose_bytes = 0
        self._stop_read_timer()
        self._begin_answer()
        self.headers = NOWHERE  # trailers are not kept

    def on_body(self, body: bytes) -> None:
        """A piece of it; what is no such piece while one is owed counts as headers do."""
        self._n_loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is there."""
        if self.parser.should_upgrade():
            return
        self._owes = ""
        self._n_loose_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_read_timer()
        self._unset_keepalive_if_required()
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._line.on_gone is not None:
            self._line.on_gone()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """An answer has left; the next request may begin. The timer of the connection is set once, not for each."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for long enough."""
        self.timeout_keep_alive_task = None
        if self._owes or not self.cycle.response_complete or self.transport.is_closing():
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._wait_for_next(left_s)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.slowness.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _wait_for_next(self, wait_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def _begin_answer(self) -> None:
        """Do what uvicorn does here, with our own cycle."""
        scope, version, before = self.scope, self.parser.get_http_version(), self.cycle
        scope["method"], scope["http_version"] = self.parser.get_method().decode("ascii"), version
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"], scope["raw_path"] = unquote(path) if "%" in path else path, url.path
        scope["query_string"] = url.query or b""
        self.cycle = Cycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            version != "1.0" and self.parser.should_keep_alive(),
            self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # the client does not wait for one answer before it asks again
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:  # it leaves the body alone
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("")
                    return
                data = self._without_offer() + data[stopped.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")
                return

    def _without_offer(self) -> bytes:
        """Return the head of a request that offers another protocol (h2c, as Java's client does) without the offer."""
        lines = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                lines.append(b"%b: %b\r\n" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join(lines) + b"\r\n"

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _too_slow(self) -> None:
        self._read_timer = None
        if self._owes == "headers":
            self._end(408, "request_timeout", "the request did not arrive in time")
        elif self._owes == "body" and self._line.on_gone is not None:
            self._line.why = 408
            self._line.on_gone()
        else:  # it was answered (401, 413) and goes on sending
            self.transport.close()

    def _too_large(self) -> None:
        if self._owes == "body" and self.cycle.response_started:  # a second answer would be taken for another's
            self.transport.close()
        else:
            self._end(431, "headers_too_large", "the headers are too large")

    def _end(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        content = orjson.dumps({"error": error})
        self.transport.write(
            b"HTTP/1.1 %d Error\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status, len(content), content)
        )
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the one format of errors too."""
        self._end(400, "invalid_http", "this is not HTTP/1.1")
