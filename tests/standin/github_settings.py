"""A repository's settings: collections with GitHub's keys and refusals, and single values for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.standin.github_answers import NOT_FOUND, Answer, invalid
from tests.standin.github_store import now, shown

if TYPE_CHECKING:
    from tests.standin.github import GitHub
# Last part of a collection's path -> key of its items, name of the list in the answer (None: the bare list).
COLLECTIONS: dict[str, tuple[str, str | None]] = {
    "rulesets": ("id", None),
    "labels": ("name", None),
    "milestones": ("number", None),
    "environments": ("name", "environments"),
    "variables": ("name", "variables"),
    "secrets": ("name", "secrets"),
    "deployment-branch-policies": ("id", "branch_policies"),
}


def settings(github: GitHub, method: str, path: str, body: Any) -> Answer:
    """Answer for a path below the repository that no other route has."""
    if body is not None and not isinstance(body, dict):
        return Answer(400, {"message": "Body should be a JSON object"})
    parent, _, last = path.rpartition("/")
    if path.rpartition("/")[2] in COLLECTIONS and method in ("GET", "POST"):
        return _collection(github, method, path, body or {})
    if parent.rpartition("/")[2] in COLLECTIONS:
        return _item(github, method, parent, unquote(last), body or {})
    known = github.settings.get(path)
    if method == "GET":
        return Answer(200, shown(known)) if known is not None else Answer(404, NOT_FOUND)
    if method == "DELETE":
        return Answer(404, NOT_FOUND) if github.settings.pop(path, None) is None else Answer(204)
    if method == "POST":
        return invalid(f"{path} takes no POST")
    if method == "PATCH" and known is None:
        return Answer(404, NOT_FOUND)
    github.settings[path] = (known or {}) | (body or {}) if method == "PATCH" else body or {}
    return Answer(200, shown(github.settings[path]))


def _collection(github: GitHub, method: str, path: str, body: dict[str, Any]) -> Answer:
    key, wrapped_as = COLLECTIONS[path.rpartition("/")[2]]
    items = github.settings.setdefault(path, [])
    if method == "GET":
        return Answer(200, items=[shown(one) for one in items], wrapped_as=wrapped_as)
    if not body.get("name"):
        return invalid("name can't be blank")
    if any(_same(one["name"], body["name"]) for one in items):
        if path.endswith("variables"):
            return Answer(409, {"message": "Already exists - Variable already exists"})
        return invalid("Name must be unique" if key == "id" else "already_exists")
    made = ({key: github.next_id()} if key != "name" else {}) | body | {"created_at": now(), "updated_at": now()}
    items.append(made)
    return Answer(201, shown(made))


def _item(github: GitHub, method: str, parent: str, name: str, body: dict[str, Any]) -> Answer:
    key, _ = COLLECTIONS[parent.rpartition("/")[2]]
    items = github.settings.setdefault(parent, [])
    found = next((one for one in items if _same(str(one[key]), name)), None)
    if found is None:
        if method == "PUT" and parent == "environments":
            items.append({"id": github.next_id(), "name": name, "protection_rules": []} | body)
            return Answer(200, shown(items[-1]))
        return Answer(404, NOT_FOUND)
    if method == "DELETE":
        items.remove(found)
        return Answer(204)
    if method in ("PUT", "PATCH"):
        body = dict(body)
        if "new_name" in body:
            body["name"] = body.pop("new_name")
        found |= body | {"updated_at": now()}
        if parent.endswith("variables"):
            return Answer(204)
    return Answer(200, shown(found))


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()
