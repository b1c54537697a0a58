"""What upstreams send, read with suspicion: whole answers, their token counts, and their errors."""

from __future__ import annotations

from typing import Any

import orjson

from pipelines.core.errors import one_line
from pipelines.llm.cost import BYTES_PER_TOKEN
from pipelines.serving.parts import Body

MOST_TOKENS = 1_000_000_000
SHOWN_CHARACTERS = 500
LOST_TOKENS = 512
"""What a lost answer is taken for, per choice, where the request does not say how long it may be."""
NO_TEXT = frozenset({"role", "type", "id", "index"})
"""Keys of a message or a delta whose values the model did not say."""


def parse_answer(content: bytes, endpoint: str) -> Body | None:
    """Return a whole answer as an object, or None if it is none of this endpoint's."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if endpoint == "predict":
        return value if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return None
    rows = value.get("data" if endpoint == "embeddings" else "choices")
    if not isinstance(rows, list) or not rows:
        return None
    if endpoint == "chat" and not all(isinstance(row, dict) and isinstance(row.get("message"), dict) for row in rows):
        return None
    if endpoint == "completions" and not all(
        isinstance(row, dict) and isinstance(row.get("text"), str) for row in rows
    ):
        return None
    return value


def usage_of(value: Body, *, has_text: bool) -> tuple[int, int] | None:
    """Return (prompt tokens, completion tokens) as the upstream says them, or None if it does not.

    No prompt is of 0 tokens, and no text: an upstream that says so has not counted.

    Args:
        value: The answer, or whatever holds its `usage`.
        has_text: The model said something.
    """
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if type(prompt) is not int or type(completion) is not int:
        return None
    if not (0 < prompt <= MOST_TOKENS and 0 <= completion <= MOST_TOKENS):
        return None
    return None if has_text and not completion else (prompt, completion)


def said_bytes(value: Any) -> int:
    """Return how many bytes of text a message or a delta holds at any depth: what the model said, as UTF-8."""
    waiting, n_bytes = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            n_bytes += len(one) if one.isascii() else len(one.encode("utf-8", "replace"))
        elif isinstance(one, dict):
            waiting.extend(part for key, part in one.items() if key not in NO_TEXT)
        elif isinstance(one, list):
            waiting.extend(one)
    return n_bytes


def has_said(answer: Body) -> bool:
    """Tell whether there is any text, or any call of a tool, in a whole answer's choices."""
    for choice in answer.get("choices", ()):
        message = choice.get("message") or choice.get("text")
        if isinstance(message, dict) and isinstance(message.get("content"), str) and message["content"]:
            return True  # as nearly always
        if said_bytes(message):
            return True
    return False


def lost_tokens(body: Body, endpoint: str) -> int:
    """Return the completion tokens to pay for an answer that was asked for and never came: as many as were allowed."""
    if endpoint not in ("chat", "completions"):
        return 0
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    n_choices = body.get("n")
    if type(most) is not int or most <= 0:
        most = LOST_TOKENS
    if type(n_choices) is not int or n_choices <= 0:
        n_choices = 1
    return min(most * n_choices, MOST_TOKENS)


def guess_tokens(n_bytes: int) -> int:
    """Return about how many tokens so many bytes of JSON are, at least 1, erring on the dear side."""
    return max(1, -(-n_bytes // BYTES_PER_TOKEN))


def texts_of(answer: Body) -> list[str]:
    """Return the texts of an answer's choices, those of tool calls not included."""
    texts = []
    for choice in answer.get("choices", ()):
        text = choice["message"].get("content") if "message" in choice else choice.get("text")
        texts.append(text if isinstance(text, str) else "")
    return texts


def is_cut_off(answer: Body) -> bool:
    """Tell whether any choice ended before it was complete."""
    return any(choice.get("finish_reason") not in ("stop", "tool_calls") for choice in answer.get("choices", ()))


def is_truncated(answer: Body) -> bool:
    """Tell whether any choice ended at the most tokens."""
    return any(choice.get("finish_reason") == "length" for choice in answer.get("choices", ()))


def error_message(content: bytes) -> str:
    """Return what an upstream's error body says, in one short line: OpenAI's format, FastAPI's, or text."""
    try:
        value: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    if isinstance(value, dict):
        value = value.get("error", value.get("detail", value.get("message", "")))
    if isinstance(value, dict):
        value = value.get("message", "")
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0].get("msg", "")
    return one_line(value, SHOWN_CHARACTERS) if isinstance(value, str) else ""


def error_field(content: bytes, key: str) -> str | None:
    """Return `param` or `code` of an error in OpenAI's format, or None."""
    try:
        value: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    found = error.get(key) if isinstance(error, dict) else None
    return one_line(found, 100) if isinstance(found, str) else None


def retry_after_s(headers: dict[bytes, bytes]) -> float | None:
    """Return the seconds of a Retry-After header; None where there is none, or a date."""
    try:
        value = float(headers[b"retry-after"])
    except (KeyError, ValueError):
        return None
    return value if 0 <= value <= 86_400 else None
