"""All texts of a request or an answer in one quick walk: nearly always no rule finds anything in them.

What is found here is at least what `texts.py` reads, by the same names; where that is not sure at once, nothing is
returned, and the careful reading decides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.serving.parts import Body
from pipelines.serving.texts import (
    APPLICATION,
    FILE,
    MEDIA,
    MOST_LEVELS,
    MOST_NAME_CHARACTERS,
    NAMES,
    PARAMETERS,
    READ,
    ROLES,
    SPELLED_OUT,
    TOKENS,
    is_odd,
)

USUAL = frozenset(
    {
        "role", "content", "type", "text", "name", "id", "tool_calls", "tool_call_id", "function", "arguments",
        "refusal", "description", "parameters", "properties", "required", "items", "index", "message",
        "finish_reason", "schema", "strict", "json_schema",
    }
)  # fmt: skip
"""Keys that are known not to be odd; the others are looked at."""
CAREFUL = FILE | MEDIA | SPELLED_OUT


class Texts(NamedTuple):
    """The texts of a request: by the application itself (system, developer, assistant), and by others."""

    application: list[str]
    others: list[str]


def of_request(body: Body) -> Texts | None:
    """Return every text of a request, or None where it has to be read with care."""
    found = Texts([], [])
    for key, value in body.items():
        kind = value.__class__
        if key in PARAMETERS or value is None:
            continue
        if key == "messages":
            if kind is not list or not _messages(value, found):
                return None
        elif kind is str:
            found.others.append(value)
        elif key in TOKENS:
            if kind is not list or not all(part.__class__ is str for part in value):
                return None
            found.others.extend(value)
        elif kind in READ and not _gather(value, found.others):
            return None
    return found


def of_answer(answer: Body) -> list[str] | None:
    """Return every text of an answer's choices, or of an answer without any; None where it has to be read with care."""
    choices, texts = answer.get("choices"), list[str]()
    return texts if _gather(choices if isinstance(choices, list) else answer, texts) else None


def _messages(messages: list[Any], found: Texts) -> bool:
    for message in messages:
        if message.__class__ is not dict:
            return False
        role = message.get("role")
        if role.__class__ is not str or role not in ROLES:
            return False
        if not _gather(message, found.application if role in APPLICATION else found.others):
            return False
    return True


def _gather(value: Any, texts: list[str]) -> bool:
    """Add every text of a value, level by level; tell whether all could be read."""
    todo = [value]
    for _ in range(MOST_LEVELS):
        deeper: list[Any] = []
        for each in todo:
            if each.__class__ is list:
                for part in each:
                    kind = part.__class__
                    if kind is str:
                        texts.append(part)
                    elif kind is dict or kind is list:
                        deeper.append(part)
                continue
            for key, part in each.items():
                kind = part.__class__
                if key not in USUAL and (is_odd(key) or (part is not None and key in CAREFUL)):
                    return False
                if kind is str:
                    if key not in NAMES or len(part) > MOST_NAME_CHARACTERS:
                        texts.append(part)
                elif kind is dict or kind is list:
                    deeper.append(part)
        if not deeper:
            return True
        todo = deeper
    return False
