"""What is forbidden does not leave a stream, over however many events a model spreads it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serving.parts import Blocked
from pipelines.serving.screen import Screen
from tests.serving.rules import exchange, guard

FORBIDDEN = ["jane.doe@example.com", "4111 1111 1111 1111", "AKIAQ3EGRTHYQ3EGRTHY", "sk-" + "a1B2c3" * 5]
GUARD = guard(out=[{"rule": "pii"}, {"rule": "secrets"}])
PLACES = {
    "content": lambda piece: {"content": piece},
    "reasoning": lambda piece: {"reasoning_content": piece},
    "refusal": lambda piece: {"refusal": piece},
    "arguments": lambda piece: {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]},
    "name": lambda piece: {"tool_calls": [{"index": 0, "function": {"name": piece}}]},
    "custom input": lambda piece: {"tool_calls": [{"index": 2, "custom": {"input": piece}}]},
    "custom name": lambda piece: {"tool_calls": [{"index": 2, "custom": {"name": piece}}]},
    "details": lambda piece: {"reasoning_details": [{"type": "t", "text": piece}]},
    "anything": lambda piece: {"x": {"y": [[piece]]}},
}


def merged(before: Any, delta: Any) -> Any:
    """Put deltas together as clients do: texts are joined, entries of lists by their index or place."""
    if isinstance(before, str) and isinstance(delta, str):
        return before + delta
    if isinstance(before, dict) and isinstance(delta, dict):
        return before | {key: merged(before.get(key), value) for key, value in delta.items()}
    if isinstance(before, list) and isinstance(delta, list):
        longer = max(len(before), len(delta))
        pairs = [(side[place] if place < len(side) else None) for place in range(longer) for side in (before, delta)]
        return [merged(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    return before if delta is None else delta


def client(sent: bytes) -> str:
    """All that a client has in the end, as text."""
    choices: dict[int, Any] = {}
    for line in sent.split(b"\n\n"):
        for choice in json.loads(line[6:])["choices"] if line.startswith(b"data: {") else ():
            choices[choice["index"]] = merged(choices.get(choice["index"]), choice.get("delta"))
    return json.dumps(choices, ensure_ascii=False)


def screened(events: list[dict[str, Any]]) -> tuple[bytes, bool]:
    """Send events through the guardrails; return what left, and whether the stream was ended."""
    screen, sent = Screen(GUARD, exchange()), b""
    try:
        for each in events:
            sent += screen.take({"choices": [each]})
        return sent + screen.close(), False
    except Blocked:
        return sent, True


@settings(max_examples=200, deadline=None)
@given(
    forbidden=st.sampled_from(FORBIDDEN),
    around=st.tuples(st.sampled_from(["", "it is ", "x\n"]), st.sampled_from(["", " then", ", "])),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    place=st.sampled_from(sorted(PLACES)),
    ends=st.sets(st.integers(0, 8), max_size=2),
)
def test_nothing_forbidden_leaves_wherever_and_however_it_is_cut(
    forbidden: str, around: tuple[str, str], cuts: list[int], place: str, ends: set[int]
) -> None:
    text = around[0] + forbidden + around[1]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = [
        {"index": 0, "delta": PLACES[place](text[low:high]), "finish_reason": "stop" if number in ends else None}
        for number, (low, high) in enumerate(pairwise(places))
    ]
    assert forbidden not in client(screened(events)[0])


@pytest.mark.parametrize("place", sorted(PLACES))
def test_what_is_innocent_leaves_whole_in_pieces(place: str) -> None:
    pieces = ["look_", "up", "_order 12", " of 2024"]
    events = [{"index": 0, "delta": PLACES[place](piece), "finish_reason": None} for piece in pieces]
    sent, is_blocked = screened([*events, {"index": 0, "delta": {}, "finish_reason": "stop"}])
    assert not is_blocked
    assert "".join(pieces) in client(sent)


def test_a_choice_that_goes_on_after_its_end_ends_the_stream_and_an_empty_delta_does_not() -> None:
    first = {"index": 0, "delta": {"content": "jane.doe"}, "finish_reason": "stop"}
    empty = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    assert not screened([first, empty])[1]
    assert screened([first, empty | {"delta": {"content": "@example.com"}}])[1]


def test_a_name_without_end_is_not_read_again_and_again() -> None:
    piece = {"index": 0, "delta": PLACES["name"]("n" * 1000), "finish_reason": None}
    assert screened([piece] * 10)[1]
