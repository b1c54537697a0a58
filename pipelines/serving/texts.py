"""The texts in a request or an answer, wherever they stand: what a rule has to see, and where its changes go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.serving.parts import Body

MOST_LEVELS = 40
PARAMETERS = frozenset(
    {
        "model", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "n", "best_of", "seed",
        "max_tokens", "max_completion_tokens", "min_tokens", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "user", "metadata", "store", "service_tier",
        "reasoning_effort", "verbosity", "modalities", "parallel_tool_calls", "encoding_format", "dimensions",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "echo",
    }
)  # fmt: skip
"""Parameters of a request that are no text for the model; whatever else a body holds is read."""
TOKENS = ("prompt", "input", "prompt_token_ids")
"""What may hold a text as numbers of tokens."""
NAMES = frozenset({"role", "type", "id", "index", "finish_reason", "tool_call_id"})
"""Keys whose short plain values are no text; an object under them (a property that is called `id`) is read."""
MOST_NAME_CHARACTERS = 64
MEDIA = frozenset({"image_url", "input_audio", "audio"})
"""Images and sound: their addresses and data are not read, what is said about them is."""
DATA = frozenset({"url", "data", "detail"})
FILE = frozenset({"file_data", "file_id", "file_url"})
APPLICATION = frozenset({"system", "developer", "assistant"})
"""Roles of what the application itself says, or had the model say."""
ROLES = APPLICATION | {"user", "tool", "function"}
USUAL_KEY_CHARACTERS = 20
NO_KEYS: frozenset[str] = frozenset()
SPELLED_OUT = frozenset({"logprobs"})
READ = frozenset({str, dict, list})

Change = Callable[[str], str]


class Unreadable(Exception):
    """Something stands where text must be, or too deep; a rule that cannot read must not let pass."""


def change_request(body: Body, change: Callable[[str, str], str]) -> Body:
    """Return a request with its texts changed; the same object where none was.

    Args:
        body: The request; never changed in place.
        change: Given a role (`user` for what is no message) and a text.

    Raises:
        Unreadable: A prompt is given as tokens, a part as a file, or something is nested too deeply.
    """
    found = {}
    for key, value in body.items():
        if key in PARAMETERS or value is None:
            continue
        if key == "messages":
            changed: Any = _each(value, lambda message: _message(message, change))
        elif key in TOKENS:
            changed = _texts(value, lambda text: change("user", text), 0)
        else:
            changed = _asked(value, lambda text: change("user", text), 0)
        if changed is not value:
            found[key] = changed
    return {**body, **found} if found else body


def change_answer(answer: Body, change: Change) -> Body:
    """Return an answer with the texts of its choices changed; the same object where none was.

    A classic model's answer has no choices: all of it is read.

    Raises:
        Unreadable: Something is nested too deeply.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list):
        found: Body = _said(answer, change, 0)
        return found

    def of_choice(choice: Any) -> Any:
        changed = _said(choice, change, 0)
        # They spell out what the text may no longer say.
        return {**changed, "logprobs": None} if changed is not choice and "logprobs" in choice else changed

    changed = _each(choices, of_choice)
    return answer if changed is choices else {**answer, "choices": changed}


def strings(value: Any) -> list[str]:
    """Return every text of a JSON value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for part in value.values() for text in strings(part))]
    return [text for part in value for text in strings(part)] if isinstance(value, list) else []


def _message(message: Any, change: Callable[[str, str], str]) -> Any:
    role = message.get("role") if isinstance(message, dict) else None
    named = role if isinstance(role, str) else "user"
    changed = _asked(message, lambda text: change(named, text), 0)
    if isinstance(role, str) and role not in ROLES and (other := change("user", role)) is not role:
        return {**changed, "role": other}  # a template may show it to the model
    return changed


def _texts(value: Any, change: Change, level: int) -> Any:
    """Change a text, or a list of texts; numbers of tokens cannot be read."""
    if isinstance(value, list) and level <= MOST_LEVELS:
        return _each(value, lambda part: _texts(part, change, level + 1))
    if isinstance(value, str | dict):
        return _asked(value, change, level)
    raise Unreadable("a prompt of tokens")


def _asked(value: Any, change: Change, level: int, skipped: frozenset[str] = NO_KEYS) -> Any:
    if value.__class__ is dict:
        if any(isinstance(value.get(key), str) for key in FILE):
            raise Unreadable("a file")
        value = _keys(value, change)
    return _walk(value, change, level, skipped, _asked)


def _said(value: Any, change: Change, level: int, skipped: frozenset[str] = NO_KEYS) -> Any:
    return _walk(value, change, level, skipped | SPELLED_OUT, _said)


def _walk(value: Any, change: Change, level: int, skipped: frozenset[str], go_on: Callable[..., Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if not isinstance(value, dict | list):
        return value
    if level > MOST_LEVELS:
        raise Unreadable("nested too deeply")
    if isinstance(value, list):
        if not any(part.__class__ in READ for part in value):
            return value
        return _each(value, lambda part: go_on(part, change, level + 1))
    found = {}
    for key, part in value.items():
        if key in skipped or is_name(key, part):
            continue
        changed = go_on(part, change, level + 1, DATA if key in MEDIA else NO_KEYS)
        if changed is not part:
            found[key] = changed
    return {**value, **found} if found else value


def is_name(key: str, part: Any) -> bool:
    """Tell whether a value is no text but names something, or is the address of an image."""
    if part.__class__ is str:
        return key in MEDIA or (key in NAMES and len(part) <= MOST_NAME_CHARACTERS)
    return part.__class__ is not dict and part.__class__ is not list


def is_odd(key: str) -> bool:
    """Tell whether a key is no usual name."""
    return len(key) > USUAL_KEY_CHARACTERS or not (key.isascii() and key.isidentifier())


def _keys(value: Body, change: Change) -> Body:
    """Read the keys, too, that are no usual names: a template shows them to the model."""
    odd = list(filter(is_odd, value))
    changed = {key: change(key) for key in odd}
    if all(new is key for key, new in changed.items()):
        return value
    return {changed.get(key, key): part for key, part in value.items()}


def _each(values: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(values, list):
        return change(values)
    found = [change(value) for value in values]
    return values if all(new is old for new, old in zip(found, values, strict=True)) else found
