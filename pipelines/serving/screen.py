"""The guardrails of a streamed answer: every text that leaves has been inspected, across its pieces too."""

from __future__ import annotations

from typing import Any

from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Body, Guard, StreamGuard
from pipelines.serving.streams import event

NO_TEXT = ("role", "type", "id", "name")
"""Keys of a delta whose values are no text of the model; whatever else is a string passes an inspector."""


class Screen:
    """Rewrites the events of one stream. Each text of each choice has an inspector of its own."""

    def __init__(self, guard: Guard, exchange: Exchange) -> None:
        self._guard = guard
        self._exchange = exchange
        self._inspectors: dict[tuple[Any, ...], StreamGuard] = {}
        self._head: Body = {}

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
            if isinstance(choice.get("text"), str):
                choice["text"] = self._feed((index, "text"), choice["text"], is_last)
            if choice.get("delta"):
                choice["delta"] = self._delta(index, choice["delta"], is_last)
            choice.pop("logprobs", None)  # they spell out what the text may no longer say
            if is_last:
                late += self._rest(index)
            choices.append(choice)
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

    def _delta(self, index: int, delta: Body, is_last: bool) -> Body:
        found = dict(delta)
        for name, value in delta.items():
            if isinstance(value, str) and value and name not in NO_TEXT:
                found[name] = self._feed((index, name), value, is_last)
        if isinstance(found.get("tool_calls"), list):
            calls = found["tool_calls"]
            found["tool_calls"] = [
                {**call, "function": self._call((index, "tool_calls", call.get("index", 0)), call["function"], is_last)}
                if call.get("function")
                else call
                for call in calls
            ]
        if found.get("function_call"):
            found["function_call"] = self._call((index, "function_call"), found["function_call"], is_last)
        return found

    def _call(self, key: tuple[Any, ...], function: Body, is_last: bool) -> Body:
        if not isinstance(function.get("arguments"), str):
            return function
        return {**function, "arguments": self._feed(key, function["arguments"], is_last)}

    def _feed(self, key: tuple[Any, ...], text: str, is_last: bool) -> str:
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
            if key[1] == "text":
                part: Body = {"text": text}
            elif key[1] == "tool_calls":
                part = {"delta": {"tool_calls": [{"index": key[2], "function": {"arguments": text}}]}}
            elif key[1] == "function_call":
                part = {"delta": {"function_call": {"arguments": text}}}
            else:
                part = {"delta": {key[1]: text}}
            found += event({**self._head, "choices": [{"index": index, **part, "finish_reason": None}]})
        return found
