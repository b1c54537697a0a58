"""A real OpenAI-compatible server process, which answers, counts, and fails as it is told to.

`python -m tests.serving.upstreams` prints its port. `POST /script` takes a list of replies, each used for one request;
after the last one it answers `ok`. `GET /seen` says what came. The fields of a reply are those of `Reply`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Reply:
    """What is done with one request.

    Attributes:
        text: The answer; null says what the user said.
        status: From 400 on the body is an error whose message is `text`.
        headers: Further response headers.
        pieces: Deltas of a streamed answer; by default one per word.
        usage: Sent at all.
        counts: Prompt and completion tokens.
        calls: Tool calls.
        raw: Sent as the body instead of a proper one.
        delay_s: Before the first byte.
        piece_delay_s: Before each delta.
        reset_after: Reset the connection after so many deltas, or (not streamed) in the middle of the body.
        ends_early: End a streamed body properly after so many deltas.
        has_done: Whether a stream ends with [DONE].
        hangs: Never answer.
        dies: Kill the process in the middle of the answer.
        times: For so many requests.
    """

    text: str | None = "ok"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[str] | None = None
    usage: bool = True
    counts: tuple[int, int] = (10, 5)
    calls: list[dict[str, Any]] | None = None
    finish_reason: str = "stop"
    raw: str | None = None
    delay_s: float = 0.0
    piece_delay_s: float = 0.0
    reset_after: int | None = None
    ends_early: int | None = None
    has_done: bool = True
    hangs: bool = False
    dies: bool = False
    times: int = 1


class Stage:
    """What the server was told and what it saw."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.seen: list[dict[str, Any]] = []
        self.n_asked = self.n_open = self.most_open = self.n_left = self.n_connections = 0
        self.counts_only = False

    def next(self) -> Reply:
        if not self.script:
            return Reply()
        reply = self.script[0]
        reply.times -= 1
        if reply.times <= 0:
            self.script.pop(0)
        return reply


async def serve(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    stage.n_connections += 1
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines if line}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if path == "/script":
                if method == "POST":
                    stage.script = [Reply(**value) for value in json.loads(body)]
                await send(writer, 200, b"{}")
            elif path == "/seen":
                names = ("n_asked", "n_open", "most_open", "n_left", "n_connections", "seen")
                await send(writer, 200, json.dumps({name: getattr(stage, name) for name in names}).encode())
            elif path == "/health":
                await send(writer, 200, b"{}")
            else:
                await answer(stage, reader, writer, path, headers, body)
    writer.close()


async def answer(
    stage: Stage,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    value = json.loads(body)
    stage.n_asked += 1
    if len(stage.seen) < 1000:
        stage.seen.append({"path": path, "headers": headers, "body": value})
    reply = stage.next()
    stage.n_open += 1
    stage.most_open = max(stage.most_open, stage.n_open)
    watch = asyncio.ensure_future(left(reader, writer))
    work = asyncio.ensure_future(perform(reply, writer, path, value))
    done, _ = await asyncio.wait([watch, work], return_when=asyncio.FIRST_COMPLETED)
    stage.n_open -= 1
    if work not in done:
        stage.n_left += 1
    for task in (watch, work):
        task.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await task
    if work not in done:
        raise ConnectionResetError


async def left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Return when the client has closed its connection."""
    while not (reader.at_eof() or writer.transport.is_closing()):
        await asyncio.sleep(0.005)


async def perform(reply: Reply, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
    await asyncio.sleep(reply.delay_s)
    if reply.hangs:
        await asyncio.sleep(3600)
    text = said(body) if reply.text is None else reply.text
    if reply.status >= 400:
        error = {"error": {"message": text, "type": "error", "param": None, "code": "scripted"}}
        raw = reply.raw if reply.raw is not None else json.dumps(error)
        await send(writer, reply.status, raw.encode("latin-1"), reply.headers)
    elif reply.raw is not None:
        await send(writer, 200, reply.raw.encode("latin-1"), reply.headers)
    elif body.get("stream"):
        await stream(reply, writer, path, text)
    else:
        content = json.dumps(whole(reply, path, text)).encode()
        if reply.reset_after is not None or reply.dies:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            writer.write(head + content[: len(content) // 2])
            await end(reply, writer)
        await send(writer, 200, content, reply.headers)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"]) if "messages" in body else str(body.get("prompt", body.get("input")))


def usage(reply: Reply) -> dict[str, int]:
    prompt, completion = reply.counts
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def whole(reply: Reply, path: str, text: str) -> dict[str, Any]:
    if path.endswith("/invocations"):
        return {"predictions": [1, 0]}
    value: dict[str, Any] = {"id": "up-1", "created": 1, "model": "scripted"}
    if path.endswith("/embeddings"):
        value |= {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]}
    elif path.endswith("/chat/completions"):
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reply.calls:
            message |= {"content": None, "tool_calls": reply.calls}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.calls else reply.finish_reason}
        value |= {"object": "chat.completion", "choices": [choice]}
    else:
        choice = {"index": 0, "text": text, "finish_reason": reply.finish_reason}
        value |= {"object": "text_completion", "choices": [choice]}
    return value | ({"usage": usage(reply)} if reply.usage else {})


async def stream(reply: Reply, writer: asyncio.StreamWriter, path: str, text: str) -> None:
    is_chat = path.endswith("/chat/completions")
    pieces = reply.pieces if reply.pieces is not None else text.replace(" ", " \0").split("\0")
    base = {"id": "up-1", "created": 1, "model": "scripted"}
    base["object"] = "chat.completion.chunk" if is_chat else "text_completion"

    def event(part: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, **({"delta": part} if is_chat else {"text": part.get("content", "")})}
        return data({**base, "choices": [{**choice, "finish_reason": reason}]})

    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    if is_chat:
        chunk(writer, event({"role": "assistant", "content": ""}))
    for number, piece in enumerate(pieces):
        if reply.ends_early == number:
            writer.write(b"0\r\n\r\n")
            return
        if (reply.reset_after == number) or (reply.dies and number == len(pieces) // 2):
            await end(reply, writer)
        if reply.piece_delay_s:
            await asyncio.sleep(reply.piece_delay_s)
        chunk(writer, event({"content": piece}))
        await writer.drain()
    for place, call in enumerate(reply.calls or []):
        chunk(writer, event({"tool_calls": [{"index": place, **call}]}))
    chunk(writer, event({}, "tool_calls" if reply.calls else reply.finish_reason))
    if reply.usage:
        chunk(writer, data({**base, "choices": [], "usage": usage(reply)}))
    if reply.has_done:
        chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(content), content))


async def end(reply: Reply, writer: asyncio.StreamWriter) -> None:
    """Break the answer off: reset the connection, or die."""
    await writer.drain()
    await asyncio.sleep(0.05)  # a reset discards what is under way
    if reply.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


async def send(
    writer: asyncio.StreamWriter, status: int, content: bytes, headers: dict[str, str] | None = None
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{lines}\r\n"
    writer.write(head.encode("latin-1") + content)
    await writer.drain()


class Upstreams:
    """The process, for tests. It keeps its port when it is killed and started again."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.serving.upstreams", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *replies: dict[str, Any]) -> None:
        """Say what the next requests are answered with, and forget what was seen."""
        data = json.dumps(replies).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/script", data, timeout=5).close()

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=5) as answer:
            value: dict[str, Any] = json.load(answer)
            return value

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    stage = Stage()
    server = await asyncio.start_server(
        lambda reader, writer: serve(stage, reader, writer), "127.0.0.1", parser.parse_args().port, limit=1 << 26
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
