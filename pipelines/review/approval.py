"""Who may lift a `manual_review`, and whether somebody has: an owner approves exactly the judged commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.core.github.api import Api, segment
from pipelines.core.github.replies import NotFound, Refused
from pipelines.core.records import Approval
from pipelines.review.pull_request import PullRequest

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
WHY_CHARACTERS = 1000
GLOBS = {"/**/": "/(?:.*/)?", "**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Rule(NamedTuple):
    """One line of CODEOWNERS: a pattern, and its owners, of which there may be none."""

    pattern: re.Pattern[str]
    owners: tuple[str, ...]


class Review(NamedTuple):
    """One person's standing review."""

    user: str
    state: str
    commit: str
    at: str
    why: str
    url: str


class Approved(NamedTuple):
    """Whether the owners have approved.

    Attributes:
        approval: Who, when and why, or None.
        lacking: What is missing, for people; empty with an approval.
        is_refused: Whether an owner asks for changes, which nobody else's approval outweighs.
    """

    approval: Approval | None
    lacking: str = ""
    is_refused: bool = False


def parse(text: str) -> tuple[Rule, ...]:
    """Read CODEOWNERS, skipping lines that GitHub skips as well."""
    rules = []
    for line in text.splitlines():
        pattern, *owners = re.sub(r"(^|(?<=\s))#.*", "", line.strip()).split() or [""]
        if pattern and not re.search(r"[!\[\]]", pattern):
            rules.append(Rule(_compiled(pattern.replace("\\#", "#")), tuple(owners)))
    return tuple(rules)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of CODEOWNERS: gitignore's, without negation and character ranges."""
    is_anchored = "/" in pattern.rstrip("/")
    is_folder = pattern.endswith("/")
    core = pattern.strip("/")
    text = ""
    for piece in re.split(r"(/\*\*/|\*\*/|/\*\*|\*\*|\*|\?)", core):
        text += GLOBS.get(piece) or re.escape(piece)
    # What names a folder owns all below it; `docs/*` alone owns the files of that folder only.
    below = "/.*" if is_folder else "" if core.endswith("/*") else "(?:/.*)?"
    return re.compile(f"{'' if is_anchored else '(?:.*/)?'}{text}{below}", re.DOTALL)


def owners_of(path: str, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the owners of a path: those of the last line that fits it."""
    return next((rule.owners for rule in reversed(rules) if rule.pattern.fullmatch(path)), ())


def standing(reviews: Iterable[Any]) -> dict[str, Review]:
    """Return each person's last review that says yes or no; comments take nothing back, dismissals do.

    Args:
        reviews: GitHub's, oldest first.
    """
    found: dict[str, Review] = {}
    for value in reviews:
        user, state = value.get("user") or {}, value.get("state")
        if state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED") and user.get("type") != "Bot" and user.get("login"):
            login, body = str(user["login"]), str(value.get("body") or "")
            said = str(value.get("submitted_at") or ""), body[:WHY_CHARACTERS], str(value.get("html_url") or "")
            found[login.casefold()] = Review(login, state, str(value.get("commit_id") or ""), *said)
    return found


def approved(
    reviews: Iterable[Any],
    paths: Collection[str],
    rules: Sequence[Rule],
    pull_request: PullRequest,
    is_owner: Callable[[str, str], bool],
) -> Approved:
    """Tell whether the owners of everything that changed have approved exactly the head commit.

    Args:
        reviews: GitHub's, oldest first.
        paths: What the pull request changes.
        rules: CODEOWNERS of main; the pull request's own has no say.
        pull_request: Its author's review counts for nothing.
        is_owner: Whether a user (first) is meant by an owner's name (second) and may write to the repository.
    """
    said = {key: one for key, one in standing(reviews).items() if key != pull_request.author.casefold()}
    wanted = {owners: path for path in sorted(paths, reverse=True) for owners in [owners_of(path, rules)]}
    if not wanted:
        return Approved(None, "nothing is changed that somebody owns")
    yes = [one for one in said.values() if (one.state, one.commit) == ("APPROVED", pull_request.head)]
    no = [one for one in said.values() if one.state == "CHANGES_REQUESTED"]
    used: dict[str, Review] = {}
    by_path = sorted(wanted.items(), key=lambda item: item[1])
    for owners, path in by_path:
        if against := next((one for one in no if any(is_owner(one.user, owner) for owner in owners)), None):
            return Approved(None, f"{against.user}, who owns {path}, asks for changes", is_refused=True)
    for owners, path in by_path:
        if not owners:
            return Approved(None, f"nobody owns {path}; add it to CODEOWNERS on main")
        mine = next((one for one in yes if any(is_owner(one.user, owner) for owner in owners)), None)
        if mine is None:
            return Approved(None, f"an owner of {path} ({', '.join(owners)}) has to approve commit {pull_request.head}")
        used[mine.user] = mine
    last = max(used.values(), key=lambda one: one.at)
    why = " ".join(filter(None, (" ".join(one.why.split()) for one in used.values())))
    return Approved(Approval(user=", ".join(used), at=last.at, why=why[:WHY_CHARACTERS], review_url=last.url))


def ask(
    api: Api,
    pull_request: PullRequest,
    paths: Collection[str],
    codeowners: str | None,
    teams: Mapping[str, Sequence[str] | None] | None = None,
) -> Approved:
    """Ask GitHub whether the owners have approved.

    Args:
        api: The repository.
        pull_request: Which.
        paths: What it changes.
        codeowners: Text of CODEOWNERS on main, or None where there is none.
        teams: Members by team, None for a team that was not seen; without them GitHub is asked.
    """
    if codeowners is None:
        return Approved(None, "main has no CODEOWNERS, so nobody can lift this; add .github/CODEOWNERS")
    reviews = api.pages(f"/repos/{{repository}}/pulls/{pull_request.number}/reviews")
    known: dict[tuple[str, str], bool] = {}
    unseen: dict[str, None] = {}

    def is_owner(user: str, owner: str) -> bool:
        key = user.casefold(), owner
        if key not in known:
            meant = _is_member(user, owner, teams) if teams is not None else _is_meant(api, user, owner)
            if meant is None:
                unseen[owner] = None
            known[key] = bool(meant) and api.may_write(user)
        return known[key]

    found = approved(reviews, paths, parse(codeowners), pull_request, is_owner)
    named = ", ".join(team for team in unseen if team in found.lacking)
    return found._replace(lacking=f"{found.lacking}; this token cannot see the team {named}") if named else found


def _is_member(user: str, owner: str, teams: Mapping[str, Sequence[str] | None]) -> bool | None:
    """Tell the same as `_is_meant` from teams that were asked for ahead."""
    if "/" not in owner:
        return owner.casefold() == f"@{user}".casefold()
    members = teams.get(owner) if owner.startswith("@") else ()
    return None if members is None else user.casefold() in {member.casefold() for member in members}


def _is_meant(api: Api, user: str, owner: str) -> bool | None:
    """Tell whether a user is who an owner's name means; None where the token may not see the team."""
    name = owner.removeprefix("@")
    if not owner.startswith("@"):
        return False  # an address: nobody can tell whose it is
    if "/" not in name:
        return name.casefold() == user.casefold()
    organisation, slug = name.split("/", 1)
    team = f"/orgs/{segment(organisation)}/teams/{segment(slug)}"
    try:
        return bool(api.get(f"{team}/memberships/{segment(user)}").get("state") == "active")
    except NotFound:
        return False if _is_seen(api, team) else None
    except Refused as error:
        if error.status != 403:
            raise
        return None


def _is_seen(api: Api, path: str) -> bool:
    # GitHub says 404 for no member and for a team that is none of the token's business alike.
    try:
        return bool(api.get(path))
    except NotFound:
        return False
    except Refused as error:
        if error.status != 403:
            raise
        return False
