from pathlib import Path

import pytest

from pipelines.core.params import load_params
from pipelines.evaluation import timings
from pipelines.evaluation.record import Outcome
from pipelines.evaluation.timings import measure_once
from tests.scratch import Scratch


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Scratch:
    project = Scratch(tmp_path / "project", tiny_model, n_rows=24)
    project.params["latency"]["requests"] = 5
    project.save()
    return project


def measured(project: Scratch, *, is_fresh: bool = False) -> Outcome:
    project.save()
    return measure_once(load_params(project.folder / "params.yaml"), root=project.folder, is_fresh=is_fresh)


def test_the_same_model_is_timed_once_and_says_so(project: Scratch) -> None:
    first = measured(project)
    rows = project.folder / "evaluation/latency/rows.parquet"
    before = rows.read_bytes()
    rows.unlink()
    again = measured(project)
    assert again.summary == first.summary
    assert rows.read_bytes() == before
    assert again.notes[0].endswith("same model, prompt and kind of machine")


def test_a_changed_prompt_or_a_wish_for_fresh_figures_is_timed_anew(project: Scratch) -> None:
    measured(project)
    assert measured(project, is_fresh=True).notes == ()
    prompt = project.folder / "prompts/triage.prompt.yml"
    prompt.write_text(prompt.read_text().replace("Label the", "Please label the"))
    assert measured(project).notes == ()


def test_times_of_another_engine_are_measured_anew(project: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(project)
    monkeypatch.setattr(timings, "engine_digest", lambda: "another version of torch")
    assert measured(project).notes == ()


def test_kept_times_that_are_broken_are_measured_again(project: Scratch) -> None:
    measured(project)
    for path in (project.folder / ".cache/latency").glob("*/run.json"):
        path.write_text("{")
    assert measured(project).notes == ()
