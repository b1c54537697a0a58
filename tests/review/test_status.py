"""The required status: green for a pass alone, on exactly one commit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api
from pipelines.core.github.replies import Refused, Unreachable
from pipelines.review.status import CONTEXT, set_status
from tests.standin.github import GitHub

HEAD = "a" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        yield server


def connect(github: GitHub, token: str | None = None) -> Api:
    return Api("o/r", token or github.token, base_url=github.url, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("verdict", "state", "description"),
    [
        ("pending", "pending", "is being evaluated"),
        ("pass", "success", "every gate passes"),
        ("fail", "failure", "a gate says no"),
        ("manual_review", "pending", "waits for a CODEOWNER's approving review"),
        ("error", "error", "nothing was decided; see the run"),
    ],
)
def test_each_verdict_has_its_state(github: GitHub, verdict: str, state: str, description: str) -> None:
    assert set_status(connect(github), HEAD, verdict) == state
    (made,) = github.statuses[HEAD]
    assert (made["state"], made["description"], made["context"]) == (state, description, CONTEXT)


def test_the_last_word_counts(github: GitHub) -> None:
    for verdict in ("pending", "fail", "pass"):
        set_status(connect(github), HEAD, verdict, "x", "https://github.example/run/1")
    assert github.status(HEAD) == "success"
    assert connect(github).get(f"/repos/{{repository}}/commits/{HEAD}/status")["state"] == "success"


@pytest.mark.parametrize("verdict", ["", "success", "PASS", "approved", "pass\n", "None"])
def test_an_unknown_verdict_sets_nothing(github: GitHub, verdict: str) -> None:
    with pytest.raises(ConfigError, match="is none of pending, pass"):
        set_status(connect(github), HEAD, verdict)
    assert github.calls == []


@pytest.mark.parametrize("head", ["", "main", HEAD[:39], f"{HEAD}\n", HEAD.upper(), f"{HEAD[:-1]}/", "../.."])
def test_a_status_needs_a_whole_commit(github: GitHub, head: str) -> None:
    with pytest.raises(ConfigError, match="40 hexadecimal digits"):
        set_status(connect(github), head, "pass")
    assert github.calls == []


@pytest.mark.parametrize("text", ["x" * 140, "x" * 141, "é" * 5000, "a\nb\x1b[2J" * 50, "\ud800" * 200])
def test_any_description_fits_on_its_line(github: GitHub, text: str) -> None:
    set_status(connect(github), HEAD, "fail", text)
    (made,) = github.statuses[HEAD]
    assert len(made["description"]) <= 140
    assert made["description"].isprintable()
    assert (made["description"] == text) is (text == "x" * 140)


@pytest.mark.parametrize("status", [503, 0])
def test_an_outage_is_waited_out_even_where_it_is_set_twice(github: GitHub, status: int) -> None:
    github.fail_next(status, 3, is_done=True)
    set_status(connect(github), HEAD, "pass")
    assert github.status(HEAD) == "success"


def test_an_outage_that_lasts_leaves_the_status_as_it_was(github: GitHub) -> None:
    set_status(connect(github), HEAD, "pending")
    github.fail_next(503, math.inf)
    with pytest.raises(Unreachable):
        set_status(connect(github), HEAD, "pass")
    assert github.status(HEAD) == "pending"


def test_a_token_that_may_not_set_statuses_is_told_what_it_lacks(github: GitHub) -> None:
    github.tokens["weak"] = {"login": "x[bot]", "permissions": {"pull_requests": "write"}}
    with pytest.raises(Refused, match="one of statuses=write"):
        set_status(connect(github, "weak"), HEAD, "pass")
