"""The event's payload: there, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.github.event import read_event


def test_the_payload_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "event.json").write_text('{"action": "requested", "number": 3}')
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    assert read_event() == {"action": "requested", "number": 3}


def test_without_a_workflow_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    with pytest.raises(ConfigError, match="GITHUB_EVENT_PATH is not set"):
        read_event()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "not valid JSON"), (b"[]", "found list"), (b"{", "not valid JSON"),
     (b"\xff", "not UTF-8"), (b"[" * 99_999, "not valid JSON")],
)  # fmt: skip
def test_a_broken_payload_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    path = tmp_path / "event.json"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))
    with pytest.raises(ConfigError, match=message) as caught:
        read_event()
    assert "\n" not in str(caught.value)
