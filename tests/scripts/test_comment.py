"""`python -m scripts.comment`, as the action runs it: what it posts, what it says, and when it stays silent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.files import write_json
from pipelines.evaluation.reporting.markdown import MARKER
from pipelines.review import comment
from tests.standin.github import GitHub

ROOT = Path(__file__).parents[2]
HEAD, NEWER = "a" * 40, "c" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(3, head=HEAD)
        yield server


def run(github: GitHub, root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.comment", f"--root={root}", *arguments]
    given = os.environ | {"PYTHONPATH": str(ROOT)} | github.environment | environment
    return subprocess.run(command, cwd=root, env=given, capture_output=True, text=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_json(tmp_path / "evaluation/decision.json", {"verdict": "fail"})
    (tmp_path / "evaluation/report.md").write_text(f"{MARKER}\n\nthe whole report\n")
    return tmp_path


def test_the_report_is_posted_and_where_is_an_output(github: GitHub, root: Path) -> None:
    output = root / "output"
    given = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "GITHUB_RUN_ID": "77"}
    result = run(github, root, "--number=3", f"--head={HEAD}", **given)
    assert (result.returncode, result.stderr) == (0, "")
    (posted,) = github.comments
    assert posted["body"].startswith(f"{MARKER}\n\n## ❌ Gatehouse: fail\n")
    assert posted["body"].count(MARKER) == 1
    assert "the whole report" in posted["body"]
    assert f"Commit {HEAD} · [this run]({github.url}/o/r/actions/runs/77)" in posted["body"]
    lines = output.read_text().splitlines()
    assert lines[1::3] == ["true", posted["html_url"]]


def test_a_head_that_has_moved_on_gets_no_comment(github: GitHub, root: Path) -> None:
    github.push(3, NEWER)
    result = run(github, root, "--number=3", f"--head={HEAD}")
    assert result.returncode == 0
    assert "posted=false\n" in result.stdout
    assert github.posts == []


def test_pending_then_failed_then_a_verdict_is_one_comment(github: GitHub, root: Path) -> None:
    shown = []
    for more in (["--state=pending"], ["--state=failed", "--message=the remote @team is down"], []):
        assert run(github, root, "--number=3", f"--head={HEAD}", *more).returncode == 0
        shown.append(github.comments[0]["body"].split("\n")[2])
    assert shown == [f"## {comment.HEADINGS[state]}" for state in ("pending", "error", "fail")]
    assert len(github.comments) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number=0", f"--head={HEAD}"], "'0' is no pull request's number"),
        (["--number=3/../4", f"--head={HEAD}"], "is no pull request's number"),
        (["--number=3", "--head=main"], "'main' is not 40 hexadecimal digits"),
        (["--number=3", f"--head={HEAD}", "--state=green"], "invalid choice: 'green'"),
        ([f"--head={HEAD}"], "required: --number"),
    ],
)
def test_wrong_arguments_are_said(github: GitHub, root: Path, arguments: list[str], message: str) -> None:
    result = run(github, root, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert github.calls == []


@pytest.mark.parametrize(
    ("environment", "code", "message"),
    [
        ({"GH_TOKEN": ""}, 2, "GH_TOKEN: is not set"),
        ({"GH_TOKEN": "expired"}, 5, "has expired"),
        ({"GITHUB_REPOSITORY": ""}, 2, "GITHUB_REPOSITORY: '' is not of the form owner/name"),
        ({"GITHUB_API_URL": "http://example.test"}, 2, "is no https:// URL"),
    ],
)
def test_a_wrong_environment_is_one_line(
    github: GitHub, root: Path, environment: dict[str, str], code: int, message: str
) -> None:
    result = run(github, root, "--number=3", f"--head={HEAD}", **environment)
    assert result.returncode == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 2
    assert github.token not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("decision", "report", "message"),
    [
        (None, "x", "decision.json: no such file"),
        ('{"verdict": "green"}', "x", "verdict 'green': is none of"),
        ('{"verdict": "pending"}', "x", "verdict '': is none of"),
        ("[]", "x", "verdict '': is none of"),
        ('{"verdict": "pass"}', None, "report.md: no such file"),
    ],
)
def test_a_broken_run_posts_nothing(
    github: GitHub, root: Path, decision: str | None, report: str | None, message: str
) -> None:
    for name, text in (("decision.json", decision), ("report.md", report)):
        path = root / "evaluation" / name
        path.unlink() if text is None else path.write_text(text)
    result = run(github, root, "--number=3", f"--head={HEAD}")
    assert result.returncode == 2
    assert message in result.stderr
    assert github.posts == []
