"""What goes wrong outside of a pull request is said, and never green."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.act.changes import DOCS, GOOD
from tests.act.project import MARKER, Project

pytestmark = pytest.mark.slow


def test_a_remote_that_returns_altered_bytes_half_way_is_an_error(project: Project) -> None:
    largest = max(project.remote.glob("files/md5/*/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"other" + largest.read_bytes()[5:])
    pull = project.open(GOOD)
    outcome = pull.run()
    assert outcome.computed.conclusion == "failure"
    assert "altered bytes" in outcome.computed.log
    assert pull.status == "error", outcome.log
    assert "nothing was decided" in pull.comment
    assert str(outcome.computed.number) in pull.comment
    assert project.records() == {}


def test_an_api_that_is_down_for_a_while_delays_the_verdict(project: Project) -> None:
    pull = project.open(DOCS)
    project.github.fail_next(503, 2)
    project.github.fail_next(0, 1, "comments")
    outcome = pull.run()
    assert pull.status == "success", outcome.log
    assert len(pull.comments) == 1


@pytest.mark.parametrize("what", ["token", "key"])
def test_an_app_whose_token_has_expired_or_whose_key_is_gone_ends_in_an_error(project: Project, what: str) -> None:
    pull = project.open(DOCS)
    if what == "token":
        del project.github.tokens["app-token"]
    else:
        project.secrets["GATEHOUSE_APP_KEY"] = ""
    outcome = pull.run()
    assert outcome.judged.conclusion == "failure"
    assert ("401" if what == "token" else "private-key is empty") in outcome.judged.log
    assert pull.status is None, "nothing is said in the App's name"
    assert project.github.status(pull.head) == "error", outcome.log
    assert "nothing was decided" in pull.comment
    assert "did not come to an end" in pull.comment


def test_judging_that_breaks_is_said_by_the_job_that_speaks(project: Project) -> None:
    pull = project.open(DOCS)
    pull.announce()
    computed = pull.compute()
    project.github.fail_next(404, math.inf, "actions/runs")
    judged = pull.judge(computed.conclusion)
    assert (judged.jobs["judge"], judged.jobs["speak"], judged.conclusion) == ("failure", "success", "failure")
    assert pull.status == "error", judged.log
    assert "did not come to an end" in pull.description
    assert "did not come to an end" in pull.comment
    project.github.failures.clear()
    again = pull.judge(computed.conclusion)
    assert pull.status == "success", again.log
    assert "Gatehouse: pass" in pull.comment


def test_beyond_a_hundred_comments_ours_is_still_found(project: Project) -> None:
    pull = project.open(DOCS)
    for at in range(60):
        project.github.comment(pull.number, f"Comment {at}", "talker")
    pull.announce()
    for at in range(70):
        project.github.comment(pull.number, f"Comment {at}", "talker")
    pull.judge(pull.compute().conclusion)
    assert pull.status == "success"
    assert "Gatehouse: pass" in pull.comment


def test_two_pushes_at_once_end_with_one_comment_about_the_later(project: Project) -> None:
    pull = project.open(DOCS)
    first, earlier = pull.compute_as(1000), pull.head
    pull.push({"docs/guide.md": "# Guide\n\nRead on, twice.\n"})
    second = pull.compute_as(1001)
    # GitHub lets one wait for the other (`concurrency`); here nothing does.
    with ThreadPoolExecutor(2) as pool:
        judged = [
            pool.submit(pull.judge, first.conclusion, head=earlier, number=1000),
            pool.submit(pull.judge, second.conclusion, number=1001),
        ]
    assert [each.result().conclusion for each in judged] == ["success", "success"]
    assert pull.status == "success"
    assert pull.head in pull.comment
    assert project.github.status(earlier) is None
    assert sum(MARKER in one["body"] for one in project.github.comments) == 1
