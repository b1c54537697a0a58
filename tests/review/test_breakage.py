"""What is said of a run that broke: the job and the step, as the text that anybody may have written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.core.github.api import Api
from pipelines.core.markdown import inline
from pipelines.review import judging
from pipelines.review.breakage import place
from tests.standin.github import GitHub

HEAD = "a" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        yield server


def connect(github: GitHub) -> Api:
    return Api("o/r", github.token, base_url=github.url, sleep=lambda seconds: None)


def test_the_first_job_that_failed_is_named_and_not_those_that_fell_with_it(github: GitHub) -> None:
    github.job(77, "Plan", "success", ("Set up job", "success"))
    github.job(77, "Done", "failure", ("Look", "failure"))["completed_at"] = "2026-11-02T08:20:00Z"
    github.job(77, "Shard 2", "cancelled", ("Answer", "cancelled"))["completed_at"] = "2026-11-02T08:01:00Z"
    steps = ("Set up job", "success"), ("Run ./actions/reproduce", "failure"), ("Post Run", "success")
    github.job(77, "Evaluate", "failure", *steps)["completed_at"] = "2026-11-02T08:10:00Z"
    assert place(connect(github), 77) == " in job 'Evaluate', step 'Run ./actions/reproduce'"


def test_a_job_beyond_the_first_page_is_found(github: GitHub) -> None:
    for at in range(120):
        github.job(77, f"Shard {at}", "success")
    github.job(77, "Evaluate", "timed_out")
    assert place(connect(github), 77) == " in job 'Evaluate'"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_github_does_not_say_is_left_out(github: GitHub, status: int) -> None:
    github.job(77, "Evaluate", "failure")
    github.fail_next(status, 100, "/jobs")
    assert place(connect(github), 77) == ""


def test_names_stay_one_short_line_of_text(github: GitHub) -> None:
    github.job(
        77,
        "x'\n::error::<img src=x> @o/team [a](https://evil.example)" + "y" * 5000,
        "failure",
        ("`\x1b[2J`", "failure"),
    )
    said = place(connect(github), 77)
    assert len(said) < 200
    assert said.isprintable()
    shown = inline(said, 600)
    assert "<img" not in shown
    assert "](https" not in shown


def test_the_reason_of_a_failed_run_names_it_and_links_the_run(github: GitHub) -> None:
    github.pull(7, head=HEAD)
    github.job(77, "Train", "failure", ("Run ./actions/reproduce", "failure"))
    url = "https://github.example/o/r/actions/runs/77"
    run = {"id": 77, "path": ".github/workflows/pull-request.yml", "event": "pull_request", "status": "completed",
           "conclusion": "failure", "head_sha": HEAD, "head_branch": "change", "html_url": url,
           "head_repository": {"full_name": "o/r"}}  # fmt: skip
    github.runs.append(run)
    found = judging.find(connect(github), {"action": "completed", "workflow_run": run}, "main").context
    assert found.state == "failed"
    where = "in job 'Train', step 'Run ./actions/reproduce'"
    assert found.reason == f"the evaluation ended with 'failure' {where}; its log says why: {url}"
