"""The steps of verdict.yml and main.yml as they run: scripts in processes of their own, in a runner's environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.files import read_json, write_json
from pipelines.core.inputs import input_digest
from pipelines.core.records import path_of, read, write
from pipelines.review.accepted import MOST_BYTES
from tests.evaluation.test_baseline import git
from tests.review.world import FILES, World, build, relocated
from tests.standin.github import GitHub
from tests.tool_cache import lay_out

ROOT = Path(__file__).parents[2]
BETTER = {"prompts/triage.prompt.yml": FILES["prompts/triage.prompt.yml"].replace("Label:", "Please label:")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What these jobs have: the packages of their own small lock, and no other."""
    folder = tmp_path_factory.mktemp("judging") / "environment"
    return lay_out(folder, (ROOT / "locks/judging.txt").read_text(encoding="utf-8"))


@pytest.fixture
def world(built: Path, python: Path, tmp_path: Path) -> Iterator[World]:
    with GitHub(repository="o/r") as github:
        made = World(relocated(built, tmp_path / "world"), github)
        made.python = python
        yield made


def step(world: World, name: str, *arguments: str, event: object = None) -> subprocess.CompletedProcess[str]:
    """Run a script as an action does: from the caller's folder, with modules of this repository."""
    write_json(world.folder / "event.json", event or {})
    runner = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_PATH": str(world.folder / "event.json"),
        "GITHUB_OUTPUT": str(world.folder / "output"),
        "GITHUB_RUN_ID": "99",
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
    }
    (world.folder / "output").write_text("")
    command = [str(world.python), "-P", "-m", f"scripts.{name}", *arguments]
    variables = {**os.environ, **world.github.environment, **runner}
    done = subprocess.run(command, cwd=world.main, env=variables, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def outputs(world: World) -> dict[str, str]:
    lines = (world.folder / "output").read_text().splitlines()
    return {lines[at].split("<<")[0]: lines[at + 1] for at in range(0, len(lines), 3)}


def test_the_steps_of_the_verdict_end_in_a_record_and_a_green_status(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    event, artifact = world.event(head), world.evaluate(head)
    assert step(world, "receive", "--find", event=event).returncode == 0
    assert (outputs(world)["run-id"], outputs(world)["state"]) == ("77", "ready")
    done = step(world, "receive", "--artifact", str(artifact), "--to", "judging", event=event)
    assert done.returncode == 0, done.stderr
    found = outputs(world)
    base = git(world.dev, "rev-parse", "origin/main")
    assert found == {"state": "ready", "number": "7", "head": head, "base": base, "folder": "judging", "run-id": "",
                     "reason": ""}  # fmt: skip
    done = step(world, "gate", "--root", "judging", "--baseline", base, "--context", "judging/context.json")
    assert (done.returncode, outputs(world)) == (0, {"verdict": "pass"}), done.stderr
    assert f"against {base}" in done.stdout
    assert step(world, "report", "--root", "judging").returncode == 0
    for name in MOST_BYTES:  # all that the job which may write is given
        (world.main / "left" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(world.main / "judging" / name, world.main / "left" / name)
    done = step(world, "accept", "--artifact", "left", "--to", "judging", "--result", "success", event=event)
    assert done.returncode == 0, done.stderr
    assert outputs(world) == {"state": "ready", "number": "7", "head": head, "broken": "", "reason": ""}
    assert step(world, "comment", "--root", "judging", "--number", "7", "--head", head).returncode == 0
    done = step(world, "conclude", "--root", "judging")
    assert (done.returncode, outputs(world)) == (0, {"verdict": "pass"}), done.stderr
    assert world.github.statuses[head][0]["target_url"].endswith("/o/r/actions/runs/99")
    assert world.status(head) == "success"
    assert git(world.main, "status", "--porcelain") == "?? left/"


def test_the_callers_own_scripts_are_never_run(world: World) -> None:
    done = step(world, "gate", "--help")
    assert (done.returncode, "own scripts" in done.stderr) == (0, False)


def test_api_or_origin_down_is_one_line_and_no_status(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    (world.folder / "origin").rename(world.folder / "away")
    done = step(world, "receive", "--artifact", "none", event=world.event(head))
    assert done.returncode == 5
    assert "git fetch" in done.stderr
    assert world.github.posts == []


@pytest.mark.parametrize("event", [{}, {"workflow_run": None}, {"workflow_run": {"id": "x"}}, {"workflow_run": []}])
def test_another_event_is_one_line(world: World, event: object) -> None:
    done = step(world, "receive", event=event)
    assert done.returncode == 2
    assert "workflow_run" in done.stderr


def test_a_gate_in_a_context_that_is_not_ready_decides_nothing(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    step(world, "receive", "--artifact", "none", event=world.event(head))
    assert outputs(world)["state"] == "failed"
    done = step(world, "gate", "--root", "judging", "--context", "judging/context.json")
    assert (done.returncode, "nothing is to be decided" in done.stderr) == (2, True)
    assert read_json(world.main / "judging/evaluation/decision.json")["verdict"] == "error"


def test_main_records_what_no_pull_request_decided_and_leaves_the_rest(world: World) -> None:
    evaluated = world.folder / "evaluated"
    for name in ("evaluation", "models", "dvc.lock", "manifest.json"):
        (shutil.copytree if (evaluated / name).is_dir() else shutil.copy)(evaluated / name, world.main / name)
    digest = input_digest(world.main)
    assert step(world, "gate", "--baseline", "none").returncode == 0
    done = step(world, "conclude")
    assert (done.returncode, outputs(world)) == (0, {"verdict": "pass"}), done.stderr
    head = git(world.main, "rev-parse", "HEAD")
    assert world.status(head) == "success"
    first = read(digest, world.main)
    assert first is not None
    assert first.pull_request is None
    assert first.decision["verdict"] == "pass"
    assert len(first.manifest) == 4
    assert "no record was needed" in step(world, "conclude").stdout
    forged = {**json.loads(first.model_dump_json()), "pull_request": 3, "verdict": "fail"}
    write({path_of(digest): json.dumps(forged).encode()}, "Forge", world.main)
    assert "recorded on branch gatehouse" in step(world, "conclude").stdout
    assert read(digest, world.main) == first


def test_a_context_that_lies_in_the_repository_says_nothing_on_main(world: World) -> None:
    write_json(world.main / "context.json", {"state": "ready"})
    assert "evaluation/decision.json" in step(world, "conclude").stderr


def test_a_laptop_without_github_keeps_its_record(world: World) -> None:
    from pipelines.evaluation.deciding.judgement import judge
    from pipelines.review.conclusion import conclude

    git(world.main, "remote", "remove", "origin")
    shutil.copytree(world.folder / "evaluated/evaluation", world.main / "evaluation")
    judge("none", world.main)
    concluded = conclude(None, world.main, world.main)
    assert (concluded.verdict, concluded.recorded) == ("pass", True)
    assert git(world.main, "rev-list", "--count", "gatehouse") == "1"


def test_a_laptop_that_has_handed_nothing_over_leaves_the_record_that_names_the_files(world: World) -> None:
    evaluated = world.folder / "evaluated"
    for name in ("evaluation", "models", "dvc.lock", "manifest.json"):
        (shutil.copytree if (evaluated / name).is_dir() else shutil.copy)(evaluated / name, world.main / name)
    digest = input_digest(world.main)
    assert step(world, "gate", "--baseline", "none").returncode == 0
    assert "recorded on branch gatehouse" in step(world, "conclude").stdout
    first = read(digest, world.main)
    assert first is not None
    assert first.manifest
    (world.main / "manifest.json").unlink()
    git(world.main, "commit", "--quiet", "--allow-empty", "--message", "Again")
    decided = world.main / "evaluation/decision.json"
    write_json(decided, {**read_json(decided), "verdict": "fail", "reasons": ["as this laptop found it"]})
    done = step(world, "conclude")
    assert done.returncode == 0, done.stderr
    assert "no record was needed" in done.stdout
    assert f"nothing was handed over here, so the record of {first.commit[:12]} stays" in done.stdout
    assert read(digest, world.main) == first
    # The status says what the record says, on a laptop that has GitHub's variables too.
    assert world.status(git(world.main, "rev-parse", "HEAD")) == "success"
    assert outputs(world) == {"verdict": "pass"}
