"""The guardrails of a streamed answer: every text that leaves has been inspected, across its pieces too."""

from __future__ import annotations

from typing import Any, NoReturn

from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Blocked, Body, Guard, StreamGuard
from pipelines.serving.replies import said_bytes
from pipelines.serving.streams import event
from pipelines.serving.text_rules import decide
from pipelines.serving.texts import DATA, MEDIA, MOST_LEVELS, NO_KEYS, is_name

Path = tuple[str | tuple[str, Any], ...]
"""Where a text stands in a choice: keys, and for entries of lists (key that numbers them or "", number)."""
MOST_NAME_CHARACTERS = 4096
"""Of one that comes in pieces: all of it is read with each."""
UNREAD = frozenset({"index", "finish_reason", "logprobs"})


class Screen:
    """Rewrites the events of one stream. Each text of each choice has an inspector of its own.

    Attributes:
        has_said: Some text has left; what is held back has not.
    """

    def __init__(self, guard: Guard, exchange: Exchange) -> None:
        self._guard = guard
        self._exchange = exchange
        self._inspectors: dict[tuple[int, Path], StreamGuard] = {}
        self._names: dict[tuple[int, Path], tuple[str, str]] = {}  # what came of it, what left of it
        self._ended: set[int] = set()
        self._head: Body = {}
        self.has_said = False

    def take(self, value: Body) -> bytes:
        """Return what may leave of an event, and what was held back before and may leave now.

        Raises:
            Blocked: Nothing more may leave.
        """
        if not self._head:
            self._head = {key: value[key] for key in ("id", "object", "created", "model") if key in value}
        late = b""
        choices = []
        for part in value.get("choices", ()):
            choice = dict(part)
            index = choice.get("index", 0)
            is_last = bool(choice.get("finish_reason"))
            if index in self._ended and _said_bytes(choice):
                self._block("after_its_end")  # it could be the rest of what left with the end
            for name in choice.keys() - UNREAD:
                choice[name] = self._read(index, (name,), choice[name], is_last)
            choice.pop("logprobs", None)  # they spell out what the text may no longer say
            if is_last:
                late += self._rest(index)
                self._ended.add(index)
            choices.append(choice)
            self.has_said = self.has_said or _said_bytes(choice) > 0
        return late + event({**value, "choices": choices})

    def close(self) -> bytes:
        """Return what was still held back, for a stream that ended without saying so.

        Raises:
            Blocked: It must not leave.
        """
        return b"".join(self._rest(index) for index in {key[0] for key in self._inspectors})

    def refusal(self) -> bytes:
        """Return the event that ends a blocked stream."""
        is_chat = self._head.get("object") != "text_completion"
        text = {"delta": {"content": self._guard.refusal}} if is_chat else {"text": self._guard.refusal}
        return event({**self._head, "choices": [{"index": 0, **text, "finish_reason": "content_filter"}]})

    def _read(self, index: int, path: Path, value: Any, is_last: bool, skipped: frozenset[str] = NO_KEYS) -> Any:
        """Return a part of a choice with every string in it inspected, each as one text with those before it there."""
        if isinstance(value, str):
            return self._feed((index, path), value, is_last) if value else value
        if not isinstance(value, dict | list):
            return value
        if len(path) > MOST_LEVELS:
            self._block("unreadable")
        if isinstance(value, list):
            return [self._read(index, (*path, _number(place, part)), part, is_last) for place, part in enumerate(value)]
        found = dict(value)
        for key, part in value.items():
            if key in skipped or is_name(key, part):
                continue
            if key == "name" and isinstance(part, str):
                found[key] = self._name((index, (*path, key)), part)
            else:
                found[key] = self._read(index, (*path, key), part, is_last, DATA if key in MEDIA else NO_KEYS)
        return found

    def _name(self, key: tuple[int, Path], piece: str) -> str:
        """Return what may leave of a name: at once, for clients take it from the event that brings it.

        One that goes on in a further event is read as a whole again; what has left of it cannot be taken back.
        """
        came, left = self._names.get(key, ("", ""))
        inspector = self._guard.open_stream(self._exchange)
        whole = inspector.feed(came + piece) + inspector.close()
        if not whole.startswith(left) or len(came) > MOST_NAME_CHARACTERS:
            self._block("name_in_pieces")
        self._names[key] = came + piece, whole
        return whole[len(left) :]

    def _block(self, rule: str) -> NoReturn:
        decide(self._exchange, "out", rule, "block")
        raise Blocked(rule)

    def _feed(self, key: tuple[int, Path], text: str, is_last: bool) -> str:
        """Return what may leave; of an event that also ends its choice, all of it that may ever leave."""
        inspector = self._inspectors.get(key)
        if inspector is None:
            inspector = self._inspectors[key] = self._guard.open_stream(self._exchange)
        text = inspector.feed(text)
        return text + self._inspectors.pop(key).close() if is_last else text

    def _rest(self, index: int) -> bytes:
        found = b""
        for key in [key for key in self._inspectors if key[0] == index]:
            text = self._inspectors.pop(key).close()
            if not text:
                continue
            self.has_said = True
            part: Any = text
            for step in reversed(key[1]):
                part = {step: part} if isinstance(step, str) else [_numbered(step, part)]
            found += event({**self._head, "choices": [{"index": index, **part, "finish_reason": None}]})
        return found


def _said_bytes(choice: Body) -> int:
    return said_bytes({key: choice[key] for key in choice.keys() - UNREAD})


def _number(place: int, part: Any) -> tuple[str, Any]:
    """Return what an entry of a list is known by in the events to come."""
    index = part.get("index") if isinstance(part, dict) else None
    return ("index", index) if isinstance(index, int) else ("", place)


def _numbered(step: tuple[str, Any], part: Any) -> Any:
    return {step[0]: step[1], **part} if step[0] and isinstance(part, dict) else part
