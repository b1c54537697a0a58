"""CML writes our one comment and no other: executed, with a stand-in that takes CML 0.20.6's flags and no others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.github.api import Api
from pipelines.review import cml, comment
from tests.standin.github import Call, GitHub
from tests.standin.github_store import BOT

STANDIN = Path(__file__).parents[1] / "standin"
HEAD = "a" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(3, head=HEAD)
        yield server


def body(text: str) -> str:
    return comment.compose("pass", text, head=HEAD)


def writes(github: GitHub) -> list[str]:
    return [call.method for call in github.posts]


@pytest.fixture(autouse=True)
def _installed(github: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{STANDIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in github.environment.items():
        monkeypatch.setenv(name, value)


def publish(github: GitHub, text: str) -> str | None:
    api = Api("o/r", github.token, base_url=f"{github.url}/api/v3", sleep=lambda seconds: None)
    return comment.publish(api, 3, body(text), head=HEAD)


def test_cml_creates_and_updates_the_one_comment(github: GitHub) -> None:
    assert publish(github, "one") == publish(github, "two")
    (posted,) = github.comments
    assert posted["body"].startswith(body("two"))
    assert posted["body"].endswith(f'![](https://cml.dev/watermark.png#{HEAD} "CML watermark gatehouse")')
    assert writes(github) == ["POST", "PATCH"]


def test_the_users_git_configuration_stays_as_it_is(github: GitHub, tmp_path: Path) -> None:
    publish(github, "one")
    assert list(tmp_path.iterdir()) == []


def test_the_token_is_no_argument_of_a_process(github: GitHub, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cml").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/seen\nexec {STANDIN}/cml "$@"\n')
    (folder / "cml").chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    publish(github, "one")
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[:2] == ["comment", "update"]
    assert {"--publish=false", "--target=pr/3"} < set(seen)
    assert github.token not in seen


def test_a_forged_watermark_of_another_author_is_left_alone(github: GitHub) -> None:
    forged = github.comment(3, f'![](https://cml.dev/watermark.png#{HEAD} "CML watermark gatehouse")', "dev")
    before = dict(forged)
    publish(github, "one")
    publish(github, "two")
    assert forged == before
    assert len(github.comments) == 2
    assert "two" in github.comments[1]["body"]


def test_a_later_forgery_does_not_take_the_comment_over(github: GitHub) -> None:
    publish(github, "one")
    forged = github.comment(3, github.comments[0]["body"], "dev")
    before = dict(forged)
    publish(github, "two")
    assert forged == before
    assert "two" in github.comments[0]["body"]
    assert len(github.comments) == 2


def test_a_forgery_at_the_last_moment_ends_with_our_own_comment_all_the_same(github: GitHub) -> None:
    def forge(call: Call) -> None:
        if "per_page" not in call.query and call.method == "GET":  # CML looks
            github.before = None
            github.comment(3, f'![](https://cml.dev/watermark.png#{HEAD} "CML watermark gatehouse")', "dev")

    github.before = forge
    publish(github, "one")
    ours = [one for one in github.comments if one["user"]["login"] == BOT]
    assert [one["body"] for one in ours] == [body("one")]


def test_beyond_the_first_30_comments_cml_is_not_asked(github: GitHub) -> None:
    for number in range(130):
        github.comment(3, f"talk {number}", "dev")
    for text in ("one", "two", "three"):
        publish(github, text)
    assert len(github.comments) == 131
    assert "three" in github.comments[-1]["body"]
    assert writes(github) == ["POST", "PATCH", "PATCH"]


def test_a_head_that_has_moved_on_is_not_handed_to_cml(github: GitHub) -> None:
    github.push(3, "c" * 40)
    assert publish(github, "one") is None
    assert github.posts == []


def test_a_teams_own_cml_comment_is_left_alone(github: GitHub) -> None:
    own = github.comment(3, f'plot\n\n![](https://cml.dev/watermark.png#{HEAD} "CML watermark")', BOT)
    before = dict(own)
    publish(github, "one")
    assert own == before
    assert len(github.comments) == 2


def test_a_body_of_the_limit_still_fits_with_the_watermark(github: GitHub) -> None:
    publish(github, "x\n" * 60_000)
    (posted,) = github.comments
    assert "CML watermark gatehouse" in posted["body"]
    assert 60_000 < len(posted["body"]) <= 65_536


@pytest.mark.parametrize("script", ["exit 1", "exit 0", "echo no node >&2; exit 127"])
def test_a_cml_that_does_nothing_is_made_up_for(github: GitHub, tmp_path: Path, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cml").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cml").chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    publish(github, "one")
    assert [one["body"] for one in github.comments] == [body("one")]


def test_cml_is_not_given_the_token_where_it_would_go_to_another_api(github: GitHub) -> None:
    assert (
        cml.installed_for(Api("o/r", github.token, base_url=github.url)) is None
    )  # an API elsewhere than CML would look
    os.environ["GITHUB_SERVER_URL"] = "https://github.com"
    assert cml.installed_for(Api("o/r", "t", base_url="https://api.github.com")) == str(STANDIN / "cml")
    assert cml.installed_for(Api("o/r", "t", base_url="https://api.github.example")) is None
