"""uvicorn's HTTP/1.1 protocol with what it lacks: limits on headers and slow clients, word of a client that left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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


class JoiningTransport:
    """A transport that sends an answer's head together with the first piece of its body: one system call, not two."""

    __slots__ = ("_head", "_transport", "close", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing
        self.close = transport.close

    def write(self, data: bytes) -> None:
        """Write; a head waits for what follows it at once."""
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        else:
            self._transport.write(data)


class GatewayProtocol(HttpToolsProtocol):
    """One client's connection. Its timers run only while the client owes something."""

    slowness: Slowness

    def connection_made(self, transport: Any) -> None:
        """A client has come, and owes headers."""
        super().connection_made(transport)
        self._line = Line()
        self._owes: str = "headers"
        self._n_loose_bytes = 0  # of headers, trailers and chunks' heads, since a body's last byte
        self._write_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = self.loop.call_later(self.slowness.header_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a whole request in one piece sets no timer."""
        self._n_loose_bytes += len(data)
        self._unset_keepalive_if_required()
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
        super().on_headers_complete()
        self.headers = NOWHERE  # trailers are not kept
        if self.scope["method"] != "HEAD":  # whose head nothing follows
            self.cycle.transport = JoiningTransport(self.transport)  # type: ignore[assignment]

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
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._line.on_gone is not None:
            self._line.on_gone()
        super().connection_lost(exc)

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
