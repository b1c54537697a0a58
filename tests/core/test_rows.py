"""Prepared rows come back as they were written, and anything else is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.rows import Row, read_rows, write_rows

ROW = Row("0123456789abcdef", {"message": "Hi"}, '{"intent": "fault"}', "plain", "t1", None, {"obeyed_text": ["X"]}, 3)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", [ROW, ROW._replace(id="b", attack=None)])
    assert read_rows(tmp_path / "test.jsonl") == [ROW, ROW._replace(id="b", attack=None)]


@pytest.mark.parametrize(
    "change",
    [{"id": None}, {"answer": {"a": 1}}, {"inputs": "text"}, {"inputs": {"message": 3}}, {"inputs": None}, {"more": 1}],
)
def test_what_prepare_did_not_write_is_refused_with_its_line(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROW._asdict()) + "\n" + json.dumps(ROW._asdict() | change) + "\n")
    with pytest.raises(ConfigError, match=r"test.jsonl:2: not a prepared row .*; run `python -m scripts.prepare`"):
        read_rows(path)


def test_a_row_without_its_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"id": "a", "inputs": {}}\n')
    with pytest.raises(ConfigError, match=r"not a prepared row .*answer"):
        read_rows(path)
