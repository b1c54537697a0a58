"""A change computes what it changes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.act.changes import DOCS, rows, wording
from tests.act.conftest import PEOPLE
from tests.act.project import REPOSITORY, Outcome, Project, Pull, handed_over
from tests.standin.github import GitHub

pytestmark = pytest.mark.slow
NEW = wording("short, warm")  # evaluated by no other test of this session
ASIDE = ["latency_ms", "ttft_ms", "is_cached"]  # measured, or about where an answer lay


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[tuple[Pull, Outcome]]:
    """A pull request that changes a prompt which no training renders, on one runner."""
    with GitHub(REPOSITORY) as github:
        github.collaborators |= PEOPLE
        pull = Project(tmp_path_factory.mktemp("prompt"), base, github).open(NEW)
        yield pull, pull.run()


def test_documentation_alone_asks_for_no_runner_and_evaluates_nothing(project: Project) -> None:
    pull = project.open(DOCS)
    with project.variables(GATEHOUSE_RUNNER='"gpu-box"'):
        outcome = pull.run()
    assert outcome.computed.ran == {"plan", "done"}
    assert pull.status == "success", outcome.log
    assert "Gatehouse: pass" in pull.comment
    assert project.records() == {}


def test_a_prompt_that_no_training_renders_trains_nothing(evaluated: tuple[Pull, Outcome]) -> None:
    pull, outcome = evaluated
    assert pull.status == "success", outcome.log
    stages = handed_over(pull.project, outcome.computed)
    assert stages["evaluate@reply"] == "computed"
    assert {stages[name] for name in ("fetch@base", "train", "evaluate@triage", "latency")} <= {"cached", "unchanged"}
    assert "Training 0 s" in "".join(outcome.computed.summaries)


def test_shards_on_two_runners_give_the_rows_of_one(project: Project, evaluated: tuple[Pull, Outcome]) -> None:
    pull = project.open(NEW)
    with project.variables(GATEHOUSE_SHARDS="2"):
        outcome = pull.run()
    assert outcome.computed.ran == {"plan", "train", "answer", "evaluate", "done"}
    assert pull.status == "success", outcome.log
    assert "computed 0, cached" in outcome.computed.log  # the shards' answers were all there
    one, two = (artifact(each.project, run.computed.number) for each, run in (evaluated, (pull, outcome)))
    for suite in ("reply", "triage"):
        pd.testing.assert_frame_equal(*(read(folder / f"evaluation/{suite}/rows.parquet") for folder in (one, two)))


def test_new_data_is_evaluated_and_trains_nothing(project: Project) -> None:
    pull = project.open(rows(8))
    outcome = pull.run()
    stages = handed_over(project, outcome.computed)
    computed = {name for name, what in stages.items() if what == "computed"} - {"machine"}
    assert computed == {"prepare@reply", "validate@reply", "evaluate@reply"}
    assert pull.status == "pending", outcome.log  # a floor is now measured on other rows: a person looks at them
    assert "8 rows added to 24" in pull.comment


def artifact(project: Project, number: int) -> Path:
    return project.folder / f"store/artifacts/{number}/hand-over"


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).drop(columns=ASIDE)
