"""`scripts.validate` on real files: good data passes, bad data stops with its rows named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.params import load_params
from pipelines.core.rows import Row, read_rows, write_rows
from pipelines.training.examples import read_examples
from pipelines.training.prepare import split

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/example"  # the shipped files may change, what tests say of these may not


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the declared files and the example's rows, prepared."""
    shutil.copy(EXAMPLE / "params.yaml", tmp_path)
    shutil.copytree(EXAMPLE / "prompts", tmp_path / "prompts")
    params = load_params(EXAMPLE / "params.yaml")
    for name, dataset in params.datasets.items():
        examples = read_examples(ROOT / dataset.path, dataset)
        done = split(examples, dataset, near=params.prepare.near_duplicates, seed=params.seed)
        for part, rows in done.splits.items():
            write_rows(tmp_path / f"data/prepared/{name}/{part}.jsonl", rows)
    return tmp_path


def validated(project: Path, dataset: str = "triage") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.validate", "--dataset", dataset]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def result(project: Path, dataset: str = "triage") -> Any:
    return json.loads((project / f"data/validation/{dataset}/results.json").read_text())


def passed(project: Path, dataset: str = "triage") -> bool:
    """Tell whether later stages may go on."""
    return (project / f"data/validation/{dataset}/passed.json").exists()


def spoil(project: Path, change: Callable[[Row], Row]) -> Row:
    """Change one row of the training split, and return it as it was."""
    path = project / "data/prepared/triage/train.jsonl"
    rows = read_rows(path)
    before = rows[0]
    write_rows(path, [change(before), *rows[1:]])
    return before


@pytest.mark.parametrize("dataset", ["triage", "reply"])
def test_the_shipped_data_meets_every_expectation(project: Path, dataset: str) -> None:
    done = validated(project, dataset)
    assert (done.returncode, done.stderr) == (0, "")
    told = result(project, dataset)
    assert told["is_valid"]
    assert passed(project, dataset)
    assert (
        done.stdout == f"data/validation/{dataset}/report.html: all {len(told['expectations'])} expectations are met\n"
    )


def test_a_wrong_label_stops_with_the_row_on_the_terminal_in_json_and_on_the_page(project: Path) -> None:
    def mislabel(row: Row) -> Row:
        return row._replace(answer='{"intent": "<b>", "product": "hub", "urgency": "low"}')

    assert validated(project).returncode == 0
    assert passed(project)
    before = spoil(project, mislabel)
    place = f"data/triage.jsonl:{before.line}"
    done = validated(project)
    assert done.returncode == 3
    assert not passed(project)
    assert f"  {place}: '<b>' [train]" in done.stdout.splitlines()
    n = len(result(project)["expectations"])
    assert done.stderr.splitlines() == [
        f"error: data/triage.jsonl: 2 of {n} expectations are not met; see data/validation/triage/report.html",
        "exit code 3",
    ]
    broken = [one for one in result(project)["expectations"] if not one["is_met"]]
    assert [one["rows"][0]["place"] for one in broken] == [place, place]
    page = (project / "data/validation/triage/report.html").read_text()
    assert place in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_without_prepared_rows_it_says_what_to_run(project: Path) -> None:
    shutil.rmtree(project / "data/prepared/triage")
    done = validated(project)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: data/prepared/triage: no prepared rows; run `python -m scripts.prepare --dataset triage`"
    )


def test_a_prepared_row_that_is_none_is_one_line(project: Path) -> None:
    spoil(project, lambda row: row._replace(answer=None))  # type: ignore[arg-type]
    done = validated(project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/prepared/triage/train.jsonl:1: not a prepared row")
    assert "Traceback" not in done.stderr
