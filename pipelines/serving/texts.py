"""The texts in a request or an answer, wherever they stand: what a rule has to see, and where its changes go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.serving.parts import Body

MOST_LEVELS = 40
ASKED = ("messages", "prompt", "suffix", "prediction")
NO_TEXT = frozenset(
    {
        "role", "type", "id", "index", "finish_reason", "tool_call_id", "image_url", "input_audio", "audio", "file",
        "detail", "logprobs", "cache_control",
    }
)  # fmt: skip
"""Keys below which there is nothing that a rule can read."""

Change = Callable[[str], str]


class Unreadable(Exception):
    """Something stands where text must be, or too deep; a rule that cannot read must not let pass."""


def change_request(body: Body, change: Callable[[str, str], str]) -> Body:
    """Return a request with its texts changed; the same object where none was.

    Args:
        body: The request; never changed in place.
        change: Given a role (`user` for a prompt) and a text.

    Raises:
        Unreadable: A prompt is given as tokens, or something is nested too deeply.
    """
    found = {}
    for key in ASKED:
        value = body.get(key)
        if value is None:
            continue
        if key == "messages":
            changed: Any = _each(value, lambda message: _message(message, change))
        else:
            changed = _walk(value, lambda text: change("user", text), 0, only_texts=key == "prompt")
        if changed is not value:
            found[key] = changed
    return {**body, **found} if found else body


def change_answer(answer: Body, change: Change) -> Body:
    """Return an answer with the texts of its choices changed; the same object where none was.

    Raises:
        Unreadable: Something is nested too deeply.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return answer

    def of_choice(choice: Any) -> Any:
        changed = _walk(choice, change, 0)
        # They spell out what the text may no longer say.
        return {**changed, "logprobs": None} if changed is not choice and "logprobs" in choice else changed

    changed = _each(choices, of_choice)
    return answer if changed is choices else {**answer, "choices": changed}


def _message(message: Any, change: Callable[[str, str], str]) -> Any:
    role = message.get("role") if isinstance(message, dict) else None
    named = role if isinstance(role, str) else "user"
    return _walk(message, lambda text: change(named, text), 0)


def _walk(value: Any, change: Change, level: int, *, only_texts: bool = False) -> Any:
    if isinstance(value, str):
        return change(value)
    if level > MOST_LEVELS:
        raise Unreadable("nested too deeply")
    if isinstance(value, list):
        return _each(value, lambda part: _walk(part, change, level + 1, only_texts=only_texts))
    if isinstance(value, dict):
        found = {}
        for key, part in value.items():
            if key in NO_TEXT:
                continue
            changed = _walk(part, change, level + 1)
            if changed is not part:
                found[key] = changed
        return {**value, **found} if found else value
    if only_texts:
        raise Unreadable("a prompt of tokens")
    return value


def _each(values: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(values, list):
        return change(values)
    found = [change(value) for value in values]
    return values if all(new is old for new, old in zip(found, values, strict=True)) else found
