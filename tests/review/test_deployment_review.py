"""A required reviewer of an environment lifts what waits for a person: by GitHub's word, for exactly one commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.core.github.api import Api
from pipelines.core.github.replies import Unreachable
from pipelines.review import deployment_review
from pipelines.review.approval import Approved
from pipelines.review.lifting import _combined
from pipelines.review.pull_request import PullRequest, Run, read_run
from tests.standin.github import GitHub

HEAD = "a" * 40
PULL = PullRequest(7, HEAD, "main", "dev", False, False, "Title", "open")
WAITS = Approved(None, "an owner of a (@ada) has to approve")
RUN: dict[str, Any] = {
    "id": 90, "path": ".github/workflows/approve.yml", "event": "workflow_dispatch", "status": "completed",
    "conclusion": "success", "head_sha": HEAD, "head_branch": "change", "head_repository": {"full_name": "o/r"},
    "html_url": "https://github.example/o/r/actions/runs/90",
}  # fmt: skip


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(7, head=HEAD)
        server.collaborators |= {"ada": "admin", "bob": "write", "dev": "write", "reader": "read"}
        server.runs = [RUN]
        server.job(90, "Wait for a required reviewer", "success")
        yield server


def ask(github: GitHub, owners: Approved = WAITS) -> Approved:
    api = Api("o/r", github.token, base_url=github.url, sleep=lambda seconds: None)
    return _combined(owners, api, PULL, of_branch())


def of_branch() -> Run:
    """The evaluation that is judged: it says what the branch is called and where it lies."""
    return read_run(RUN | {"id": 77, "path": ".github/workflows/pull-request.yml", "event": "pull_request"})


def test_who_when_why_and_where_are_known(github: GitHub) -> None:
    github.approval(90, "bob")
    found = ask(github)
    assert found.approval is not None
    assert found.approval.model_dump() == {
        "user": "bob", "at": github.jobs[90][0]["started_at"], "why": "bob looked",
        "review_url": "https://github.example/o/r/actions/runs/90", "environment": "manual-review",
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"head_sha": "b" * 40},
        {"head_branch": "other"},
        {"head_repository": {"full_name": "eve/r"}},
        {"path": ".github/workflows/approve-too.yml"},
        {"event": "pull_request"},
    ],
)
def test_a_run_of_another_commit_branch_repository_file_or_event_lifts_nothing(
    github: GitHub, other: dict[str, Any]
) -> None:
    github.approval(90, "ada")
    github.runs = [RUN | other]
    assert ask(github) == WAITS


@pytest.mark.parametrize(
    ("user", "state", "environment"),
    [
        ("dev", "approved", "manual-review"),  # the author
        ("Dev", "approved", "manual-review"),
        ("reader", "approved", "manual-review"),  # may not write to the repository
        ("bot[bot]", "approved", "manual-review"),
        ("ada", "pending", "manual-review"),  # a comment
        ("ada", "approved", "pull-request"),  # another environment
    ],
)
def test_who_may_not_say_so_lifts_nothing(github: GitHub, user: str, state: str, environment: str) -> None:
    github.collaborators |= {"bot[bot]": "admin", "Dev": "write"}
    github.approval(90, user, state, environment)
    assert ask(github) == WAITS


def test_nobody_asked_nobody_answered_and_no_such_workflow_are_no_approval(github: GitHub) -> None:
    assert ask(github) == WAITS
    github.runs = []
    assert ask(github) == WAITS
    github.answers["GET /repos/o/r/actions/workflows/approve.yml/runs"] = [404, {"message": "Not Found"}]
    assert ask(github) == WAITS


def test_a_rejection_outweighs_and_the_newest_run_that_was_decided_counts(github: GitHub) -> None:
    github.approval(90, "bob")
    github.approval(90, "ada", "rejected")
    found = ask(github)
    assert (found.approval, found.is_refused) == (None, True)
    assert found.lacking.startswith("ada, a reviewer of environment manual-review, has rejected it")
    github.runs = [RUN | {"id": 91}, RUN]
    assert ask(github) == found, "the newer run waits: nobody has decided about it"
    github.approval(91, "bob")
    assert ask(github).approval is not None


def test_an_owners_word_comes_first(github: GitHub) -> None:
    github.approval(90, "bob")
    refused = Approved(None, "ada, who owns a, asks for changes", is_refused=True)
    assert ask(github, refused) == refused
    github.fail_next(503, 100, "approvals")
    assert ask(github, refused) == refused


def test_it_is_not_guessed_while_github_is_down(github: GitHub) -> None:
    github.approval(90, "bob")
    github.fail_next(503, 100, "approvals")
    with pytest.raises(Unreachable):
        ask(github)


@pytest.mark.parametrize(
    "answer", [{}, [None], [{"state": "approved"}], [{"state": "approved", "environments": None, "user": None}]]
)
def test_an_answer_of_another_shape_is_no_approval(github: GitHub, answer: Any) -> None:
    github.answers["GET /repos/o/r/actions/runs/90/approvals"] = [200, answer]
    assert deployment_review.ask(
        Api("o/r", github.token, base_url=github.url, sleep=lambda seconds: None), PULL, of_branch()
    ) == (None, "")
