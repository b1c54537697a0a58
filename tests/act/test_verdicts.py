"""A pull request from its first push to its verdict, in one comment."""

from __future__ import annotations

import pytest

from tests.act.changes import DOCS, GOOD, LONG
from tests.act.project import BOT, Project

pytestmark = pytest.mark.slow


def test_a_good_change_goes_from_in_progress_to_pass_and_is_recorded(project: Project) -> None:
    pull = project.open(GOOD)
    pull.announce()
    assert "in progress" in pull.comment
    assert (pull.status, pull.description) == ("pending", "is being evaluated")
    judged = pull.judge(pull.compute().conclusion)
    assert pull.status == "success", judged.log
    assert "Gatehouse: pass" in pull.comment
    assert pull.head in pull.comment
    (record,) = project.records().values()
    assert (record["verdict"], record["pull_request"], record["head"]) == ("pass", pull.number, pull.head)
    # The App's token is in one job only, and nothing was written with another.
    assert {job: result for job, result in judged.jobs.items() if result != "skipped"} == {
        "judge": "success", "speak": "success",
    }  # fmt: skip
    assert {call.login for call in project.github.posts} == {BOT}


def test_a_second_push_turns_the_same_comment_from_fail_to_pass(project: Project) -> None:
    pull = project.open(LONG)
    first = pull.run()
    assert pull.status == "failure", first.log
    assert "Gatehouse: fail" in pull.comment
    assert "completion_tokens" in pull.comment
    (identity,) = [one["id"] for one in project.github.comments]
    red = pull.head
    pull.push({**dict.fromkeys(LONG, project.at_main("prompts/reply.prompt.yml")), **DOCS})
    pull.push(GOOD)
    second = pull.run()
    assert pull.status == "success", second.log
    assert [one["id"] for one in project.github.comments] == [identity]
    assert "Gatehouse: pass" in pull.comment
    assert project.github.status(red) == "failure"


def test_a_verdict_on_a_head_that_has_moved_on_is_not_posted(project: Project) -> None:
    pull = project.open(GOOD)
    pull.announce()
    computed = pull.compute()
    stale, before = pull.head, pull.comment
    pull.push(DOCS)
    judged = pull.judge(computed.conclusion, head=stale)
    assert judged.conclusion == "success", judged.log
    assert "has moved on" in judged.log
    assert pull.comment == before
    assert pull.status is None
    assert project.github.status(stale) == "pending"
    assert project.records() == {}
