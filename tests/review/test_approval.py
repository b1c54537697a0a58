from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.github.api import Api
from pipelines.core.github.replies import Unreachable
from pipelines.review.approval import approved, ask, owners_of, parse, standing
from pipelines.review.pull_request import PullRequest
from tests.standin.github import GitHub

HEAD = "a" * 40
PULL = PullRequest(7, HEAD, "main", "dev", False, False, "Title", "open")


@pytest.mark.parametrize(
    ("pattern", "owned", "free"),
    [
        ("*", ["a", "a/b", ".github/x"], []),
        ("*.js", ["a.js", "a/b.js"], ["a.jsx", "a/b.py"]),
        ("/build/logs/", ["build/logs/a", "build/logs/a/b"], ["x/build/logs/a", "build/logs"]),
        ("docs/*", ["docs/a.md"], ["docs/a/b.md", "x/docs/a.md"]),
        ("apps/", ["apps/a", "x/apps/a"], ["apps", "myapps/a"]),
        ("/docs/", ["docs/a"], ["x/docs/a"]),
        ("**/logs", ["logs/a", "a/logs", "a/b/logs/c"], ["a/mylogs"]),
        ("/scripts/**/gate.py", ["scripts/gate.py", "scripts/a/b/gate.py"], ["gate.py"]),
        ("/apps/github", ["apps/github", "apps/github/a"], ["apps/githubs", "x/apps/github"]),
        ("params.yaml", ["params.yaml", "a/params.yaml"], ["paramsxyaml", "params.yaml.bak"]),
        ("/a?.md", ["ab.md"], ["a.md", "a/.md"]),
        ("\\#note", ["#note"], ["note"]),
        ("/a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
    ],
)
def test_a_pattern_owns_what_github_says_it_owns(pattern: str, owned: list[str], free: list[str]) -> None:
    rules = parse(f"{pattern} @ada")
    assert [owners_of(path, rules) for path in owned] == [("@ada",)] * len(owned)
    assert [owners_of(path, rules) for path in free] == [()] * len(free)


def test_the_last_line_that_fits_decides_and_may_name_nobody() -> None:
    text = "# who\n\n* @ada @o/team # all\n/docs/ @eve\n/docs/free/\n!a @eve\n[ab] @eve\n/docs/x @Bob bob@example.com\n"
    rules = parse(text)
    found = {path: owners_of(path, rules) for path in ("a", "docs/a", "docs/free/a", "docs/x")}
    assert found == {"a": ("@ada", "@o/team"), "docs/a": ("@eve",), "docs/free/a": (),
                     "docs/x": ("@Bob", "bob@example.com")}  # fmt: skip


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    owners_of("docs/a.md", parse(text))


def review(login: str, state: str, commit: str = HEAD, at: str = "2026-11-20T10:00:00Z", **more: Any) -> dict[str, Any]:
    return {"user": {"login": login, "type": "User"}, "state": state, "commit_id": commit, "submitted_at": at,
            "body": f"{login} says so", "html_url": f"https://github.com/o/r/pull/7#{login}", **more}  # fmt: skip


def is_named(user: str, owner: str) -> bool:
    return owner == f"@{user}"


def decide(
    *reviews: dict[str, Any], paths: tuple[str, ...] = ("a",), owners: str = "* @ada\n/docs/ @eve @bob\n"
) -> Any:
    return approved(reviews, paths, parse(owners), PULL, is_named)


def test_an_owners_last_word_counts_and_comments_change_nothing() -> None:
    found = decide(review("ada", "CHANGES_REQUESTED"), review("ada", "APPROVED"), review("ada", "COMMENTED"))
    assert found.approval is not None
    assert (found.approval.user, found.approval.why) == ("ada", "ada says so")
    assert decide(review("ada", "APPROVED"), review("ada", "DISMISSED")).approval is None
    assert decide(review("ada", "PENDING")).approval is None


@pytest.mark.parametrize("commit", ["b" * 40, "", HEAD[:7], HEAD.upper(), f"{HEAD} "])
def test_only_exactly_the_head_is_approved(commit: str) -> None:
    assert decide(review("ada", "APPROVED", commit)).approval is None


def test_every_owner_is_needed_and_one_of_each() -> None:
    both = ("a", "docs/x")
    assert decide(review("ada", "APPROVED"), paths=both).lacking.startswith("an owner of docs/x (@eve, @bob)")
    found = decide(review("ada", "APPROVED"), review("bob", "APPROVED", at="2026-11-21T00:00:00Z"), paths=both)
    assert found.approval is not None
    assert (found.approval.user, found.approval.at) == ("ada, bob", "2026-11-21T00:00:00Z")


def test_an_owner_who_asks_for_changes_outweighs_another() -> None:
    found = decide(review("eve", "CHANGES_REQUESTED"), review("bob", "APPROVED"), paths=("docs/x",))
    assert found.lacking == "eve, who owns docs/x, asks for changes"
    assert decide(review("zoe", "CHANGES_REQUESTED"), review("ada", "APPROVED")).approval is not None


@pytest.mark.parametrize("login", ["dev", "DEV"])
def test_the_author_never_approves_however_the_name_is_written(login: str) -> None:
    assert decide(review(login, "APPROVED"), owners=f"* @{login}").approval is None


def test_what_nobody_owns_nobody_lifts() -> None:
    assert decide(review("ada", "APPROVED"), owners="/docs/ @ada").lacking.startswith("nobody owns a")
    assert decide(review("ada", "APPROVED"), paths=()).approval is None
    assert decide(review("ada", "APPROVED"), owners="").approval is None


def test_the_reason_is_cut_and_on_one_line() -> None:
    found = decide(review("ada", "APPROVED", body="line\n::set-output::\n" * 1000))
    assert found.approval is not None
    assert len(found.approval.why) <= 1000
    assert "\n" not in found.approval.why


@pytest.mark.parametrize(
    "broken", [{"user": None}, {"user": {}}, {"state": None}, {"commit_id": None}, {"body": None, "user": None}]
)
def test_a_review_of_a_deleted_account_or_without_parts_is_nothing(broken: dict[str, Any]) -> None:
    assert decide({**review("ada", "APPROVED"), **broken}).approval is None


states = st.sampled_from(["APPROVED", "CHANGES_REQUESTED", "DISMISSED", "COMMENTED", "PENDING"])
reviews = st.lists(
    st.builds(review, st.sampled_from(["ada", "eve", "dev", "zoe"]), states, st.sampled_from([HEAD, "b" * 40]))
)


@given(reviews)
def test_there_is_an_approval_only_with_a_standing_yes_of_an_owner_for_the_head(said: list[dict[str, Any]]) -> None:
    found = decide(*said)
    last = {one["user"]["login"]: one for one in said if one["state"] in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")}
    is_wanted = "ada" in last and (last["ada"]["state"], last["ada"]["commit_id"]) == ("APPROVED", HEAD)
    assert (found.approval is not None) == is_wanted
    assert (found.approval is None) == bool(found.lacking)
    assert set(standing(said)) == set(last)


def test_asking_an_owner_is_not_done_for_those_who_said_nothing() -> None:
    asked: list[str] = []

    def is_owner(user: str, owner: str) -> bool:
        asked.append(user)
        return False

    check: Callable[[str, str], bool] = is_owner
    approved([review("ada", "APPROVED"), review("zoe", "COMMENTED")], ["a"], parse("* @o/team"), PULL, check)
    assert set(asked) == {"ada"}


def ask_about_a_team(github: GitHub, user: str, token: str, team: str = "@o/writers") -> Any:
    github.pull(7, head=HEAD)
    github.review(7, user, "APPROVED", HEAD)
    github.collaborators |= {"tim": "write", "zoe": "write"}
    github.teams["o/writers"] = ["tim"]
    api = Api("o/r", token, base_url=github.url, sleep=lambda seconds: None)
    return ask(api, PULL, ["a"], f"* @ada {team}")


@pytest.mark.parametrize(
    ("user", "permissions", "team", "is_approved", "is_unseen"),
    [
        ("tim", {"members": "read"}, "@o/writers", True, False),
        ("zoe", {"members": "read"}, "@o/writers", False, False),
        ("tim", {}, "@o/writers", False, True),
        ("tim", {"members": "read"}, "@o/secret", False, True),
    ],
)
def test_a_team_that_the_token_cannot_see_is_told_from_one_without_that_member(
    user: str, permissions: dict[str, str], team: str, is_approved: bool, is_unseen: bool
) -> None:
    with GitHub() as github:
        github.tokens["app"] = {"login": "bot[bot]", "permissions": permissions}
        found = ask_about_a_team(github, user, "app", team)
    assert (found.approval is not None) == is_approved
    assert found.lacking.endswith(f"; this token cannot see the team {team}") == is_unseen
    assert found.lacking.startswith("" if is_approved else f"an owner of a (@ada, {team}) has to approve")


def test_whether_somebody_is_a_member_is_not_guessed_while_github_is_down() -> None:
    with GitHub() as github:
        github.fail_next(503, 100, "/memberships/")
        with pytest.raises(Unreachable):
            ask_about_a_team(github, "tim", github.token)
