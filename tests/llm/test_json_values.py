"""An answer is cut off in one way, wherever it comes from."""

from __future__ import annotations

import pytest

from pipelines.llm.json_values import cropped


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1} That is all. {"b": 2}', '{"a": 1}'),
        ('Sure: [1, "]"] and so on', 'Sure: [1, "]"]'),
        ('{"a": 1', '{"a": 1'),
        ("no value", "no value"),
        ("", ""),
    ],
)
def test_what_follows_the_first_value_is_cut_off(text: str, value: str) -> None:
    assert cropped(text) == value
