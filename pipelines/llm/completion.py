"""Read a chat completion from a server that may send anything: whole or streamed, cut off, garbage, without end."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

# A streamed token costs a few hundred bytes of JSON; reasoning text and log probabilities up to some thousand.
BYTES_PER_TOKEN = 4096
BYTES_AT_LEAST = 1 << 20
MOST_TOKENS = 1_000_000_000


class BrokenCompletion(Exception):
    """What the server sent is not a complete chat completion; asking again may help."""


class TooLarge(BrokenCompletion):
    """The server goes on far beyond the allowed tokens; asking again would cost the same and not help."""


class Completion(NamedTuple):
    """What a server answered.

    Attributes:
        text: The content, or the refusal where that is all there is; may be empty.
        finish_reason: As the server says it, or `unknown`.
        prompt_tokens: As the server says it, or None.
        completion_tokens: As the server says it, or None.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


class CompletionReader:
    """Takes a response body piece by piece; whether it is streamed is seen from its first byte, not from headers.

    Args:
        max_tokens: Longest answer that was asked for; the body's size is bounded by it.
    """

    def __init__(self, max_tokens: int) -> None:
        self._room = BYTES_AT_LEAST + BYTES_PER_TOKEN * max_tokens
        self._buffer = b""
        self._is_streamed: bool | None = None
        self._is_done = False
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._finish_reason = ""
        self._has_choice = False
        self._usage: Any = None
        self._start = b""

    def feed(self, piece: bytes) -> bool:
        """Take the next bytes.

        Returns:
            Whether any text of the answer has arrived so far.

        Raises:
            BrokenCompletion: A streamed event is not one; or the body is larger than any honest one.
        """
        self._room -= len(piece)
        if self._room < 0:
            raise TooLarge("the answer is far larger than max_tokens allows")
        self._buffer += piece
        if self._is_streamed is None and (start := self._buffer.lstrip()):
            self._is_streamed = not start.startswith(b"{")
            self._start = start[:40]
        if self._is_streamed:
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                self._take_line(line)
        return any(self._content) or any(self._refusal)

    def finish(self) -> Completion:
        """Return the answer once the body has ended.

        Raises:
            BrokenCompletion: The body ended too early, or is not a chat completion.
        """
        if self._is_streamed:
            self._take_line(self._buffer)
            if not self._is_done and not self._finish_reason:
                shown = "" if self._has_choice else f" (the body starts with {self._start!r})"
                raise BrokenCompletion(f"the body ended before the answer did{shown}")
        else:
            if not self._buffer.strip():
                raise BrokenCompletion("the body is empty")
            self._take_value(_parse(self._buffer), part="message")
        if not self._has_choice:
            raise BrokenCompletion("the answer has no choices")
        usage = self._usage if isinstance(self._usage, dict) else {}
        text = _joined(self._content) or _joined(self._refusal)
        return Completion(
            text, self._finish_reason or "unknown", _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        )

    def _take_line(self, line: bytes) -> None:
        line = line.strip()
        if self._is_done or not line.startswith(b"data:"):
            return  # comments, event names and ids carry no text
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            self._is_done = True
        elif data:
            self._take_value(_parse(data), part="delta")

    def _take_value(self, value: Any, *, part: str) -> None:
        if not isinstance(value, dict):
            raise BrokenCompletion(f"a JSON object is needed, found {type(value).__name__}")
        if value.get("error"):
            raise BrokenCompletion(f"the server reports an error: {_message(value['error'])}")
        if value.get("usage") is not None:
            self._usage = value["usage"]
        choices = value.get("choices")
        if not isinstance(choices, list) or not choices:
            return
        choice = choices[0]
        body = choice.get(part) if isinstance(choice, dict) else None
        if not isinstance(body, dict | None) or not isinstance(choice, dict):
            raise BrokenCompletion(f"choices[0].{part} is not an object")
        if body is not None:
            self._has_choice = True
            self._content.append(_text(body, "content"))
            self._refusal.append(_text(body, "refusal"))
        if isinstance(choice.get("finish_reason"), str):
            self._finish_reason = choice["finish_reason"][:40]


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        raise BrokenCompletion("the body is not UTF-8") from None
    except (ValueError, RecursionError):
        raise BrokenCompletion(f"the body is not whole JSON (it starts with {data[:40]!r})") from None


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BrokenCompletion(f"{key} is not text but {type(value).__name__}")
    return value


def _joined(parts: list[str]) -> str:
    # A character outside the 16-bit plane may be split over two pieces, one surrogate in each.
    return "".join(parts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _count(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if is_count else None


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:200]
