"""Code that an earlier push changed may have forged what later ones took from caches."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.github.api import Api
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

    def push(self, path: str, *, repository: str = "o/r", created: str = "2026-11-02T08:00:00Z") -> str:
        """Push one commit on top of main in place of what the branch was, and let its workflow run."""
        self.git("checkout", "--quiet", "--detach", self.main)
        head = self.commit(path)
        self.github.runs.insert(
            0,
            {"id": len(self.github.runs) + 1, "head_sha": head, "head_branch": "change", "event": "pull_request",
             "head_repository": {"full_name": repository}, "created_at": created},
        )  # fmt: skip
        return head

    def said(self, head: str) -> list[str]:
        """Return what is said of the pull request at this head."""
        self.github.pull(3, head=head, created_at="2026-11-01T00:00:00Z")
        found = PullRequest(3, head, "main", "dev", False, False, "A change", "open")
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


def test_another_fork_and_an_older_pull_request_of_the_same_name_do_not_count(branch: Branch) -> None:
    branch.push("scripts/gate.py", repository="somebody/r")
    branch.push("scripts/report.py", created="2026-10-02T08:00:00Z")
    assert branch.said(branch.push("prompts/reply.prompt.yml")) == []
