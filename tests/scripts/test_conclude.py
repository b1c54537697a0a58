"""`python -m scripts.conclude --failed`: what a verdict that broke leaves on the commit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.github.api import Api
from pipelines.review.status import set_status
from tests.standin.github import GitHub

ROOT = Path(__file__).parents[2]
HEAD = "a" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        yield server


def run(github: GitHub, folder: Path, failed: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.conclude", "--root=judging", f"--failed={failed}"]
    given = os.environ | {"PYTHONPATH": str(ROOT), "GITHUB_RUN_ID": "77"} | github.environment | environment
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)


def test_a_verdict_that_broke_leaves_no_green_status_and_no_record(github: GitHub, tmp_path: Path) -> None:
    set_status(Api("o/r", github.token, base_url=github.url), HEAD, "pass")
    done = run(github, tmp_path, HEAD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no record was needed" in done.stdout
    said = github.statuses[HEAD][-1]
    assert (said["state"], said["context"]) == ("error", "gatehouse/verdict")
    assert said["target_url"] == f"{github.url}/o/r/actions/runs/77"
    assert "did not come to an end" in said["description"]


@pytest.mark.parametrize(
    ("failed", "environment", "code", "message"),
    [
        ("main", {}, 2, "--failed 'main' is not 40 hexadecimal digits"),
        ("", {}, 2, "--failed '' is not 40 hexadecimal digits"),
        (HEAD, {"GH_TOKEN": "expired"}, 5, "401"),
        (HEAD, {"GH_TOKEN": "", "GITHUB_TOKEN": ""}, 2, "GH_TOKEN: is not set"),
    ],
)
def test_what_cannot_be_said_is_a_failure_of_the_step(
    github: GitHub, tmp_path: Path, failed: str, environment: dict[str, str], code: int, message: str
) -> None:
    done = run(github, tmp_path, failed, **environment)
    assert (done.returncode, github.statuses) == (code, {})
    assert message in done.stderr
    assert "Traceback" not in done.stderr
