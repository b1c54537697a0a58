"""What verdict.yml does with honest pull requests: pass, fail, review, approval, and a record of each."""

from __future__ import annotations

import json

import pytest
import yaml

from pipelines.core.files import read_json
from tests.evaluation.test_baseline import git
from tests.review.world import AUTHOR, FILES, N_ROWS, OWNER, World, data_rows, jsonl

BETTER = {"prompts/triage.prompt.yml": FILES["prompts/triage.prompt.yml"].replace("Label:", "Please label:")}
CODE = {"pipelines/code.py": "A = 2\n"}


def test_a_better_prompt_passes_and_its_decision_is_recorded(world: World) -> None:
    head = world.change(BETTER)
    context, concluded = world.ask(head, world.evaluate(head))
    assert (context.state, context.caps, concluded.verdict) == ("ready", [], "pass"), concluded
    assert world.status(head) == "success"
    record = world.record(context)
    assert record is not None
    assert (record.verdict, record.pull_request, record.head, record.approval) == ("pass", 7, head, None)
    assert set(record.manifest) > {"evaluation/triage/rows.parquet"}
    assert yaml.safe_load(record.lock)["stages"]
    decision = read_json(world.main / "judging/evaluation/decision.json")
    assert (decision["baseline"]["state"], decision["commit"]) == ("fetched", head)
    assert decision["gates"][0]["checks"][1]["gain"] == pytest.approx(10 / N_ROWS)


def test_what_it_merges_to_has_the_digest_that_was_decided(world: World) -> None:
    from pipelines.core.inputs import input_digest_at

    head = world.change(BETTER)
    context, _ = world.ask(head, world.evaluate(head))
    git(world.dev, "checkout", "--quiet", "-B", "squashed", "origin/main")
    git(world.dev, "merge", "--quiet", "--squash", "change")
    git(world.dev, "commit", "--quiet", "--message", "Squash")
    assert input_digest_at("HEAD", world.dev) == context.input_digest
    git(world.dev, "push", "--quiet", "origin", "squashed:main")
    from pipelines.evaluation.baseline import fetch_baseline

    git(world.main, "pull", "--quiet", "origin", "main")
    # Nobody has handed the objects over to main's remote yet: that asks for review and is no pass.
    assert fetch_baseline("HEAD", world.main).state == "unavailable"


def test_a_worse_one_fails_and_no_approval_lifts_that(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    world.github.review(7, OWNER, "APPROVED", head)
    context, concluded = world.ask(head, world.evaluate(head, n_right=10))
    assert (context.approval is not None, concluded.verdict) == (True, "fail")
    assert world.status(head) == "failure"
    record = world.record(context)
    assert record is not None
    assert (record.is_trusted, record.approval) == (False, None)


def test_a_change_of_code_waits_for_an_owner_and_the_next_push_waits_again(world: World) -> None:
    head = world.change(CODE)
    context, concluded = world.ask(head, world.evaluate(head))
    assert concluded.verdict == "manual_review"
    assert "pipelines/code.py" in context.caps[0]
    assert world.status(head) == "pending"
    review = world.github.review(7, OWNER, "APPROVED", head)
    review["body"] = "Read it:\nfine."
    world.github.runs = [{**world.event(head)["workflow_run"]}]
    woken = world.event(head, id=78, path=".github/workflows/review.yml", event="pull_request_review")
    context, concluded = world.judge(woken, world.evaluate(head))
    assert (concluded.verdict, world.status(head)) == ("pass", "success")
    decision = read_json(world.main / "judging/evaluation/decision.json")
    assert decision["approval"] == {"user": OWNER, "at": review["submitted_at"], "why": "Read it: fine.",
                                    "review_url": review["html_url"], "environment": ""}  # fmt: skip
    assert "pipelines/code.py" in " ".join(decision["caps"])
    record = world.record(context)
    assert record is not None
    assert record.approval is not None
    assert (record.approval.user, record.is_trusted) == (OWNER, True)
    page = (world.main / "judging/evaluation/report.md").read_text()
    assert OWNER in page
    assert "pipelines/code.py" in page
    again = world.change({"pipelines/code.py": "A = 3\n"})
    _, concluded = world.ask(again, world.evaluate(again))
    assert (concluded.verdict, world.status(again)) == ("manual_review", "pending")


def test_a_team_member_approves_what_the_team_owns_and_nothing_else(world: World) -> None:
    owned = {"prompts/judges/tone.prompt.yml": FILES["prompts/triage.prompt.yml"]}
    for number, (files, verdict) in enumerate([(owned, "pass"), (CODE, "manual_review")], start=7):
        head = world.change(files)
        world.open(number, head)
        world.github.review(number, "teammate", "APPROVED", head)
        assert world.ask(head, world.evaluate(head), number=number)[1].verdict == verdict
        world.github.pulls[number]["state"] = "closed"


def test_documentation_needs_no_evaluation_and_workflows_need_a_person(world: World) -> None:
    head = world.change({"docs/a.md": "Read me twice.\n", "README.md": "Hello.\n"})
    context, concluded = world.ask(head, None)
    assert (context.state, concluded.verdict, concluded.recorded) == ("nothing", "pass", False)
    assert world.status(head) == "success"
    head = world.change({"k8s/runners/values.yaml": "a: 1\n"})
    context, concluded = world.ask(head, None)
    assert (context.state, concluded.verdict) == ("ready", "manual_review")
    assert (world.status(head), concluded.recorded) == ("pending", False)


@pytest.mark.parametrize(("fold", "verdict"), [("a", "pass"), ("b", "manual_review")])
def test_rows_to_train_on_are_free_and_rows_to_measure_on_are_looked_at(world: World, fold: str, verdict: str) -> None:
    rows = [*data_rows(), {"message": "a wholly new question about bees", "answer": "a1", "slice": "odd", "fold": fold}]
    params = yaml.safe_load(FILES["params.yaml"])
    params["train"]["learning_rate"] = 0.001
    head = world.change({"data/triage.jsonl": jsonl(rows), "params.yaml": yaml.safe_dump(params)})
    context, concluded = world.ask(head, world.evaluate(head))
    assert (context.caps, concluded.verdict) == ([], verdict), concluded


def test_a_run_that_begins_is_pending_and_one_that_broke_is_an_error(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    assert world.judge(world.event(head, action="requested"), None)[0].state == "pending"
    assert world.status(head) == "pending"
    for conclusion in ("failure", "cancelled", "timed_out", "startup_failure"):
        context, concluded = world.judge(world.event(head, conclusion=conclusion), None)
        assert (context.state, concluded.verdict) == ("failed", "error")
        assert conclusion in context.reason
    assert world.status(head) == "error"
    assert (world.main / "judging/evaluation/report.md").exists()


def test_a_run_that_was_requested_and_has_ended_since_says_nothing(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    requested = world.event(head, action="requested")
    world.event(head)
    context, concluded = world.judge(requested, None)
    assert (context.state, concluded.verdict) == ("stale", "")
    assert world.github.posts == []


def test_a_run_that_is_run_again_is_pending_whatever_its_first_end_was(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    ended = world.event(head, conclusion="failure")
    world.github.runs[0] |= {"status": "in_progress", "conclusion": None, "run_attempt": 2}
    assert world.judge(ended, None)[0].state == "pending"
    assert world.status(head) == "pending"


@pytest.mark.parametrize("newer", [{"status": "completed"}, {"status": "in_progress", "conclusion": None}])
def test_a_newer_run_of_the_same_commit_is_the_one_that_counts(world: World, newer: dict[str, str]) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    first = world.event(head)
    world.event(head, id=78, **newer)
    context, _ = world.judge(first, world.evaluate(head))
    assert (context.state, context.reason) == ("stale", "a newer run evaluates this commit")
    for other in ({"path": ".github/workflows/evil.yml"}, {"head_repository": {"full_name": "eve/r"}}):
        world.event(head, id=78, **other)
        assert world.judge(first, world.evaluate(head))[0].state == "ready"
        assert world.status(head) == "success"


def test_a_run_that_a_push_cancelled_is_no_error(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    cancelled = world.event(head, conclusion="cancelled")
    newer = world.event("a" * 40, id=78, action="requested")  # GitHub does not show the push to everybody at once
    context, concluded = world.judge(cancelled, None)
    assert (context.state, concluded.verdict, world.github.posts) == ("stale", "", [])
    world.github.runs.remove(newer["workflow_run"])
    assert world.judge(cancelled, None)[1].verdict == "error"


@pytest.mark.parametrize("action", ["requested", "completed"])
def test_a_run_that_nobody_has_let_start_is_pending(world: World, action: str) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    event = world.event(head, action=action, status="completed", conclusion="action_required")
    context, _ = world.judge(event, None)
    assert (context.state, context.reason) == ("pending", "waits for a maintainer to let it run")
    assert world.status(head) == "pending"


def test_main_that_has_moved_on_asks_for_an_update_only_where_its_inputs_changed(world: World) -> None:
    before = git(world.dev, "rev-parse", "origin/main")
    head = world.change(BETTER)
    for files, is_capped in [({"docs/b.md": "More.\n"}, False), ({"data/triage.jsonl": jsonl(data_rows(160))}, True)]:
        other = world.change(files, "other")
        git(world.dev, "push", "--quiet", "origin", f"{other}:main")
        git(world.dev, "fetch", "--quiet", "origin")
        context, concluded = world.ask(head, world.evaluate(head, base=before))
        assert (concluded.verdict == "manual_review") == is_capped, context.caps
        assert any("update the branch" in cap for cap in context.caps) == is_capped


def test_the_same_twice_is_the_same(world: World) -> None:
    head = world.change(BETTER)
    artifact = world.evaluate(head)
    first, concluded = world.ask(head, artifact)
    again, second = world.ask(head, artifact)
    assert (first, concluded.recorded, second.recorded) == (again, True, False)
    assert json.loads((world.main / "judging/context.json").read_text())["author"] == AUTHOR
