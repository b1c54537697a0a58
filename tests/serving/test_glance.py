"""The quick walk sees every text that the careful one reads, or leaves it to that one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serving.glance import of_answer, of_request
from pipelines.serving.texts import APPLICATION, Unreadable, change_answer, change_request
from tests.serving.rules import exchange, guard

KEYS = st.sampled_from(
    ["role", "content", "text", "name", "id", "type", "arguments", "function", "tool_calls", "image_url", "url",
     "file_data", "logprobs", "index", "a strange key", "x" * 21, "description", "data", "prompt", "input", "messages",
     "user", "choices", "documents", "audio", "tool_call_id"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.integers(), st.booleans(), st.sampled_from(["user", "system", "text", "tool", "y" * 70, "t1", "t2"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=3)
BODIES = st.dictionaries(KEYS, VALUES, max_size=4) | st.builds(lambda messages: {"messages": messages}, MESSAGES)


@settings(max_examples=600, deadline=None)
@given(BODIES)
def test_what_a_rule_reads_of_a_request_is_among_what_is_found_at_once(body: dict[str, Any]) -> None:
    application: list[str] = []
    others: list[str] = []

    def hear(role: str, text: str) -> str:
        (application if role in APPLICATION else others).append(text)
        return text

    found = of_request(body)
    try:
        change_request(body, hear)
    except Unreadable:
        assert found is None
        return
    if found is not None:
        assert sorted(found.application) == sorted(application)
        assert sorted(found.others) == sorted(others)


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3) | st.builds(lambda value: {"choices": [value]}, VALUES))
def test_what_a_rule_reads_of_an_answer_is_among_what_is_found_at_once(answer: dict[str, Any]) -> None:
    read: list[str] = []

    def hear(text: str) -> str:
        read.append(text)
        return text

    change_answer(answer, hear)
    found = of_answer(answer)
    assert found is None or sorted(found) == sorted(read)


def test_an_ordinary_request_and_its_answer_need_one_walk() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {
        "model": "m",
        "temperature": 0,
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
    }
    assert of_request(body) == (["s", "f", "{}"], ["u"])
    message = {"role": "assistant", "content": "a", "refusal": None}
    assert of_answer({"choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]}) == [
        "a"
    ]


@pytest.mark.parametrize("levels", [10, 39, 40, 41, 60])
def test_what_is_nested_too_deeply_is_read_with_care(levels: int) -> None:
    value: Any = "text"
    for _ in range(levels):
        value = {"content": value}
    rules = guard(**{"in": [{"rule": "pii"}]})
    (text_rules,) = rules._in
    body = {"messages": [{"role": "user", "content": value}]}
    assert text_rules.inspect_in(exchange(), body).action == ("block" if levels > 40 else "pass")
