"""`scripts.prepare` on real files: splits, a summary, and one clear line for what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.rows import read_rows

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/example"  # the shipped files may change, what tests say of these may not


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the declared files and the data of the example."""
    shutil.copy(EXAMPLE / "params.yaml", tmp_path)
    shutil.copytree(EXAMPLE / "prompts", tmp_path / "prompts")
    (tmp_path / "data").mkdir()
    for name in ("triage.jsonl", "reply.jsonl"):
        shutil.copy(ROOT / "data" / name, tmp_path / "data")
    return tmp_path


def prepare(project: Path, dataset: str = "triage") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.prepare", "--dataset", dataset]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def files(project: Path) -> set[str]:
    return {path.name for path in (project / "data/prepared/triage").iterdir()}


def test_the_example_is_split_with_its_attacks_and_twins_mostly_in_the_test(project: Path) -> None:
    done = prepare(project)
    assert done.returncode == 0, done.stderr
    assert files(project) == {"train.jsonl", "validation.jsonl", "test.jsonl", "summary.json"}
    splits = {name: read_rows(project / f"data/prepared/triage/{name}.jsonl") for name in ("train", "test")}
    assert sum(row.twin is not None for row in splits["test"]) == 120
    assert sum(row.attack is not None for row in splits["test"]) > sum(
        row.attack is not None for row in splits["train"]
    )
    told = json.loads((project / "data/prepared/triage/summary.json").read_text())
    assert told["n"] == 1020
    assert told["near_duplicates"]["rate"] <= 0.02
    assert f"train {told['splits']['train']['n']}" in done.stdout


def test_a_second_run_writes_the_same_bytes(project: Path) -> None:
    def content() -> dict[str, bytes]:
        assert prepare(project).returncode == 0
        return {path.name: path.read_bytes() for path in (project / "data/prepared/triage").iterdir()}

    assert content() == content()


def test_a_split_that_is_gone_leaves_an_empty_file(project: Path) -> None:
    assert prepare(project).returncode == 0
    params = (project / "params.yaml").read_text()
    changed = params.replace("{train: 0.74, validation: 0.04, test: 0.22}", "{train: 0.8, test: 0.2}")
    assert changed != params
    (project / "params.yaml").write_text(changed)
    assert prepare(project).returncode == 0
    assert (project / "data/prepared/triage/validation.jsonl").read_bytes() == b""
    assert files(project) == {"train.jsonl", "validation.jsonl", "test.jsonl", "summary.json"}


def test_a_cut_off_line_is_named_and_the_last_good_splits_stay(project: Path) -> None:
    assert prepare(project).returncode == 0
    before = (project / "data/prepared/triage/train.jsonl").read_bytes()
    path = project / "data/triage.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    done = prepare(project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/triage.jsonl:1020: not valid JSON (")
    assert done.stderr.splitlines()[1:] == ["exit code 2"]
    assert (project / "data/prepared/triage/train.jsonl").read_bytes() == before
    assert [path.name for path in (project / "data/prepared").iterdir()] == ["triage"]


def test_a_missing_data_file_is_one_line(project: Path) -> None:
    (project / "data/triage.jsonl").unlink()
    done = prepare(project)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: data/triage.jsonl: no such file")


def test_an_unknown_data_set_is_told_with_the_nearest_name(project: Path) -> None:
    done = prepare(project, "triaje")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: params.yaml: datasets: no data set 'triaje' (did you mean 'triage'?)"
    )
