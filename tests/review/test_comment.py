"""One comment for ever: found on any page, never another's, never for a head that has moved on."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt

from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api
from pipelines.core.github.replies import NotFound, Refused, Unreachable
from pipelines.core.markdown import block, inline
from pipelines.evaluation.reporting.markdown import MARKER
from pipelines.review import comment
from tests.standin.github import Call, GitHub
from tests.standin.github_store import BOT

HEAD, NEWER = "a" * 40, "c" * 40


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(3, head=HEAD)
        yield server


def connect(github: GitHub, token: str | None = None, **options: float) -> Api:
    return Api("o/r", token or github.token, base_url=github.url, sleep=lambda seconds: None, **options)


def body(text: str, state: str = "pass") -> str:
    return comment.compose(state, text, head=HEAD)


def writes(github: GitHub) -> list[str]:
    return [call.method for call in github.posts]


def test_the_first_publish_creates_and_the_next_updates_the_same_comment(github: GitHub) -> None:
    api = connect(github)
    first = comment.publish(api, 3, body("one", "pending"))
    second = comment.publish(api, 3, body("two"))
    assert first == second == github.comments[0]["html_url"]
    assert writes(github) == ["POST", "PATCH"]
    assert "two" in github.comments[0]["body"]


def test_an_identical_body_is_not_written_again(github: GitHub) -> None:
    api = connect(github)
    comment.publish(api, 3, body("one"))
    github.comments[0]["body"] = github.comments[0]["body"].replace("\n", "\r\n").strip()  # as web editors leave it
    comment.publish(api, 3, body("one"))
    assert writes(github) == ["POST"]


@pytest.mark.parametrize("before", [0, 29, 30, 99, 100, 101, 250])
def test_our_comment_is_found_on_whatever_page_it_is(github: GitHub, before: int) -> None:
    for number in range(before):
        github.comment(3, f"talk {number}", "dev")
    ours = github.comment(3, body("old"), BOT)
    for number in range(120):
        github.comment(3, f"more talk {number}", "dev")
    assert comment.publish(connect(github), 3, body("new")) == ours["html_url"]
    assert writes(github) == ["PATCH"]
    assert "new" in ours["body"]


@pytest.mark.parametrize("login", ["dev", "github-actions", "github-actionsbot", "evil[bot]", "gatehouse[bot]"])
def test_a_forged_marker_by_another_author_is_left_alone(github: GitHub, login: str) -> None:
    forged = github.comment(3, body("forged"), login)
    before = dict(forged)
    comment.publish(connect(github), 3, body("ours"))
    comment.publish(connect(github), 3, body("ours again"))
    assert forged == before
    assert [one["user"]["login"] for one in github.comments] == [login, BOT]
    assert writes(github) == ["POST", "PATCH"]


def test_a_comment_whose_author_is_gone_is_left_alone(github: GitHub) -> None:
    github.comment(3, body("ghost"), "dev")["user"] = None
    comment.publish(connect(github), 3, body("ours"))
    assert writes(github) == ["POST"]


def test_the_bots_other_comments_are_left_alone_even_where_they_quote_the_marker(github: GitHub) -> None:
    other = github.comment(3, f"coverage 80 %\n\n> {MARKER}\n{MARKER}", BOT)
    before = dict(other)
    comment.publish(connect(github), 3, body("ours"))
    assert other == before
    assert writes(github) == ["POST"]


@pytest.mark.parametrize(("token", "login"), [("app", "gatehouse[bot]"), ("person", "alice")])
def test_github_is_asked_whose_token_it_is(github: GitHub, token: str, login: str) -> None:
    github.tokens[token] = {"login": login, "permissions": None}
    others = github.comment(3, body("of the workflow token, which a pull request may hold too"), BOT)
    comment.publish(connect(github, token), 3, body("one"))
    comment.publish(connect(github, token), 3, body("two"))
    assert [one["user"]["login"] for one in github.comments] == [BOT, login]
    assert "of the workflow token" in others["body"]


def test_a_wrong_bot_name_still_ends_with_one_comment(github: GitHub) -> None:
    for text in ("one", "two", "three"):
        comment.publish(connect(github), 3, body(text), bot="misspelt[bot]")
    assert len(github.comments) == 1
    assert "three" in github.comments[0]["body"]


def test_the_oldest_of_our_comments_wins_and_the_others_go(github: GitHub) -> None:
    oldest, *_ = [github.comment(3, body(f"number {number}"), BOT) for number in range(3)]
    github.comment(3, "talk", "dev")
    assert comment.publish(connect(github), 3, body("now")) == oldest["html_url"]
    assert [one["user"]["login"] for one in github.comments] == [BOT, "dev"]
    assert sorted(writes(github)) == ["DELETE", "DELETE", "PATCH"]


def test_comments_of_other_pull_requests_do_not_count(github: GitHub) -> None:
    github.pull(33, head=HEAD)
    comment.publish(connect(github), 33, body("other"))
    comment.publish(connect(github), 3, body("ours"))
    assert [len(github.comments_of(number)) for number in (3, 33)] == [1, 1]


def test_two_publishers_at_once_end_with_one_comment_of_the_newer_words(github: GitHub) -> None:
    meeting = threading.Barrier(2, timeout=20)
    met: set[int] = set()

    def wait_for_the_other(call: Call) -> None:
        if call.method == "POST" and call.path.endswith("/comments") and threading.get_ident() not in met:
            met.add(threading.get_ident())
            meeting.wait()  # both have seen that there is no comment yet

    github.before = wait_for_the_other
    errors: list[BaseException] = []

    def publish(text: str) -> None:
        try:
            comment.publish(connect(github), 3, body(text))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(text,)) for text in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert sum(call.method == "POST" for call in github.posts) == 2
    assert len(github.comments) == 1
    assert github.comments[0]["id"] == 1002  # the older of 1002 and 1003


def test_whoever_made_the_comment_does_not_take_back_what_another_wrote_since(github: GitHub) -> None:
    def overtake(call: Call) -> None:
        if github.comments and call.method == "GET":
            github.comments[0]["body"] = body("newer")

    github.before = overtake
    comment.publish(connect(github), 3, body("older", "pending"))
    assert [one["body"] for one in github.comments] == [body("newer")]


def test_a_list_that_lags_behind_makes_no_second_comment(github: GitHub) -> None:
    github.answers["GET /repos/o/r/issues/3/comments"] = [200, []]
    assert comment.publish(connect(github), 3, body("one")) == github.comments[0]["html_url"]
    assert writes(github) == ["POST"]


def test_ten_publishers_at_once_end_with_one_comment(github: GitHub) -> None:
    threads = [
        threading.Thread(target=comment.publish, args=(connect(github), 3, body(str(number)))) for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    comment.publish(connect(github), 3, body("last"))
    assert [one["body"] for one in github.comments] == [body("last")]


@pytest.mark.parametrize("status", [502, 0])
def test_a_lost_answer_makes_no_second_comment(github: GitHub, status: int) -> None:
    github.fail_next(status, 1, "/comments", method="POST", is_done=True)
    comment.publish(connect(github), 3, body("one"))
    assert len(github.comments) == 1


def test_an_api_that_is_down_for_a_while_is_waited_for(github: GitHub) -> None:
    github.fail_next(503, 4)
    github.fail_next(0, 2)
    github.fail_next(500, 2, "/comments", method="POST")
    comment.publish(connect(github), 3, body("one"))
    assert len(github.comments) == 1


def test_an_api_that_stays_down_is_one_clear_line(github: GitHub) -> None:
    github.fail_next(503, math.inf)
    with pytest.raises(Unreachable, match=r"not able to answer POST /graphql \(503: no luck\); run again later"):
        comment.publish(connect(github), 3, body("one"))


def test_a_rate_limit_is_waited_out(github: GitHub) -> None:
    github.limit_next(2, retry_after_s=7)
    github.limit_next(1, retry_after_s=11, path="/comments")
    waits: list[float] = []
    api = Api("o/r", github.token, base_url=github.url, sleep=waits.append)
    comment.publish(api, 3, body("one"))
    assert waits == [7, 7, 11]
    assert writes(github) == ["POST"]


def test_a_comment_that_vanishes_in_between_is_made_anew(github: GitHub) -> None:
    github.comment(3, body("old"), BOT)

    def vanish(call: Call) -> None:
        if call.method == "PATCH":
            github.comments.clear()

    github.before = vanish
    comment.publish(connect(github), 3, body("new"))
    assert [one["body"] for one in github.comments] == [body("new")]


def test_without_permission_to_comment_the_message_names_the_permission(github: GitHub) -> None:
    github.tokens["weak"] = {"login": BOT, "permissions": {"statuses": "write", "issues": "read"}}
    with pytest.raises(Refused, match=r"403: Resource not accessible.*issues=write; pull_requests=write") as caught:
        comment.publish(connect(github, "weak"), 3, body("one"))
    assert "\n" not in str(caught.value)
    assert github.posts == []


def test_a_locked_conversation_is_said(github: GitHub) -> None:
    github.pulls[3]["locked"] = True
    with pytest.raises(Refused, match="because issue is locked"):
        comment.publish(connect(github), 3, body("one"))


def test_an_expired_token_is_said(github: GitHub) -> None:
    with pytest.raises(Refused, match=r"401: Bad credentials.*expired"):
        comment.publish(connect(github, "expired"), 3, body("one"))


def test_a_pull_request_that_is_not_there_is_said(github: GitHub) -> None:
    with pytest.raises(NotFound, match="/issues/4/comments"):
        comment.publish(connect(github), 4, body("one"))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 100_000,
        "line\n" * 30_000,
        "\U0001f600" * 200_000,
        "<details><summary>s</summary>\n\n" + "- row\n" * 30_000,
        "before\n\n" + block("x\n" * 90_000, limit=200_000),
        "before\n\n```mermaid\n" + "a --> b\n" * 30_000,
        "before\n\n~~~~\n```\n" + "x\n" * 50_000,
    ],
    ids=["words", "lines", "emoji", "details", "fence", "mermaid", "tildes"],
)
def test_a_long_body_is_cut_below_the_limit_and_says_so_in_sight(github: GitHub, text: str) -> None:
    comment.publish(connect(github), 3, body(text))
    (posted,) = github.comments
    assert len(posted["body"]) <= 65_536 - 200
    assert posted["body"].startswith(MARKER)
    assert posted["body"].rstrip().endswith("holds all of it.**")
    shown = MarkdownIt().render(posted["body"])
    assert "<strong>This comment is cut off here" in shown
    assert shown.count("<details>") == shown.count("</details>")
    assert shown.rstrip().endswith("</strong></p>")


@pytest.mark.parametrize("extra", [0, 1])
def test_what_fits_is_not_cut(github: GitHub, extra: int) -> None:
    room = 65_536 - 256
    text = MARKER + "x" * (room - len(MARKER) + extra)
    comment.publish(connect(github), 3, text)
    assert (github.comments[0]["body"] == text) is (extra == 0)


def test_characters_that_github_cannot_hold_do_not_stop_a_comment(github: GitHub) -> None:
    comment.publish(connect(github), 3, body("a\0b\ud800c\r\nd\re"))
    assert github.comments[0]["body"].endswith("a\ufffdb?c\nd\ne\n")


@pytest.mark.parametrize("state", ["pending", "pass", "fail", "manual_review", "error"])
def test_each_state_is_told_from_the_others_by_its_first_words(state: str) -> None:
    first = body("text", state).split("\n")[2]
    assert first == f"## {comment.HEADINGS[state]}"
    assert len({heading[0] for heading in comment.HEADINGS.values()}) == len(comment.HEADINGS) == 5


@pytest.mark.parametrize("state", ["", "success", "PASS", "None"])
def test_an_unknown_verdict_is_refused(state: str) -> None:
    with pytest.raises(ConfigError, match="none of pending, pass"):
        body("text", state)


def test_a_message_is_shown_as_text_only() -> None:
    text = comment.sentence("error", f"<img src=x> @team #1 {MARKER}\n# big")
    assert text == inline(f"<img src=x> @team #1 {MARKER} # big", 600)
    assert "<" not in text


@pytest.mark.parametrize("has_one", [False, True])
def test_a_push_at_the_last_moment_is_seen(github: GitHub, has_one: bool) -> None:
    if has_one:
        github.comment(3, body("old"), BOT)

    def push(call: Call) -> None:
        if call.path.endswith("/comments") and call.method == "GET":
            github.push(3, NEWER)

    github.before = push
    assert comment.publish(connect(github), 3, body("new"), head=HEAD) is None
    assert github.posts == []


def test_the_head_is_the_last_thing_asked_before_anything_is_written(github: GitHub) -> None:
    comment.publish(connect(github), 3, body("one"), head=HEAD)
    comment.publish(connect(github), 3, body("two"), head=HEAD)
    for at, call in enumerate(github.calls):
        if call.method in ("POST", "PATCH") and "comments" in call.path:
            assert github.calls[at - 1].path == "/repos/o/r/pulls/3"
    assert writes(github) == ["POST", "PATCH"]
