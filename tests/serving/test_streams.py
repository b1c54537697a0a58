"""Streams taken apart and put together: nothing is lost, whatever the pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.streams import BrokenStream, Collector, EventReader, parse_event, replay

EVENTS = [{"choices": [{"index": 0, "delta": {"content": "caf\u00e9 \U0001f600"}}]}, {"choices": []}]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(cuts=st.lists(st.integers(0, 10_000), max_size=20), end=st.sampled_from([b"\n", b"\r\n"]))
def test_events_are_the_same_wherever_the_network_cuts_them(cuts: list[int], end: bytes) -> None:
    raw = b": ping" + end * 2
    raw += b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + end * 2 for event in EVENTS)
    raw += b"event: x" + end + b"data: [DONE]" + end * 2
    reader = EventReader()
    found = [data for piece in pieces_of(raw, cuts) for data in reader.feed(piece)]
    assert [json.loads(data) for data in found[:-1]] == EVENTS
    assert found[-1] == b"[DONE]"


def test_an_event_without_end_is_refused() -> None:
    reader = EventReader()
    for _ in range(40):
        assert reader.feed(b"x" * 100_000) == []
    with pytest.raises(BrokenStream):
        reader.feed(b"x" * 300_000)


@pytest.mark.parametrize(
    "data",
    [b"no", b"[]", b'{"error": {"message": "x"}}', b'{"choices": {}}', b'{"choices": [7]}',
     b'{"choices": [{"delta": 7}]}', b'{"choices": [{"delta": {"content": 7}}]}',
     b'{"choices": [{"index": "x", "delta": {}}]}', b'{"choices": [{"delta": {"tool_calls": [7]}}]}'],
)  # fmt: skip
def test_an_event_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenStream):
        Collector("chat").take(parse_event(data))


CALLS = [
    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "assistant", "content": "hello"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "assistant", "content": "", "refusal": "no"},
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("n", [1, 2])
def test_an_answer_that_is_replayed_and_collected_is_itself_again(message: dict[str, Any], n: int) -> None:
    answer = {
        "id": "1",
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "choices": [{"index": index, "message": message, "finish_reason": "stop"} for index in range(n)],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    collector = Collector("chat")
    *events, done = EventReader().feed(replay(answer, "chat", with_usage=True))
    for data in events:
        collector.take(parse_event(data))
    assert done == b"[DONE]"
    assert (collector.is_finished, collector.is_whole) == (True, True)
    assert collector.value() == answer


def test_what_is_not_put_together_is_not_called_whole() -> None:
    for choice in ({"delta": {"content": "x"}, "logprobs": {"content": []}}, {"delta": {"reasoning_content": "hm"}}):
        collector = Collector("chat")
        collector.take({"choices": [{"index": 0, **choice}]})
        assert not collector.is_whole


@pytest.mark.parametrize(
    "delta",
    [{"content": "word " * 60}, {"reasoning_content": "word " * 60}, {"refusal": "word " * 60},
     {"reasoning_details": [{"type": "t", "text": "word " * 60}]}, {"content": "\u00e9" * 150},
     {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "word " * 60}}]}],
)  # fmt: skip
def test_whatever_a_model_says_is_counted(delta: dict[str, Any]) -> None:
    collector = Collector("chat")
    collector.take({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}}]})
    assert 100 <= collector.n_tokens <= 101


def test_reasoning_is_text_and_leaves_at_once() -> None:
    for delta in ({"reasoning_content": "hm"}, {"reasoning": "hm"}, {"reasoning_details": [{"text": "hm"}]}):
        assert Collector("chat").take({"choices": [{"index": 0, "delta": delta}]})
    for delta in ({}, {"role": "assistant", "content": ""}, {"reasoning_content": None}):
        assert not Collector("chat").take({"choices": [{"index": 0, "delta": delta}]})
