"""An OpenAI-compatible server that answers at once, always the same: what is left to measure is what stands before it.

    python -m benchmarks.gateway.upstream     prints its port

`GET /count` returns how many model calls came, `GET /delay/MS` has every later answer wait.
"""

from __future__ import annotations

import asyncio
import gc
import json

import uvloop

TEXT = "The parcel left our warehouse this morning and should reach you within two days."
BASE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small"}
USAGE = {"prompt_tokens": 24, "completion_tokens": 16, "total_tokens": 40}


def answered(content: bytes) -> bytes:
    """Return a whole HTTP response."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )


def chunk(value: object) -> bytes:
    """Return one event of a stream as an HTTP chunk."""
    data = b"data: %b\n\n" % (value.encode() if isinstance(value, str) else json.dumps(value).encode())
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta: dict[str, str], reason: str | None = None) -> bytes:
    """Return one delta of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return chunk({**BASE, "choices": [choice]})


WHOLE = answered(
    json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "small",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ).encode()
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = TEXT.split(" ")
FIRST = HEAD + event({"role": "assistant", "content": ""}) + event({"content": WORDS[0]})
REST = (
    b"".join(event({"content": f" {word}"}) for word in WORDS[1:])
    + event({}, "stop")
    + chunk({**BASE, "choices": [], "usage": USAGE})
    + chunk("[DONE]")
    + b"0\r\n\r\n"
)  # fmt: skip


class Counter:
    """What all connections share."""

    n_calls = 0
    delay_s = 0.0


class Answering(asyncio.Protocol):
    """One connection; requests come one after the other, each with a Content-Length or none."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Take what came and answer every request that is whole."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get "):
            self._transport.write(answered(self._page(head.split(b" ")[1])))
            return
        Counter.n_calls += 1
        is_stream = b'"stream":true' in body or b'"stream": true' in body
        if Counter.delay_s:
            asyncio.get_running_loop().call_later(Counter.delay_s, self._send, is_stream)
        else:
            self._send(is_stream)

    def _send(self, is_stream: bool) -> None:
        if not is_stream:
            self._transport.write(WHOLE)
            return
        self._transport.write(FIRST)
        asyncio.get_running_loop().call_soon(self._transport.write, REST)

    def _page(self, path: bytes) -> bytes:
        if path.startswith(b"/delay/"):
            Counter.delay_s = int(path.rpartition(b"/")[2]) / 1000
        return b'{"count": %d}' % Counter.n_calls


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=16_384)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
