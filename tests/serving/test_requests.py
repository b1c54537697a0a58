"""Requests as they come in: what is parsed, and what is refused before it costs memory or time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.serving.config import Limits
from pipelines.serving.errors import Refused
from pipelines.serving.requests import LARGE_BYTES, MOST_CONTAINERS, parse

HELLO = {"role": "user", "content": "hello"}


def status_of(body: Any, endpoint: str = "chat") -> int:
    try:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), endpoint)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{}] * (MOST_CONTAINERS + 1)},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * MOST_CONTAINERS}]},
        {"messages": [HELLO], "tools": [[[]] for _ in range(MOST_CONTAINERS)]},
        {"messages": [HELLO], "logit_bias": {str(number): 1 for number in range(400_001)}},
    ],
    ids=["messages", "parts", "elsewhere", "values"],
)
def test_a_body_of_too_many_small_values_is_refused(body: Any) -> None:
    assert status_of(body) == 413


def test_a_large_body_of_brackets_is_refused_before_it_is_parsed() -> None:
    assert status_of(b"[" + b"{}," * (LARGE_BYTES // 2) + b"this is no JSON") == 413


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        ({"messages": [HELLO] * 2_000}, "chat"),
        ({"messages": [{"role": "user", "content": "a, {b} [c] " * 40_000}]}, "chat"),
        ({"input": [list(range(1_000))] * 300}, "embeddings"),
    ],
    ids=["a long conversation", "a long text", "token numbers"],
)
def test_what_is_large_for_good_reasons_is_taken(body: Any, endpoint: str) -> None:
    assert status_of(body, endpoint) == 200


def test_a_template_of_the_clients_own_is_refused() -> None:
    assert status_of({"messages": [HELLO], "chat_template": "{{ messages }}"}) == 400
    assert status_of({"messages": [HELLO], "chat_template": None}) == 200


def test_bodies_that_are_buffered_together_fit_in_the_memory_of_a_gateway() -> None:
    limits = Limits()
    assert limits.max_body_bytes <= limits.max_buffered_bytes <= 1024**3 / 8
