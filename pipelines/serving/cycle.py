"""One request's answer on its connection: uvicorn's, at a fraction of the cost, the head together with the body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

LAST_CHUNK = b"0\r\n\r\n"


class Cycle(RequestResponseCycle):
    """Sends what the gateway answers: names of headers are the gateway's own, in lower case; values are checked."""

    _head = b""

    async def send(self, message: Any) -> None:
        """Take the head, which waits, or a piece of the body, which leaves with it in one system call.

        Raises:
            RuntimeError: The answer is none of HTTP: a header with a line break, a body of another length.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._build_head(message["status"], message["headers"])
        elif self.response_complete:
            raise RuntimeError("the answer has already ended")
        else:
            self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))

    def _build_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        parts = [STATUS_LINE[status]]
        self.chunked_encoding = status not in (204, 304) and self.scope["method"] != "HEAD"
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            parts += (name, b": ", value, b"\r\n")
        if HEADER_VALUE_RE.search(b"".join(parts[3::4])):
            raise RuntimeError("a header's value is none of HTTP")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _send_body(self, body: bytes, *, is_last: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if is_last:
                body += LAST_CHUNK
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (is_last and self.expected_content_length):
                raise RuntimeError("the body is not as long as its header says")
        self.transport.write(head + body if head else body)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
