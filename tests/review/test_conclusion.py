"""Whose decision about the same inputs is kept: main's before any, a pass before a pull request's other verdicts."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.core.files import read_json, write_json
from pipelines.core.records import Record
from pipelines.evaluation.baseline import fetch_baseline
from pipelines.evaluation.deciding.judgement import judge
from pipelines.release.registration import DIGEST, _lineage
from pipelines.review.conclusion import conclude, inherited, may_replace
from pipelines.review.takeover import take_over
from tests.evaluation.test_baseline import git
from tests.review.world import FILES, N_ROWS, OWNER, World, seal, write_evaluation

VERDICTS = ["pass", "fail", "manual_review", "error"]
APPROVAL = {"user": "ada", "at": "2026-11-20T10:00:00Z", "why": "Looks right.", "review_url": ""}


def record(verdict: str = "pass", pull_request: int | None = None, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "schema_version": 1, "input_digest": "ab" * 32, "verdict": verdict, "commit": "c" * 40,
        "decision": {"verdict": verdict, "reasons": ["as measured"]}, "pull_request": pull_request,
    }  # fmt: skip
    return Record.model_validate({**values, **changes})


@pytest.mark.parametrize("new", VERDICTS)
@pytest.mark.parametrize("old", [None, *(record(verdict, number) for verdict in VERDICTS for number in (None, 7))])
def test_main_replaces_every_decision(old: Record | None, new: str) -> None:
    assert may_replace(old, record(new))


@pytest.mark.parametrize("new", VERDICTS)
def test_a_pull_request_replaces_what_nobody_can_trust_and_never_main(new: str) -> None:
    assert may_replace(None, record(new, 8))
    for verdict in VERDICTS:
        assert not may_replace(record(verdict), record(new, 8))
        assert may_replace(record(verdict, 7), record(new, 8)) == (verdict != "pass")


@pytest.mark.parametrize("new", VERDICTS)
def test_a_pull_request_takes_its_own_pass_back_and_never_one_that_main_made(new: str) -> None:
    assert may_replace(record("pass", 7), record(new, 7)) == (new != "pass")
    assert not may_replace(record("pass", replaces=7), record(new, 7))


def test_an_approval_lifts_mains_manual_review_and_nothing_else() -> None:
    old = record("pass", 7, approval=APPROVAL)
    for verdict, kept in [("pass", "pass"), ("manual_review", "pass"), ("fail", "fail"), ("error", "error")]:
        new = record(verdict, lock="main's")
        found = inherited(new, old)
        assert (found.verdict, found.decision["verdict"], found.lock, found.replaces) == (kept, kept, "main's", 7)
        assert found.approval == old.approval
        assert (found.decision == new.decision) == (verdict != "manual_review")
        assert inherited(new, found) == found, "main's next run inherits the same"


def test_nothing_is_inherited_from_nobody_or_from_what_cannot_be_trusted() -> None:
    for old in (None, record("fail", 7, approval=APPROVAL), record("manual_review", 7, approval=APPROVAL)):
        assert inherited(record("manual_review"), old) == record("manual_review")
    assert inherited(record("manual_review"), record("pass", 7)).verdict == "manual_review"


def evaluate_main(world: World, verdict: str) -> dict[str, Any]:
    """Leave what main's own run leaves at its newest commit, other bytes than any before; return its objects."""
    head, folder = git(world.main, "rev-parse", "HEAD"), world.folder / "of-main"
    write_evaluation(world.main, "HEAD", folder, N_ROWS - 25)
    seal(folder, head=head, base="")
    shutil.copytree(folder, world.main, dirs_exist_ok=True)
    objects: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["objects"]
    for name, one in objects.items():
        place = world.main / ".dvc/cache/files/md5" / one["md5"][:2] / one["md5"][2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, place)
    judge("none", world.main)
    path = world.main / "evaluation/decision.json"
    write_json(path, {**read_json(path), "verdict": verdict, "reasons": ["as main found it"]})
    return objects


@pytest.mark.parametrize(("verdict", "kept"), [("manual_review", "pass"), ("fail", "fail"), ("error", "error")])
def test_mains_own_bytes_and_verdict_take_the_place_of_the_pull_requests(world: World, verdict: str, kept: str) -> None:
    head = world.change({"pipelines/code.py": "A = 2\n"})
    world.open(7, head)
    world.github.review(7, OWNER, "APPROVED", head)
    context, concluded = world.ask(head, world.evaluate(head))
    assert (concluded.verdict, concluded.recorded) == ("pass", True)
    git(world.dev, "push", "--quiet", "origin", f"{head}:main")
    git(world.main, "pull", "--quiet", "origin", "main")
    assert fetch_baseline("HEAD", world.main).state == "unavailable", "only the pull request has these bytes"
    objects = evaluate_main(world, verdict)
    concluded = conclude(world.api, world.main, world.main)
    assert (concluded.verdict, concluded.recorded) == (kept, True)
    found = world.record(context)
    assert found is not None
    assert (found.verdict, found.pull_request, found.replaces) == (kept, None, 7)
    assert found.approval is not None
    assert found.approval.user == OWNER
    assert {name: one.model_dump() for name, one in found.manifest.items()} == objects
    assert found.lock == (world.main / "dvc.lock").read_text()
    assert world.status(head) == {"pass": "success", "fail": "failure", "error": "error"}[kept]
    registered: Any = SimpleNamespace(tags={DIGEST: context.input_digest})
    assert _lineage(world.main, registered, "origin")["gatehouse.pull_request"] == "7"
    assert not conclude(world.api, world.main, world.main).recorded
    assert fetch_baseline("HEAD", world.main).state == "fetched"


def test_a_dismissed_approval_takes_the_recorded_pass_back(world: World) -> None:
    head = world.change({"pipelines/code.py": "A = 2\n"})
    world.open(7, head)
    review = world.github.review(7, OWNER, "APPROVED", head)
    artifact = world.evaluate(head)
    context, concluded = world.ask(head, artifact)
    assert concluded.verdict == "pass"
    review["state"] = "DISMISSED"
    concluded = world.ask(head, artifact)[1]
    assert (concluded.verdict, concluded.recorded, world.status(head)) == ("manual_review", True, "pending")
    found = world.record(context)
    assert found is not None
    assert (found.verdict, found.approval, found.is_trusted) == ("manual_review", None, False)


def test_the_record_of_an_approved_fork_names_nothing_that_main_could_look_for(world: World) -> None:
    head = world.change({"prompts/triage.prompt.yml": FILES["prompts/triage.prompt.yml"].replace("Label", "Name")})
    world.open(7, head, fork="eve/r")
    world.github.review(7, OWNER, "APPROVED", head)
    event = world.event(head, head_repository={"full_name": "eve/r"})
    context, concluded = world.judge(event, world.evaluate(head))
    assert (context.is_fork, concluded.verdict, concluded.recorded) == (True, "pass", True)
    found = world.record(context)
    assert found is not None
    assert (found.lock, found.manifest, found.decision["verdict"]) == ("", {}, "pass")
    git(world.dev, "push", "--quiet", "origin", f"{head}:main")
    git(world.main, "pull", "--quiet", "origin", "main")
    said = take_over([str(world.folder / "no-remote")], world.main)
    assert said == "no decision that can be taken over is recorded about this tree"
