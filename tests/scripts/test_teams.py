"""`scripts.teams` asks ahead who is in the teams of CODEOWNERS; the judge then needs no token that may ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, write_json
from pipelines.core.github.api import Api
from pipelines.core.github.replies import Unreachable
from pipelines.review.approval import ask
from pipelines.review.pull_request import PullRequest
from pipelines.review.teams import FILE, ask_teams, read_teams
from tests.standin.github import GitHub

ROOT = Path(__file__).parents[2]
HEAD = "a" * 40
PULL = PullRequest(7, HEAD, "main", "dev", False, False, "Title", "open")


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/CODEOWNERS").write_text("* @ada @o/writers\n/docs/ @o/secret bob@example.com\n")
    with GitHub() as server:
        server.pull(7, head=HEAD)
        server.teams["o/writers"] = [f"writer{number}" for number in range(150)] + ["Tim"]
        server.collaborators |= {"tim": "write", "ada": "read"}
        yield server


def run(github: GitHub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT)} | github.environment | environment
    command = [sys.executable, "-m", "scripts.teams", "--to=out"]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)


def test_every_member_of_every_team_is_written_down_and_what_is_not_seen_stays_open(
    github: GitHub, tmp_path: Path
) -> None:
    done = run(github, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "@o/secret: this token cannot see it" in done.stdout
    assert "teams=1" in done.stdout
    teams = read_teams(tmp_path / "out")
    assert set(teams) == {"@o/writers", "@o/secret"}
    assert (len(teams["@o/writers"] or ()), teams["@o/secret"]) == (151, None)


def test_a_token_that_may_not_ask_sees_no_team_and_a_wrong_one_is_an_error(github: GitHub, tmp_path: Path) -> None:
    github.tokens["plain"] = {"login": "github-actions[bot]", "permissions": {}}
    assert run(github, tmp_path, GH_TOKEN="plain").returncode == 0
    assert set(read_teams(tmp_path / "out").values()) == {None}
    done = run(github, tmp_path, GH_TOKEN="expired")
    assert done.returncode == 5
    assert "401" in done.stderr
    assert "Traceback" not in done.stderr


def test_github_that_is_down_is_not_taken_for_an_empty_team(github: GitHub, tmp_path: Path) -> None:
    github.fail_next(503, 100, "/members")
    with pytest.raises(Unreachable):
        ask_teams(Api("o/r", github.token, base_url=github.url, sleep=lambda seconds: None), tmp_path)


@pytest.mark.parametrize(
    ("user", "is_approved", "lacking"),
    [
        ("tim", True, ""),
        ("zoe", False, "an owner of a"),
        ("ada", False, "an owner of a"),
        ("dev", False, "an owner of a"),
    ],
)
def test_the_judge_goes_by_what_was_written_down_and_asks_for_no_team(
    github: GitHub, tmp_path: Path, user: str, is_approved: bool, lacking: str
) -> None:
    run(github, tmp_path)
    github.review(7, user, "APPROVED", HEAD)
    github.tokens["plain"] = {"login": "github-actions[bot]", "permissions": {}}
    api = Api("o/r", "plain", base_url=github.url, sleep=lambda seconds: None)
    github.calls.clear()
    found = ask(api, PULL, ["a"], "* @ada @o/writers\n", read_teams(tmp_path / "out"))
    assert (found.approval is not None) == is_approved
    assert found.lacking.startswith(lacking)
    assert "cannot see" not in found.lacking
    assert not [call for call in github.calls if call.path.startswith("/orgs/")]
    unseen = ask(api, PULL, ["docs/a"], "* @o/secret\n", read_teams(tmp_path / "out"))
    assert unseen.lacking.endswith("this token cannot see the team @o/secret") == (user != "dev")


@pytest.mark.parametrize("value", [[], {"schema_version": 1}, {"schema_version": 1, "teams": {"@o/a": [3]}}])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / FILE, value)
    with pytest.raises(ConfigError, match=r"run `python -m scripts\.teams`"):
        read_teams(tmp_path)
    assert read_json(tmp_path / FILE) == value
