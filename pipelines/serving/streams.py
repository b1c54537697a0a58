"""Server-sent events: taken apart, put together into a whole answer, and made from one."""

from __future__ import annotations

from typing import Any

import orjson

from pipelines.serving.parts import Body
from pipelines.serving.replies import guess_tokens, said_bytes

DONE = b"data: [DONE]\n\n"
MOST_EVENT_BYTES = 4_194_304
HEAD = ("id", "created", "model", "system_fingerprint")


class BrokenStream(Exception):
    """What came is no stream of OpenAI's events."""


class EventReader:
    """Takes bytes as they come and gives back whole events' data."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of every event that is complete now; comments and names are left out.

        Raises:
            BrokenStream: An event has no end.
        """
        if b"\r" in piece or self._rest.endswith(b"\r"):
            piece = (self._rest + piece).replace(b"\r\n", b"\n")
            self._rest = b""
        *events, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > MOST_EVENT_BYTES:
            raise BrokenStream("an event has no end")
        found = []
        for event in events:
            if event.startswith(b"data: ") and b"\n" not in event:
                found.append(event[6:])
            else:
                lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
                if lines:
                    found.append(b"\n".join(lines))
        return found


def parse_event(data: bytes) -> Body:
    """Return an event's object.

    Raises:
        BrokenStream: It is none, or it reports an error.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BrokenStream("an event is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("choices", []), list):
        raise BrokenStream("an event is no object with choices")
    if value.get("error"):
        raise BrokenStream("the stream reports an error")
    return value


def event(value: Body) -> bytes:
    """Return an object as an event."""
    return b"data: %b\n\n" % orjson.dumps(value)


class Collector:
    """Puts the events of one streamed answer together; gives what a call without streaming would have given.

    Attributes:
        is_finished: Every choice so far has its finish_reason.
        is_whole: Nothing was left out that a whole answer would have (log probabilities are).
        n_pieces: Pieces of text so far, each at least about a token.
        n_bytes: Bytes of all that was said so far, reasoning and calls of tools included.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._head: Body = {}
        self._choices: dict[int, Body] = {}
        self.usage: Body | None = None
        self.is_whole = True
        self.n_pieces = self.n_bytes = 0

    @property
    def n_tokens(self) -> int:
        """About how many tokens were said, at least 1, erring on the dear side."""
        return max(self.n_pieces, guess_tokens(self.n_bytes))

    @property
    def is_finished(self) -> bool:
        """Tell whether the model has said all."""
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())

    @property
    def is_truncated(self) -> bool:
        """Tell whether any choice ended at the most tokens."""
        return any(choice["finish_reason"] == "length" for choice in self._choices.values())

    def take(self, value: Body) -> bool:
        """Take an event; return whether it holds any text.

        Raises:
            BrokenStream: It does not have the form of one.
        """
        if not self._head:
            self._head = {key: value[key] for key in HEAD if key in value}
        if isinstance(value.get("usage"), dict):
            self.usage = value["usage"]
        has_text = False
        try:
            for part in value.get("choices", ()):
                has_text |= self._take_choice(part)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise BrokenStream("an event does not have the form of one") from None
        self.n_pieces += has_text
        return has_text

    def value(self) -> Body:
        """Return the whole answer."""
        choices = []
        for index in sorted(self._choices):
            kept = self._choices[index]
            choice: Body = {"index": index, "finish_reason": kept["finish_reason"]}
            text = "".join(kept["text"])
            if self._endpoint == "completions":
                choice["text"] = text
            else:
                message: Body = {"role": "assistant", "content": text if text or not kept["calls"] else None}
                if kept["refusal"]:
                    message["refusal"] = "".join(kept["refusal"])
                if kept["calls"]:
                    message["tool_calls"] = [kept["calls"][place] for place in sorted(kept["calls"])]
                choice["message"] = message
            choices.append(choice)
        kind = "text_completion" if self._endpoint == "completions" else "chat.completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage}

    def _take_choice(self, part: Any) -> bool:
        index = part.get("index", 0)
        kept = self._choices.get(index)
        if kept is None:
            if type(index) is not int or len(self._choices) >= 128:
                raise ValueError(index)
            kept = self._choices[index] = {"text": [], "refusal": [], "calls": {}, "finish_reason": None}
        if part.get("logprobs"):
            self.is_whole = False
        has_text = False
        if self._endpoint == "completions":
            text = part.get("text")
            self.n_bytes += said_bytes(text)
        else:
            delta = part.get("delta") or {}
            text = delta.get("content")
            if delta.get("refusal"):
                kept["refusal"].append("" + delta["refusal"])
            for call in delta.get("tool_calls") or ():
                _take_call(kept["calls"], call)
                has_text = True
            n_said = said_bytes(delta)
            self.n_bytes += n_said
            has_text |= n_said > 0
            if any(key not in ("role", "content", "refusal", "tool_calls") and delta[key] for key in delta):
                self.is_whole = False  # reasoning, audio: passed on, not remembered
        if text:
            kept["text"].append("" + text)
            has_text = True
        if part.get("finish_reason"):
            kept["finish_reason"] = part["finish_reason"]
        return has_text


def _take_call(calls: dict[int, Body], part: Any) -> None:
    call = calls.setdefault(part.get("index", 0), {"id": "", "type": "function", "function": {}})
    if part.get("id"):
        call["id"] = part["id"]
    function = part.get("function") or {}
    known = call["function"]
    if function.get("name"):
        known["name"] = known.get("name", "") + function["name"]
    known["arguments"] = known.get("arguments", "") + (function.get("arguments") or "")


def replay(answer: Body, endpoint: str, *, with_usage: bool) -> bytes:
    """Return a whole answer as the events of a stream, the end included."""
    head: Body = {key: answer[key] for key in HEAD if key in answer}
    head["object"] = "text_completion" if endpoint == "completions" else "chat.completion.chunk"
    pieces = []
    for choice in answer["choices"]:
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        if endpoint == "completions":
            pieces.append({**head, "choices": [{"index": index, "text": choice["text"], "finish_reason": reason}]})
            continue
        delta = {key: value for key, value in choice["message"].items() if value is not None}
        if calls := delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        pieces.append({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        pieces.append({**head, "choices": [{"index": index, "delta": {}, "finish_reason": reason}]})
    if with_usage:
        pieces.append({**head, "choices": [], "usage": answer.get("usage")})
    return b"".join(map(event, pieces)) + DONE
