"""What a person has to decide, who may, and for how long."""

from __future__ import annotations

import shutil

import pytest

from tests.act.changes import DOCS, GOOD, ceiling
from tests.act.project import Project

pytestmark = pytest.mark.slow


def test_a_loosened_gate_waits_for_an_owner_who_approves_exactly_this_head(project: Project) -> None:
    pull = project.open({**GOOD, **ceiling(50.0)})
    outcome = pull.run()
    assert pull.status == "pending", outcome.log
    assert "a person must decide" in pull.comment
    assert "ceiling" in pull.comment
    pull.approve("dora")  # the author, and no owner
    assert pull.status == "pending"
    lifted = pull.approve("olivia")
    assert pull.status == "success", lifted.log
    assert "approved by olivia" in pull.description
    (record,) = project.records().values()
    assert record["approval"]["user"] == "olivia"
    approved = pull.head
    pull.push(DOCS)
    again = pull.run()
    assert pull.status == "pending", again.log
    assert project.github.status(approved) == "success"


def test_a_required_reviewer_of_the_environment_lifts_exactly_this_head(project: Project) -> None:
    pull = project.open({".github/ISSUE_TEMPLATE/bug.yml": "name: A bug\n"})  # nothing to evaluate, but a person to ask
    outcome = pull.run()
    assert pull.status == "pending", outcome.log
    pull.let_go_on("olivia", "rejected")
    assert pull.status == "pending"
    assert "has rejected it" in pull.comment
    lifted = pull.let_go_on("olivia")
    assert pull.status == "success", lifted.log
    assert "approved by olivia" in pull.description
    assert "in the environment manual" in pull.comment


def test_a_draft_takes_the_same_path(project: Project) -> None:
    pull = project.open(GOOD, draft=True)
    outcome = pull.run()
    assert pull.status == "success", outcome.log
    assert "Gatehouse: pass" in pull.comment


def test_a_fork_gets_no_runner_no_remote_and_no_pass(project: Project) -> None:
    # Without a remote, main leaves its objects in GitHub's cache, which every pull request may read.
    cache = project.folder / "store/caches/refs%heads%main/gatehouse-kept"
    shutil.copytree(project.remote, cache / ".dvc/cache")
    pull = project.open(GOOD, fork="stranger/desk", author="stranger")
    with project.variables(GATEHOUSE_RUNNER='"gpu-box"'):
        outcome = pull.run()
    assert outcome.computed.jobs == {"plan": "success", "evaluate": "success", "done": "success"}
    assert not (project.remote / "pr").exists()
    assert pull.status == "pending", outcome.log
    assert "a person must decide" in pull.comment
    assert "comes from a fork" in pull.comment
