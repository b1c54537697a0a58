"""What stands for data that Git does not hold is told from data, and never read as rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.review.revision import read_revision
from tests.review.world import FILES

DATA = "data/triage.jsonl"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


def lay_out(folder: Path, data: str) -> Path:
    for name, text in {**FILES, DATA: data}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_pointer_of_git_lfs_is_data_outside_of_git_and_another_one_other_data(tmp_path: Path) -> None:
    first = read_revision(lay_out(tmp_path / "first", POINTER))
    other = read_revision(lay_out(tmp_path / "other", POINTER.replace("4d7a", "4d7b")))
    for revision in (first, other):
        assert (dict(revision.suites), revision.trained, set(revision.kept)) == ({}, (), {"triage"})
    assert first.kept != other.kept
    assert set(read_revision(lay_out(tmp_path / "here", FILES[DATA])).suites) == {"triage"}


@pytest.mark.parametrize(
    "text",
    [
        POINTER.replace("oid", "ext-0-forge sha256:00\noid"),
        POINTER + FILES[DATA],
        POINTER.replace("\n", "\r\n"),
        "version https://git-lfs.github.com/spec/v2\n",
    ],
)
def test_what_only_begins_like_a_pointer_is_one_clear_line_and_no_rows(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_revision(lay_out(tmp_path, text))
    assert str(raised.value).startswith(f"{DATA}: is Git LFS's pointer to the data, not the data; install git-lfs")
    assert "\n" not in str(raised.value)
