"""Releases with their files, and workflows that are started by hand, with the refusals that GitHub documents."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from tests.standin.github_answers import NOT_FOUND, Answer, invalid
from tests.standin.github_store import now, shown, user

if TYPE_CHECKING:
    from tests.standin.github import Call, GitHub

FIELDS = ("tag_name", "target_commitish", "name", "body", "draft", "prerelease")
MOST_CHARACTERS = 125_000
TWICE = Answer(422, {"message": "Validation Failed", "errors": [{"code": "already_exists"}]})


def _refused(github: GitHub, body: dict[str, Any], release: dict[str, Any] | None) -> Answer | None:
    if len(str(body.get("body") or "")) > MOST_CHARACTERS:
        return invalid(f"body is too long (maximum is {MOST_CHARACTERS} characters)")
    after = (release or {}) | body
    if body.get("make_latest") == "true" and (after.get("draft") or after.get("prerelease")):
        return invalid("make_latest: Latest release cannot be draft or prerelease.")
    tag = after["tag_name"]
    if not after.get("draft") and any(
        one["tag_name"] == tag and not one["draft"] and one is not release for one in github.releases
    ):
        return TWICE
    return None


def _create(github: GitHub, call: Call) -> Answer:
    body = call.body or {}
    if not body.get("tag_name"):
        return invalid("tag_name wasn't supplied")
    if refused := _refused(github, body, None):
        return refused
    assert call.login
    identity = github.next_id()
    made = {
        "id": identity, "target_commitish": "main", "name": "", "body": "", "draft": False, "prerelease": False,
        "author": user(call.login), "assets": [], "created_at": now(),
        "html_url": f"https://github.example/{github.repository}/releases/tag/{body['tag_name']}",
        "upload_url": f"{github.url}/repos/{github.repository}/releases/{identity}/assets{{?name,label}}",
    } | {key: body[key] for key in FIELDS if key in body}  # fmt: skip
    github.releases.insert(0, made)
    _latest(github, made, body)
    return Answer(201, shown(made))


def _latest(github: GitHub, release: dict[str, Any], body: dict[str, Any]) -> None:
    if not release["draft"] and not release["prerelease"] and body.get("make_latest", "true") == "true":
        github.latest = release["id"]
    elif github.latest == release["id"] and (release["draft"] or release["prerelease"]):
        github.latest = 0


def _of(github: GitHub, identity: str) -> dict[str, Any] | None:
    return next((one for one in github.releases if one["id"] == int(identity)), None)


def _list(github: GitHub, call: Call) -> Answer:
    return Answer(200, items=[shown(one) for one in github.releases])


def _newest(github: GitHub, call: Call) -> Answer:
    found = _of(github, str(github.latest))
    return Answer(200, shown(found)) if found else Answer(404, NOT_FOUND)


def _by_tag(github: GitHub, call: Call, tag: str) -> Answer:  # a draft is found in the list alone
    found = next((one for one in github.releases if one["tag_name"] == tag and not one["draft"]), None)
    return Answer(200, shown(found)) if found else Answer(404, NOT_FOUND)


def _change(github: GitHub, call: Call, identity: str) -> Answer:
    found = _of(github, identity)
    if found is None:
        return Answer(404, NOT_FOUND)
    body = call.body or {}
    if refused := _refused(github, body, found):
        return refused
    found |= {key: body[key] for key in FIELDS if key in body}
    _latest(github, found, body)
    return Answer(200, shown(found))


def _assets(github: GitHub, call: Call, identity: str) -> Answer:
    found = _of(github, identity)
    return Answer(200, items=[shown(one) for one in found["assets"]]) if found else Answer(404, NOT_FOUND)


def _upload(github: GitHub, call: Call, identity: str) -> Answer:
    found = _of(github, identity)
    if found is None:
        return Answer(404, NOT_FOUND)
    if found["id"] in github.immutable and not found["draft"]:
        return invalid("Cannot upload assets to an immutable release.")
    name, data = call.query.get("name", ""), base64.b64decode(call.body["base64"])
    if any(one["name"] == name for one in found["assets"]):
        return TWICE
    made = {
        "id": github.next_id(), "name": name, "state": "uploaded", "size": len(data), "content": call.body["base64"],
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
    }  # fmt: skip
    found["assets"].append(made)
    return Answer(201, shown(made))


def _remove(github: GitHub, call: Call, identity: str) -> Answer:
    for release in github.releases:
        for asset in release["assets"]:
            if asset["id"] == int(identity):
                release["assets"].remove(asset)
                return Answer(204)
    return Answer(404, NOT_FOUND)


def _dispatch(github: GitHub, call: Call, workflow: str) -> Answer:
    if workflow not in github.workflows:
        return Answer(404, NOT_FOUND)
    body = call.body or {}
    if not body.get("ref"):
        return invalid('Invalid request. "ref" wasn\'t supplied.')
    if unknown := set(body.get("inputs") or {}) - set(github.workflows[workflow]):
        return Answer(422, {"message": f"Unexpected inputs provided: {sorted(unknown)}"})
    github.dispatched.append({"workflow": workflow, **body})
    return Answer(204)


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "releases", _list),
    ("POST", "releases", _create),
    ("GET", "releases/latest", _newest),
    ("GET", "releases/tags/([^/]+)", _by_tag),
    ("PATCH", r"releases/(\d+)", _change),
    ("GET", r"releases/(\d+)/assets", _assets),
    ("POST", r"releases/(\d+)/assets", _upload),
    ("DELETE", r"releases/assets/(\d+)", _remove),
    ("POST", r"actions/workflows/([\w.-]+)/dispatches", _dispatch),
]
