"""Requests as no well-behaved client would send them, over a bare socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple

from tests.serving.gateway import KEY

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello there"}]}


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def head(length: int, *, path: str = "/v1/chat/completions", key: str = KEY, more: str = "") -> bytes:
    lines = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n{more}\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}".encode()


def connect(port: int, timeout_s: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def post(port: int, body: Any, *, path: str = "/v1/chat/completions", key: str = KEY, more: str = "") -> Answered:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with connect(port) as sock:
        request = head(len(content), path=path, key=key, more="Connection: close\r\n" + more) + content
        with contextlib.suppress(ConnectionError):  # who is refused and sends on is cut off; the answer came before
            sock.sendall(request)
        return answer(sock)


def get(port: int, path: str) -> Answered:
    with connect(port) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return answer(sock)


def answer(sock: socket.socket) -> Answered:
    """Read until the connection ends."""
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    start, _, body = data.partition(b"\r\n\r\n")
    first, *lines = start.decode("latin-1").split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunk(body)
    return Answered(int(first.split()[1]) if first else 0, headers, body)


def unchunk(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return found


def until(condition: Any, timeout_s: float = 10.0) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.01)
