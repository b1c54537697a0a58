"""Requests as they come in: JSON that is what its endpoint needs, or a refusal that quotes nothing of it."""

from __future__ import annotations

import orjson

from pipelines.serving.errors import invalid
from pipelines.serving.parts import Body

NEEDED = {"chat": "messages", "completions": "prompt", "embeddings": "input"}

MOST_LEVELS = 250
"""More than orjson writes of what it reads; only where there are as many brackets is it asked."""


def parse(content: bytes, endpoint: str) -> Body:
    """Return a request's JSON object.

    Raises:
        Refused: It is none, or lacks what the endpoint needs; the message quotes nothing of it.
    """
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
    if content.count(b"[") + content.count(b"{") > MOST_LEVELS:
        _refuse_deep(body)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
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
