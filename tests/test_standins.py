"""The stand-ins keep the limits of what they stand for: else a test through them would prove nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.github.api import Api
from pipelines.core.github.replies import NotFound, Refused
from tests.standin.github import GitHub

ROOT = Path(__file__).parents[1]
CML = ROOT / "tests/standin/cml"
HEAD = "a" * 40
GOOD = ["comment", "update", "--target=pr/3", "--publish=false", "report.md"]


def run_cml(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "report.md").write_text("hello\n")
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), "ITERATIVE_DO_NOT_TRACK": "1", "GITHUB_SHA": HEAD}
    return subprocess.run([CML, *arguments], cwd=folder, env=given | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GOOD, "--marker=x"], "Unknown argument: marker"),
        ([*GOOD, "--body", "x"], "Unknown argument: body"),
        ([*GOOD, "-t", "x"], "Unknown argument: t"),
        ([*GOOD, "other.md"], "Unknown argument: other.md"),
        (GOOD[:-1], "need at least 1"),
        ([*GOOD, "--driver=gitea"], "Invalid values"),
        ([*GOOD, "--publish=maybe"], "publish is true or false"),
        ([*GOOD, "--pr"], "mutually exclusive"),
        ([*GOOD, "--watermark-title=x", "--rm-watermark"], "mutually exclusive"),
        ([*GOOD, "--repo"], "Not enough arguments following: repo"),
        (["comment", "update", "--target=pr/3", "report.md"], "would upload every local file"),
        (["comment", "update", "--target=3", "--publish=false", "--repo=http://[::1]", "--token=t", "report.md"],
         "Failed to parse comment --target"),
        ([*GOOD, "--token=t", "--repo=https://github.com/o/r"], "goes nowhere but to this machine"),
        ([*GOOD, "--repo=http://127.0.0.1/o/r"], "token not found"),
        (["send-comment", "report.md"], "knows `cml comment create|update`"),
    ],
)  # fmt: skip
def test_cml_refuses_what_cml_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run_cml(tmp_path, *arguments)
    assert result.returncode == 1
    assert message in result.stderr


def test_cml_sends_telemetry_unless_told_not_to(tmp_path: Path) -> None:
    assert "telemetry" in run_cml(tmp_path, *GOOD, ITERATIVE_DO_NOT_TRACK="").stderr


def test_cml_overwrites_anybodys_watermark_and_sees_thirty_comments_only(tmp_path: Path) -> None:
    with GitHub() as github:
        github.pull(3, head=HEAD)
        more = [f"--repo={github.url}/o/r", f"--token={github.token}"]
        forged = github.comment(3, f'![](https://cml.dev/watermark.png#{HEAD} "CML watermark")', "dev")
        assert run_cml(tmp_path, *GOOD, *more).returncode == 0
        assert forged["body"].startswith("hello")
        github.comments[:0] = [dict(forged, id=number, body="talk") for number in range(30)]
        run_cml(tmp_path, *GOOD, *more)
        assert len(github.comments) == 32


def test_github_runs_as_a_process_and_keeps_what_it_knows_in_a_file(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with GitHub() as other:
        other.pull(3, head=HEAD)
        state.write_text(json.dumps(other.dump()))
    command = [sys.executable, "-m", "tests.standin.github", "--port=0", f"--state={state}"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        api = Api("o/r", GitHub.token, base_url=server.stdout.readline().strip())
        api.post("/repos/{repository}/issues/3/comments", {"body": "kept"})
        saved = json.loads(state.read_text())
    finally:
        server.terminate()
        server.wait(10)
    assert [one["body"] for one in saved["comments"]] == ["kept"]
    assert [(call["method"], call["status"]) for call in saved["calls"]] == [("POST", 201)]
    with GitHub(state=state) as again:
        assert again.pulls[3]["head"]["sha"] == HEAD


@pytest.fixture
def api() -> object:
    with GitHub() as github:
        github.pull(3, head=HEAD)
        yield Api("o/r", github.token, base_url=github.url)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("issues/3/comments", {"body": "x" * 65_537}, "maximum is 65536"),
        ("issues/3/comments", {"body": " "}, "blank"),
        ("issues/3/comments", {}, "blank"),
        (f"statuses/{HEAD}", {"state": "success", "description": "x" * 141}, "maximum is 140"),
        (f"statuses/{HEAD}", {"state": "green"}, "not included in the list"),
        (f"statuses/{HEAD}", {"state": "success", "target_url": "javascript:x"}, "must use http"),
        ("statuses/main", {"state": "success"}, "No commit found"),
    ],
)
def test_github_refuses_what_github_refuses(api: Api, path: str, body: dict[str, str], message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        api.post(f"/repos/{{repository}}/{path}", body)
    assert caught.value.status == 422


def test_an_unknown_path_or_repository_is_not_found(api: Api) -> None:
    for path in ("/repos/{repository}/nothing", "/repos/other/r", "/repos/{repository}/pulls/4", "/nothing"):
        with pytest.raises(NotFound):
            api.get(path)


def test_a_page_has_thirty_items_unless_asked_and_a_hundred_at_most() -> None:
    with GitHub() as github:
        github.pull(3, head=HEAD)
        for number in range(130):
            github.comment(3, str(number), "dev")
        api = Api("o/r", github.token, base_url=github.url)
        path = "/repos/{repository}/issues/3/comments"
        assert [len(api.get(path)), len(api.get(path, per_page=500)), len(api.get(path, per_page=100, page=2))] == [
            30, 100, 30,
        ]  # fmt: skip
