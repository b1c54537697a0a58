"""What the judging job left is plain data: three files of this very pull request, or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.files import write_json
from pipelines.core.github.api import Api
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.deciding.caps import unmeasured
from pipelines.evaluation.deciding.judgement import write_decision
from pipelines.review.accepted import BROKE, DECISION, MOST_BYTES, REPORT, Accepted, accept
from pipelines.review.context import FILE, Context
from tests.standin.github import GitHub

ROOT = Path(__file__).parents[2]
HEAD, OTHER = "a" * 40, "b" * 40
RUN = {
    "id": 77, "path": ".github/workflows/pull-request.yml", "event": "pull_request", "status": "completed",
    "conclusion": "success", "head_sha": HEAD, "head_branch": "change", "head_repository": {"full_name": "o/r"},
    "html_url": "https://github.example/o/r/actions/runs/77",
}  # fmt: skip
READY = Context(state="ready", number=7, head=HEAD, input_digest="d" * 64)


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(7, head=HEAD)
        yield server


def leave(folder: Path, context: Context = READY) -> Path:
    """Leave what an honest judging job leaves."""
    context.write(folder)
    verdict = "error" if context.state == "failed" else "pass"
    about = {"input_digest": context.input_digest, "commit": context.head}
    write_decision(folder, unmeasured(verdict, "as measured"), Baseline("none"), about)
    (folder / REPORT).write_text("All gates pass.\n", encoding="utf-8")
    return folder


def take(github: GitHub, folder: Path, *, is_whole: bool = True, **run: Any) -> Accepted:
    api = Api("o/r", github.token, base_url=github.url, sleep=lambda seconds: None)
    event = {"action": "completed", "workflow_run": RUN | run}
    return accept(api, event, folder / "left", folder / "judging", is_whole=is_whole)


@pytest.mark.parametrize("state", ["ready", "nothing", "failed", "pending"])
def test_what_an_honest_job_left_is_taken_as_it_is(github: GitHub, tmp_path: Path, state: str) -> None:
    left = leave(tmp_path / "left", READY.model_copy(update={"state": state, "reason": "so it is"}))
    (left / "evaluation/rows.parquet").write_bytes(b"PAR1")
    assert take(github, tmp_path) == Accepted(state, 7, HEAD, "so it is")
    taken = {
        str(path.relative_to(tmp_path / "judging")) for path in (tmp_path / "judging").rglob("*") if path.is_file()
    }
    assert FILE in taken
    assert taken <= set(MOST_BYTES), "nothing else is taken, and no rows at all"
    for name in taken:
        assert (tmp_path / "judging" / name).read_bytes() == (left / name).read_bytes()


def _edit(name: str, **values: Any) -> Callable[[Path], None]:
    def change(left: Path) -> None:
        write_json(left / name, {**json.loads((left / name).read_text()), **values})

    return change


def _link(name: str) -> Callable[[Path], None]:
    def change(left: Path) -> None:
        (left / name).unlink()
        (left / name).symlink_to("/etc/passwd")

    return change


def _linked_folder(left: Path) -> None:
    (left / "evaluation").rename(left / "elsewhere")
    (left / "evaluation").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda left: (left / FILE).unlink(), "context.json: judging left no such file"),
        (lambda left: (left / DECISION).unlink(), "evaluation/decision.json: judging left no such file"),
        (lambda left: (left / REPORT).unlink(), "evaluation/report.md: judging left no such file"),
        (_link(FILE), "context.json: is no plain file"),
        (_link(REPORT), "evaluation/report.md: is no plain file"),
        (_linked_folder, "evaluation/decision.json: is no plain file"),
        (lambda left: (left / REPORT).write_text("x" * (MOST_BYTES[REPORT] + 1)), "has more than 1,048,576 bytes"),
        (lambda left: (left / REPORT).write_bytes(b"\xff"), "evaluation/report.md:1: byte 0xff is not UTF-8"),
        (lambda left: (left / FILE).write_text("{"), "context.json:1: not valid JSON"),
        (lambda left: (left / DECISION).write_text("[" * 100_000), "evaluation/decision.json: not valid JSON"),
        (_edit(FILE, more=1), "context.json: more: extra inputs are not permitted"),
        (_edit(FILE, number=8), "is about pull request 8, and this run belongs to 7"),
        (_edit(DECISION, verdict="green"), "evaluation/decision.json: verdict: input should be 'pass'"),
        (_edit(DECISION, reasons=[{"text": 1}]), "reasons.0: input should be a valid string"),
        (_edit(DECISION, approval={"user": 3}), "approval.user: input should be a valid string"),
    ],
)
def test_anything_else_is_one_line_and_nothing_is_taken(
    github: GitHub, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(leave(tmp_path / "left"))
    with pytest.raises(ConfigError) as raised:
        take(github, tmp_path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    assert not (tmp_path / "judging").exists()


def test_what_is_about_an_older_head_is_not_said(github: GitHub, tmp_path: Path) -> None:
    leave(tmp_path / "left")
    github.push(7, OTHER)
    assert take(github, tmp_path).state == "stale"


def test_where_judging_broke_nothing_of_it_is_read_and_the_head_is_githubs_word(github: GitHub, tmp_path: Path) -> None:
    assert take(github, tmp_path, is_whole=False) == Accepted("failed", 7, HEAD, BROKE, HEAD)
    github.push(7, OTHER)
    assert take(github, tmp_path, is_whole=False).state == "stale"
    # A review is about the head that the pull request has.
    told = take(github, tmp_path, is_whole=False, path=".github/workflows/review.yml", event="pull_request_review")
    assert told == Accepted("failed", 7, OTHER, BROKE, OTHER)
    github.pulls[7]["state"] = "closed"
    assert take(github, tmp_path, is_whole=False).state == "closed"


@pytest.mark.parametrize(
    ("result", "code", "state"), [("success", 0, "ready"), ("failure", 0, "failed"), ("green", 2, None)]
)
def test_the_script_hands_on_what_is_to_be_said(
    github: GitHub, tmp_path: Path, result: str, code: int, state: str | None
) -> None:
    leave(tmp_path / "left")
    write_json(tmp_path / "event.json", {"action": "completed", "workflow_run": RUN})
    command = [sys.executable, "-m", "scripts.accept", f"--result={result}"]
    given = (
        os.environ | github.environment | {"PYTHONPATH": str(ROOT), "GITHUB_EVENT_PATH": str(tmp_path / "event.json")}
    )
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if state:
        broken = HEAD if state == "failed" else ""
        assert (said["state"], said["number"], said["head"], said["broken"]) == (state, "7", HEAD, broken)
    assert github.posts == []
