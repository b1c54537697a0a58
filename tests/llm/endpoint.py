"""A real OpenAI-compatible server on this machine, which answers, bills, and fails as it is told to."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        text: The answer.
        status: HTTP status; from 400 on the body is an OpenAI error whose message is `text`.
        headers: Further response headers.
        pieces: Deltas of a streamed answer; by default one per word.
        usage: (prompt tokens, completion tokens); None leaves usage out, "count" counts words.
        raw: Sent as the body instead of a proper one.
        content_type: Overrides the Content-Type.
        delay_s: Before the first byte.
        piece_delay_s: Before each delta.
        reset_after: Reset the connection after so many bytes of the body.
        ends_early: End a streamed body properly after so many deltas, without finish_reason and [DONE].
        drops: Close the kept connection after this answer without saying so.
    """

    text: str = "ok"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[str | None] | None = None
    usage: tuple[int, int] | str | None = "count"
    finish_reason: str | None = "stop"
    raw: bytes | None = None
    content_type: str | None = None
    delay_s: float = 0.0
    piece_delay_s: float = 0.0
    reset_after: int | None = None
    ends_early: int | None = None
    drops: bool = False
    code: str | None = None


class Received(NamedTuple):
    """A request as it came in."""

    at: float
    headers: dict[str, str]
    body: Body


class StandIn:
    """The server. `respond` is called with the body and the number (from 0) of each request."""

    def __init__(self, respond: Callable[[Body, int], Reply] | None = None) -> None:
        self.respond = respond or (lambda body, number: Reply())
        self.received: list[Received] = []
        self.billed: list[tuple[int, int]] = []
        self.n_connections = 0
        self.n_open = 0
        self.most_open = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @classmethod
    def of(cls, *replies: Reply) -> StandIn:
        """Give these replies in order, then the last one for ever."""
        return cls(lambda body, number: replies[min(number, len(replies) - 1)])

    @property
    def url(self) -> str:
        """What a client takes as base_url."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: StandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of many tests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.owner.lock:
            self.server.owner.n_connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            number = len(owner.received)
            owner.received.append(Received(time.monotonic(), {k.lower(): v for k, v in self.headers.items()}, body))
            owner.n_open += 1
            owner.most_open = max(owner.most_open, owner.n_open)
        try:
            self._reply(owner.respond(body, number), body)
        finally:
            with owner.lock:
                owner.n_open -= 1

    def _reply(self, reply: Reply, body: Body) -> None:
        time.sleep(reply.delay_s)
        if reply.status >= 400:
            error = {"error": {"message": reply.text, "type": "error", "code": reply.code}}
            return self._send(
                reply, reply.raw if reply.raw is not None else json.dumps(error).encode(), "application/json"
            )
        counts = _count(reply, body)
        self.server.owner.billed.append(counts or (0, 0))
        if reply.raw is not None:
            return self._send(reply, reply.raw, "text/event-stream" if body.get("stream") else "application/json")
        if body.get("stream"):
            return self._stream(reply, counts)
        message = {"role": "assistant", "content": reply.text}
        value: Body = {"choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}]}
        if counts:
            value["usage"] = _usage(counts)
        return self._send(reply, json.dumps(value).encode(), "application/json")

    def _head(self, reply: Reply, content_type: str) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type or content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)

    def _send(self, reply: Reply, body: bytes, content_type: str) -> None:
        self._head(reply, content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if reply.reset_after is not None:
            self.wfile.write(body[: reply.reset_after])
            return self._reset()
        self.wfile.write(body)
        self.close_connection = reply.drops
        return None

    def _stream(self, reply: Reply, counts: tuple[int, int] | None) -> None:
        self._head(reply, "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = reply.pieces if reply.pieces is not None else reply.text.replace(" ", " \0").split("\0")
        events: list[Body] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
        events += [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        if reply.ends_early is not None:
            events = events[: reply.ends_early + 1]
        else:
            events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]})
            if counts:
                events.append({"choices": [], "usage": _usage(counts)})
        n_sent = 0
        for event in events:
            time.sleep(reply.piece_delay_s)
            line = f"data: {json.dumps(event)}\n\n".encode()
            self._chunk(line)
            n_sent += len(line)
            if reply.reset_after is not None and n_sent >= reply.reset_after:
                return self._reset()
        if reply.ends_early is None:
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")
        self.close_connection = reply.drops
        return None

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _reset(self) -> None:
        self.wfile.flush()
        time.sleep(0.05)  # let the client read what was sent: a reset discards what is under way
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


def _count(reply: Reply, body: Body) -> tuple[int, int] | None:
    if isinstance(reply.usage, tuple) or reply.usage is None:
        return reply.usage
    n_prompt = sum(len(message["content"].split()) for message in body["messages"])
    return n_prompt, len(reply.text.split())


def _usage(counts: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
