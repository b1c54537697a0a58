"""A gateway in this process, asked through ASGI, with parts that a test chooses; its upstream is a real process."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.serving.absent import NoLedger, no_parts
from pipelines.serving.app import Gateway
from pipelines.serving.config import load_serving
from pipelines.serving.logs import Log
from pipelines.serving.protocol import Line
from pipelines.serving.state import State
from tests.serving.gateway import KEY, Declared


def make(folder: Path, serving: Declared, **parts: Any) -> tuple[Gateway, NoLedger]:
    """Return a gateway and the ledger that keeps its rows."""
    (folder / "serving.yaml").write_text(json.dumps(serving, indent=1))
    ledger = parts.pop("ledger", NoLedger())
    state = State(load_serving(folder / "serving.yaml"), replace(no_parts(), ledger=ledger, **parts), root=folder)
    return Gateway(state, Log(requests=False)), ledger


async def pose(
    gateway: Gateway,
    body: Any,
    send: Callable[[Any], Awaitable[None]],
    path: str = "/v1/chat/completions",
    *,
    line: Line | None = None,
    key: str = KEY,
) -> None:
    """Ask once; every message of the answer goes to `send`, as it would to a client."""
    content = json.dumps(body).encode()
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", str(len(content)).encode())]

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    if line is not None:
        scope["gatehouse.line"] = line
    await gateway(scope, receive, send)


async def ask(
    gateway: Gateway, body: Any, path: str = "/v1/chat/completions", *, line: Line | None = None, key: str = KEY
) -> tuple[int, dict[str, str], bytes]:
    """Ask once; return status, headers and body; nothing where the client on the line left."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await pose(gateway, body, send, path, line=line, key=key)
    if line is not None and not sent:
        return 0, {}, b""
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1
    assert not sent[-1].get("more_body"), "the answer has no end"
    got = {name.decode(): value.decode() for name, value in starts[0]["headers"]}
    return starts[0]["status"], got, b"".join(message.get("body", b"") for message in sent)


def texts(stream: bytes) -> str:
    """Return all that a stream says."""
    found = ""
    for line in stream.split(b"\n\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                found += choice["delta"].get("content") or ""
    return found
