"""The split document: written, read back equal, refused in one line where it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.split import Split, of_terms, read, write

TERMS = {
    "rollout": "v1.2.0-ab12.1", "stage": "canary-1", "max_requests_per_user": 3, "unit": "request", "window_s": 2,
    "since": 1790000000.5,
}  # fmt: skip


@pytest.mark.parametrize("share", [0.05, 0.1, 1 / 3, 0.29, 1.0])
def test_a_split_comes_back_as_it_was_written(tmp_path: Path, share: float) -> None:
    split = of_terms(share, TERMS)
    write(tmp_path / "split.json", split)
    found = read(tmp_path / "split.json")
    assert found == split
    assert found is not None
    assert found.weight / 100 == pytest.approx(share, abs=1e-11)


@pytest.mark.parametrize("percent", range(101))
def test_a_whole_percent_is_that_percent_and_its_share_the_same_number(percent: int) -> None:
    assert of_terms(percent / 100, TERMS).weight == percent
    assert of_terms(percent / 100, TERMS).weight / 100 == percent / 100


def test_without_a_file_there_is_no_split(tmp_path: Path) -> None:
    assert read(tmp_path / "split.json") is None
    assert read(tmp_path / "no" / "split.json") is None


def test_no_share_needs_no_terms() -> None:
    assert of_terms(0, {}) == Split(weight=0)


@pytest.mark.parametrize(
    ("share", "change", "said"),
    [
        (0.1, {"rollout": ""}, "rollout: is needed"),
        (0.1, {"stage": ""}, "stage: is needed"),
        (0.1, {"rollout": "a\nb"}, "rollout: "),
        (0.1, {"stage": 'x"'}, "stage: "),
        (0.1, {"unit": "team"}, "unit: "),
        (0.1, {"max_requests_per_user": 0}, "max_requests_per_user: "),
        (0.1, {"window_s": float("nan")}, "window_s: "),
        (0.1, {"more": 1}, "more: "),
        (1.1, {}, "weight: "),
        (-0.1, {}, "weight: "),
    ],
)
def test_terms_that_are_none_are_refused_in_one_line(share: float, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        of_terms(share, TERMS | change)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight": "5"}', '{"weight": 5}', "[" * 8000, "x" * 70_000])
def test_a_broken_document_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ConfigError, match=r"split\.json") as refused:
        read(tmp_path / "split.json")
    assert "\n" not in str(refused.value)
