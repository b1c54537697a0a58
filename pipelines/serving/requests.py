"""Requests as they come in: JSON that is what its endpoint needs, or a refusal that quotes nothing of it."""

from __future__ import annotations

from typing import Any

import orjson

from pipelines.serving.errors import Refused, invalid
from pipelines.serving.parts import Body

MOST_VALUES = 400_000
"""Values in a body; token numbers for an embedding are the largest part of the largest ones."""
MOST_CONTAINERS = 10_000
"""Objects and lists in a body: messages, their parts, tools. Each costs memory and a look of every rule."""
MOST_BRACKETS = 100_000
"""Brackets that a large body may hold before it is parsed; a text may be full of them, but not of that many."""
LARGE_BYTES = 262_144
NEEDED = {"chat": "messages", "completions": "prompt", "embeddings": "input"}

MOST_LEVELS = 250
"""More than orjson writes of what it reads; only where there are as many brackets is it asked."""


def parse(content: bytes, endpoint: str) -> Body:
    """Return a request's JSON object.

    Raises:
        Refused: It is none, or lacks what the endpoint needs; the message quotes nothing of it.
    """
    n_brackets = content.count(b"{") + content.count(b"[")
    if len(content) > LARGE_BYTES and n_brackets > MOST_BRACKETS:
        raise too_many_values()
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            content.decode()
        except UnicodeDecodeError:
            raise invalid("the body is not UTF-8", code="invalid_utf8") from None
        raise invalid(f"the body is not JSON (character {error.pos})", code="invalid_json") from None
    except RecursionError:
        raise invalid("the body is nested too deeply", code="invalid_json") from None
    if n_brackets > MOST_LEVELS:
        _refuse_deep(body)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    # Each value but the first has a comma or a bracket of its own before it: most bodies need not be walked through.
    if n_brackets > MOST_CONTAINERS or len(content) > 2 * MOST_VALUES:
        count(body)
    if body.get("chat_template") is not None:
        raise invalid("`chat_template` is not taken: the model's own is used", param="chat_template")
    needed = NEEDED.get(endpoint)
    if needed is not None and not body.get(needed):
        raise invalid(f"`{needed}` is missing or empty", param=needed, code="missing_required_parameter")
    if endpoint == "chat" and not isinstance(body["messages"], list):
        raise invalid("`messages` must be a list", param="messages")
    return body


def _refuse_deep(body: object) -> None:
    try:
        orjson.dumps([[[[body]]]])  # with what is put around it: caches, upstreams, rules
    except orjson.JSONEncodeError:
        raise invalid("the body is nested too deeply", code="invalid_json") from None


def count(body: Body) -> None:
    """Refuse a body of so many values that walking it would keep all other requests waiting.

    Raises:
        Refused: It has too many.
    """
    n_values = n_containers = 0
    todo: list[Any] = [body]
    while todo:
        value = todo.pop()
        parts = value.values() if value.__class__ is dict else value
        n_containers += 1
        n_values += len(parts)
        if n_containers + len(todo) > MOST_CONTAINERS or n_values > MOST_VALUES:
            raise too_many_values()
        todo.extend([part for part in parts if part.__class__ is dict or part.__class__ is list])


def too_many_values() -> Refused:
    """Return what a body of too many values is answered with."""
    message = f"the body holds more than {MOST_CONTAINERS:,} objects and lists, or {MOST_VALUES:,} values"
    return invalid(message, code="request_too_large", status=413)
