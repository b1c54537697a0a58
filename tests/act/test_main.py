"""main takes over what a pull request computed, file by file, and trains nothing twice."""

from __future__ import annotations

import json
import sqlite3

import pytest

from tests.act import events
from tests.act.project import REPOSITORY, Project
from tests.act.runner import Run

pytestmark = pytest.mark.slow


def test_main_takes_over_what_was_decided_and_registers_it_once(project: Project) -> None:
    pull = project.open({"params.yaml": lambda text: text.replace("epochs: 0.5", "epochs: 0.7")})
    outcome = pull.run()
    assert "train" in {name for name, what in json.loads(stages(outcome.computed)).items() if what == "computed"}
    assert pull.status == "success", outcome.log
    project.merge(pull)

    kept = {path: path.read_bytes() for path in (project.remote / "pr/1/files").rglob("*") if path.is_file()}
    victim = max(kept, key=lambda path: len(kept[path]))
    victim.write_bytes(b"x" + kept[victim][1:])
    poisoned = project.push_to_main()
    assert poisoned.conclusion == "failure"
    assert "altered bytes" in poisoned.log
    assert versions(project) == 0

    victim.write_bytes(kept[victim])
    run = project.push_to_main()
    assert run.conclusion == "success", run.log
    assert "took over" in run.log
    assert set(json.loads(stages(run)).values()) <= {"unchanged", "cached", "computed"}
    assert {name for name, what in json.loads(stages(run)).items() if what == "computed"} <= {"machine"}
    assert versions(project) == 1
    project.push_to_main()
    assert versions(project) == 1


def test_every_night_the_candidate_is_judged_against_itself_and_the_figures_are_published(project: Project) -> None:
    run = project.start("nightly.yml", "schedule", events.push(REPOSITORY, project.main), project.main)
    assert run.conclusion == "success", run.log
    published = project.folder / f"store/artifacts/{run.number}/noise/noise.md"
    assert published.read_text(encoding="utf-8").strip() in "".join(run.summaries)
    assert {name for name, what in json.loads(stages(run)).items() if what == "computed"} <= {"machine"}


def stages(run: Run) -> str:
    """Return what became of each stage, as JSON."""
    return [one["stages"] for one in run.outputs.values() if "stages" in one][-1]


def versions(project: Project) -> int:
    """Return how many versions MLflow's registry holds."""
    path = project.folder / "mlflow.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        return int(database.execute("select count(*) from model_versions").fetchone()[0])
