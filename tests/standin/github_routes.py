"""Which path of GitHub's REST API answers what, with the refusals that GitHub documents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.standin.github_answers import NOT_FOUND, Answer, invalid
from tests.standin.github_releases import ROUTES as RELEASES
from tests.standin.github_settings import settings
from tests.standin.github_store import now, shown, user

if TYPE_CHECKING:
    from tests.standin.github import Call, GitHub

WRITES = ("POST", "PATCH", "PUT", "DELETE")
# Which permissions of a token allow to write below a path of the repository; one is enough.
SCOPES = [
    (r"issues(/.*)?", ("issues", "pull_requests")),
    (r"pulls(/.*)?", ("pull_requests",)),
    (r"statuses/.*", ("statuses",)),
    (r"labels(/.*)?", ("issues", "pull_requests")),
    (r"releases(/.*)?", ("contents",)),
    (r"actions/workflows/[^/]+/dispatches", ("actions",)),
    (r"actions/variables(/.*)?|environments/[^/]+/variables(/.*)?", ("variables",)),
    (r".*", ("administration",)),
]


def answer(github: GitHub, call: Call, token: str | None) -> Answer:
    """Answer a request as GitHub would."""
    if call.login is None:
        message = "Bad credentials" if token else "Requires authentication"
        return Answer(401, {"message": message, "status": "401"})
    if fixed := github.answers.get(f"{call.method} {call.path}"):
        return Answer(*fixed)
    if call.path in ("/graphql", "/api/graphql"):  # the one question we ask there
        is_known = isinstance(call.body, dict) and "viewer" in call.body.get("query", "")
        viewer = {"data": {"viewer": {"login": call.login}}} if is_known else {"errors": [{"message": "cannot parse"}]}
        return Answer(200, viewer)
    if call.path == "/user":
        if call.login.endswith("[bot]"):  # an App's token, GITHUB_TOKEN too, is nobody's
            return Answer(403, {"message": "Resource not accessible by integration"})
        return Answer(200, user(call.login))
    if found := re.fullmatch(r"/users/([^/]+)", call.path):
        return Answer(200, user(unquote(found[1])))
    if found := re.fullmatch(r"/orgs/([^/]+)/teams/([^/]+)(?:/memberships/([^/]+)|/(members))?", call.path):
        assert token is not None
        return _team(github, github.tokens[token]["permissions"], *map(unquote, found.groups("")))
    prefix = f"/repos/{github.repository}"
    if call.path != prefix and not call.path.startswith(f"{prefix}/"):
        return Answer(404, NOT_FOUND)
    rest = call.path[len(prefix) + 1 :]
    assert token is not None
    if call.method in WRITES and (refusal := _refusal(github.tokens[token]["permissions"], rest)):
        return refusal
    for method, pattern, route in ROUTES:
        if method == call.method and (match := re.fullmatch(pattern, rest)):
            found_answer: Answer = route(github, call, *map(unquote, match.groups()))
            return found_answer
    return settings(github, call.method, rest, call.body)


def _refusal(permissions: dict[str, str] | None, rest: str) -> Answer | None:
    if permissions is None:
        return None
    scopes = next(scopes for pattern, scopes in SCOPES if re.fullmatch(pattern, rest))
    if any(permissions.get(scope) == "write" for scope in scopes):
        return None
    needed = "; ".join(f"{scope}=write" for scope in scopes)
    return Answer(403, {"message": "Resource not accessible by integration"}, {"X-Accepted-GitHub-Permissions": needed})


def _team(
    github: GitHub, permissions: dict[str, str] | None, organisation: str, slug: str, login: str, listed: str
) -> Answer:
    if permissions is not None and "members" not in permissions:  # the organisation's permission, not the repository's
        return Answer(
            403,
            {"message": "Resource not accessible by integration"},
            {"X-Accepted-GitHub-Permissions": "members=read"},
        )
    members = github.teams.get(f"{organisation}/{slug}")
    if members is None or (login and login not in members):
        return Answer(404, NOT_FOUND)
    if listed:
        return Answer(200, items=[user(member) for member in members])
    return Answer(200, {"state": "active", "role": "member"} if login else {"slug": slug, "privacy": "closed"})


def _pulls(github: GitHub, call: Call) -> Answer:
    wanted = call.query.get("state", "open")
    found = [one for one in github.pulls.values() if wanted in ("all", one["state"])]
    for key in ("head", "base"):
        if key in call.query:
            name = "label" if key == "head" else "ref"
            found = [one for one in found if one[key][name] == call.query[key]]
    return Answer(200, items=[shown(one) for one in reversed(found)])


def _pull(github: GitHub, call: Call, number: str) -> Answer:
    found = github.pulls.get(int(number))
    return Answer(200, shown(found)) if found else Answer(404, NOT_FOUND)


def _of_pull(name: str) -> Any:
    def route(github: GitHub, call: Call, number: str) -> Answer:
        if int(number) not in github.pulls:
            return Answer(404, NOT_FOUND)
        return Answer(200, items=[shown(one) for one in getattr(github, name).get(int(number), [])])

    return route


def _comments(github: GitHub, call: Call, number: str) -> Answer:
    if int(number) not in github.pulls:
        return Answer(404, NOT_FOUND)
    return Answer(200, items=[shown(one) for one in github.comments_of(int(number))])


def _body_of(call: Call) -> str | Answer:
    body = call.body.get("body") if isinstance(call.body, dict) else None
    if not isinstance(body, str) or not body.strip():
        return invalid("body can't be blank")
    if len(body) > 65_536:
        return invalid("body is too long (maximum is 65536 characters)")
    return body


def _create_comment(github: GitHub, call: Call, number: str) -> Answer:
    pull = github.pulls.get(int(number))
    if pull is None:
        return Answer(404, NOT_FOUND)
    if pull["locked"]:
        return Answer(403, {"message": "Unable to create comment because issue is locked."})
    body = _body_of(call)
    assert call.login
    return body if isinstance(body, Answer) else Answer(201, shown(github.comment(int(number), body, call.login)))


def _comment(github: GitHub, call: Call, identity: str) -> Answer:
    found = next((one for one in github.comments if one["id"] == int(identity)), None)
    if found is None:
        return Answer(404, NOT_FOUND)
    if call.method == "DELETE":
        github.comments.remove(found)
        return Answer(204)
    if call.method == "PATCH":
        body = _body_of(call)
        if isinstance(body, Answer):
            return body
        found |= {"body": body, "updated_at": now()}
    return Answer(200, shown(found))


def _set_status(github: GitHub, call: Call, sha: str) -> Answer:
    if not re.fullmatch(r"[0-9a-f]{40}", sha):
        return Answer(422, {"message": f"No commit found for SHA: {sha}"})
    body = call.body or {}
    if body.get("state") not in ("error", "failure", "pending", "success"):
        return invalid("State is not included in the list")
    if len(body.get("description") or "") > 140:
        return invalid("Description is too long (maximum is 140 characters)")
    if (target := body.get("target_url")) and not re.match(r"https?://", target):
        return invalid("Target URL must use http(s) scheme")
    assert call.login
    made = {"id": github.next_id(), "context": "default", "description": None, "target_url": None} | body
    made |= {"creator": user(call.login), "created_at": now(), "updated_at": now()}
    github.statuses.setdefault(sha, []).append(made)
    return Answer(201, shown(made))


def _statuses(github: GitHub, call: Call, sha: str) -> Answer:
    return Answer(200, items=[shown(one) for one in reversed(github.statuses.get(sha, []))])


def _combined(github: GitHub, call: Call, sha: str) -> Answer:
    latest = {one["context"]: one for one in github.statuses.get(sha, [])}
    states = {one["state"] for one in latest.values()}
    state = "failure" if states & {"failure", "error"} else "success" if states == {"success"} else "pending"
    return Answer(200, {"state": state, "sha": sha, "statuses": list(latest.values()), "total_count": len(latest)})


def _check_runs(github: GitHub, call: Call, sha: str) -> Answer:
    return Answer(200, items=github.check_runs.get(sha, []), wrapped_as="check_runs")


def _pulls_of(github: GitHub, call: Call, sha: str) -> Answer:
    return Answer(200, items=[shown(one) for one in github.pulls.values() if one["head"]["sha"] == sha])


def _permission(github: GitHub, call: Call, login: str) -> Answer:
    role = github.collaborators.get(login, "read")
    plain = {"maintain": "write", "triage": "read"}.get(role, role)
    return Answer(200, {"permission": plain, "role_name": role, "user": user(login)})


def _collaborator(github: GitHub, call: Call, login: str) -> Answer:
    return Answer(204) if login in github.collaborators else Answer(404, NOT_FOUND)


def _runs(github: GitHub, call: Call) -> Answer:
    keys = {"head_sha", "event", "status", "branch"} & call.query.keys()
    names = {"branch": "head_branch"}
    found = [one for one in github.runs if all(one.get(names.get(key, key)) == call.query[key] for key in keys)]
    return Answer(200, items=[shown(one) for one in found], wrapped_as="workflow_runs")


def _activities(github: GitHub, call: Call) -> Answer:
    wanted = call.query.get("ref")  # `refs/heads/NAME` and `NAME` mean the same
    full = wanted if wanted is None or wanted.startswith("refs/") else f"refs/heads/{wanted}"
    return Answer(200, items=[shown(one) for one in github.activities if full in (None, one["ref"])])


def _run(github: GitHub, call: Call, identity: str) -> Answer:
    found = next((one for one in github.runs if one["id"] == int(identity)), None)
    return Answer(200, shown(found)) if found else Answer(404, NOT_FOUND)


def _jobs(github: GitHub, call: Call, identity: str) -> Answer:
    if int(identity) not in github.jobs and not any(one["id"] == int(identity) for one in github.runs):
        return Answer(404, NOT_FOUND)
    if call.query.get("filter", "latest") not in ("latest", "all"):
        return invalid("filter is not included in the list")
    return Answer(200, items=[shown(one) for one in github.jobs.get(int(identity), [])], wrapped_as="jobs")


def _approvals(github: GitHub, call: Call, identity: str) -> Answer:
    if not any(one["id"] == int(identity) for one in github.runs):
        return Answer(404, NOT_FOUND)
    return Answer(200, [shown(one) for one in github.approvals.get(int(identity), [])])


def _artifacts(github: GitHub, call: Call, identity: str) -> Answer:
    return Answer(200, items=github.artifacts.get(int(identity), []), wrapped_as="artifacts")


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "pulls", _pulls),
    ("GET", r"pulls/(\d+)", _pull),
    ("GET", r"pulls/(\d+)/reviews", _of_pull("reviews")),
    ("GET", r"pulls/(\d+)/files", _of_pull("files")),
    ("GET", r"issues/(\d+)/comments", _comments),
    ("POST", r"issues/(\d+)/comments", _create_comment),
    ("GET", r"issues/(\d+)/events", _of_pull("events")),
    *((method, r"issues/comments/(\d+)", _comment) for method in ("GET", "PATCH", "DELETE")),
    ("POST", "statuses/([^/]+)", _set_status),
    ("GET", "commits/([^/]+)/statuses", _statuses),
    ("GET", "commits/([^/]+)/status", _combined),
    ("GET", "commits/([^/]+)/check-runs", _check_runs),
    ("GET", "commits/([^/]+)/pulls", _pulls_of),
    ("GET", "collaborators/([^/]+)/permission", _permission),
    ("GET", "collaborators/([^/]+)", _collaborator),
    ("GET", "activity", _activities),
    ("GET", "actions/runs", _runs),
    ("GET", "actions/workflows/[^/]+/runs", _runs),
    ("GET", r"actions/runs/(\d+)", _run),
    ("GET", r"actions/runs/(\d+)/jobs", _jobs),
    ("GET", r"actions/runs/(\d+)/artifacts", _artifacts),
    ("GET", r"actions/runs/(\d+)/approvals", _approvals),
    *RELEASES,
]
