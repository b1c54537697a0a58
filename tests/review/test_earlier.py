"""Code that an earlier push changed may have forged what later ones took from caches."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.github.api import Api
from pipelines.core.github.replies import Refused
from pipelines.review import earlier
from pipelines.review.earlier import earlier_code
from pipelines.review.pull_request import PullRequest, Run
from tests.standin.github import GitHub


class Branch:
    """A clone of main and the pushes of one branch."""

    def __init__(self, folder: Path, github: GitHub) -> None:
        self.github, self.origin, self.clone = github, folder / "origin", folder / "clone"
        self.origin.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")
        self.main = self.commit("README.md")
        subprocess.run(["git", "clone", "--quiet", str(self.origin), str(self.clone)], check=True)

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Dev", "-c", "user.email=dev@example.com"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=self.origin, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, path: str) -> str:
        place = self.origin / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path, encoding="utf-8")
        self.git("add", path)
        self.git("commit", "--quiet", "--message", path)
        return self.git("rev-parse", "HEAD")

    def push(self, path: str, *, repository: str = "o/r", event: str = "pull_request") -> str:
        """Push one commit on top of main in place of what the branch was, and let its workflow run."""
        self.git("checkout", "--quiet", "--detach", self.main)
        head = self.commit(path)
        self.github.runs.insert(
            0,
            {"id": len(self.github.runs) + 1, "head_sha": head, "head_branch": "change", "event": event,
             "head_repository": {"full_name": repository}, "created_at": "2026-10-02T08:00:00Z"},
        )  # fmt: skip
        return head

    def moved(self, before: str, after: str, *, branch: str = "change", kind: str = "force_push") -> None:
        """Let GitHub list a push, whether or not a run of it is still there."""
        self.github.activities.insert(
            0, {"ref": f"refs/heads/{branch}", "before": before, "after": after, "activity_type": kind}
        )

    def said(self, head: str, *, is_fork: bool = False) -> list[str]:
        """Return what is said of the pull request at this head."""
        self.github.pull(3, head=head, created_at="2026-11-01T00:00:00Z")
        found = PullRequest(3, head, "main", "dev", is_fork, False, "A change", "open")
        run = Run(9, "", "pull_request", "completed", "success", head, "change", "o/r", "")
        api = Api("o/r", self.github.token, base_url=self.github.url)
        return earlier_code(api, found, run, self.clone, self.main)


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with GitHub() as github:
        yield Branch(tmp_path, github)


def test_a_push_that_changed_code_is_remembered_although_it_was_replaced(branch: Branch) -> None:
    forged = branch.push("pipelines/llm/answers.py")
    branch.push("prompts/reply.prompt.yml")
    (sentence,) = branch.said(branch.push("prompts/triage.prompt.yml"))
    assert f"({forged[:12]}) changed code" in sentence


def test_pushes_of_data_alone_are_not_held_against_anybody(branch: Branch) -> None:
    branch.push("data/reply.jsonl")
    assert branch.said(branch.push("prompts/reply.prompt.yml")) == []


def test_the_head_itself_is_judged_elsewhere(branch: Branch) -> None:
    assert branch.said(branch.push("scripts/gate.py")) == []


def test_a_head_that_nobody_can_look_at_counts_as_code(branch: Branch) -> None:
    branch.push("data/reply.jsonl")
    branch.github.runs[0]["head_sha"] = "f" * 40
    (sentence,) = branch.said(branch.push("prompts/reply.prompt.yml"))
    assert "(ffffffffffff)" in sentence


def test_another_fork_of_the_same_name_does_not_count(branch: Branch) -> None:
    branch.push("scripts/gate.py", repository="somebody/r")
    assert branch.said(branch.push("prompts/reply.prompt.yml")) == []


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
def test_a_workflow_before_the_pull_request_can_have_filled_the_cache(branch: Branch, event: str) -> None:
    forged = branch.push(".github/workflows/warm.yml", event=event)
    (sentence,) = branch.said(branch.push("prompts/triage.prompt.yml"))
    assert forged[:12] in sentence


def test_a_push_whose_run_was_deleted_is_remembered(branch: Branch) -> None:
    forged = branch.push(".github/workflows/warm.yml")
    honest = branch.push("prompts/triage.prompt.yml")
    branch.github.runs.clear()
    branch.moved("0" * 40, branch.main, kind="branch_creation")
    branch.moved(branch.main, honest)
    assert branch.said(honest) == []
    branch.moved(forged, honest, branch="other")
    assert branch.said(honest) == []
    branch.moved(forged, honest)
    (sentence,) = branch.said(honest)
    assert forged[:12] in sentence
    assert branch.said(honest, is_fork=True) == []  # that is a branch of the same name here


@pytest.mark.parametrize("status", [403, 404])
def test_a_github_that_lists_no_pushes_is_asked_for_runs_alone(branch: Branch, status: int) -> None:
    branch.github.fail_next(status, math.inf, "/activity")
    assert branch.said(branch.push("prompts/reply.prompt.yml")) == []
    branch.push("scripts/gate.py")
    assert len(branch.said(branch.push("prompts/reply.prompt.yml"))) == 1


def test_a_github_that_fails_to_list_pushes_is_no_excuse(branch: Branch) -> None:
    branch.github.fail_next(422, math.inf, "/activity")
    with pytest.raises(Refused):
        branch.said(branch.push("prompts/reply.prompt.yml"))


@pytest.mark.parametrize("limit", ["MOST_HEADS", "MOST_LISTED"])
def test_more_pushes_than_are_looked_at_wait_for_a_person(
    branch: Branch, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, limit, 2)
    branch.push("data/0.jsonl")
    assert branch.said(branch.push("data/1.jsonl")) == []
    branch.push("data/2.jsonl")
    (sentence,) = branch.said(branch.push("data/3.jsonl"))
    assert "more pushes than are looked at" in sentence
