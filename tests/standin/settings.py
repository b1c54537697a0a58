"""A stand-in of GitHub whose rulesets, labels, environments and variables behave as its REST documentation says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema

from tests.standin.github import Call, GitHub
from tests.standin.github_answers import NOT_FOUND, Answer, invalid
from tests.standin.github_routes import WRITES, _refusal
from tests.standin.github_store import shown

SCHEMAS = Path(__file__).parent.parent / "schemas"
RULESET = json.loads((SCHEMAS / "ruleset.schema.json").read_text())
ENVIRONMENT = json.loads((SCHEMAS / "environment.schema.json").read_text())
# What GitHub answers with although nobody sent it.
DEFAULTS: dict[str, dict[str, Any]] = {
    "pull_request": {"required_reviewers": [], "dismissal_restriction": {"enabled": False, "allowed_actors": []}},
    "update": {"update_allows_fetch_and_merge": False},
}
UPGRADE = "Upgrade to GitHub Pro or make this repository public to enable this feature."
BILLING = (
    "Failed to create the environment protection rule. Please ensure the billing plan supports the {} protection rule."
)


class Repository(GitHub):
    """A repository of an organisation: its plan, the Apps installed on it, its people and its settings."""

    def __init__(self, repository: str = "acme/support", *, private: bool = False, plan: str = "team") -> None:
        super().__init__(repository)
        self.is_private, self.plan = private, plan
        self.apps = {4711}
        self.people = {"/users/ada": 11, "/users/bob": 12, "/orgs/acme/teams/maintainers": 70}
        self.code_owner_errors: list[dict[str, Any]] = []
        self.rulesets: dict[int, dict[str, Any]] = {}
        self.labels: dict[str, dict[str, Any]] = {}
        self.environments: dict[str, dict[str, Any]] = {}
        self.variables: dict[str, str] = {}

    def allow(self, **permissions: str) -> None:
        """Give the token these permissions and no other."""
        self.tokens[self.token] = {"login": "acme-bootstrap[bot]", "permissions": permissions}

    def may(self, scope: str, level: str = "write") -> bool:
        """Return whether the token has a permission."""
        permissions = self.tokens[self.token]["permissions"]
        return permissions is None or permissions.get(scope) in ("write", level)

    def ruleset(self, name: str) -> dict[str, Any]:
        """Return a ruleset by its name."""
        return next(one for one in self.rulesets.values() if one["name"] == name)

    def handle(self, call: Call, token: str | None) -> Answer | None:
        """Answer for the settings as documented; everything else as the plain stand-in does."""
        is_failing = any(one.times > 0 and one.path in call.path for one in self.failures)
        found = None if is_failing or call.login is None else self._own(call, token)
        if found is None:
            return super().handle(call, token)
        self.calls.append(call)
        call.status = found.status
        return found

    def _own(self, call: Call, token: str | None) -> Answer | None:
        if call.path.startswith(("/users/", "/orgs/")) and "/memberships/" not in call.path:
            identity = self.people.get(call.path)
            return Answer(200, {"id": identity}) if identity else Answer(404, NOT_FOUND)
        prefix = f"/repos/{self.repository}/"
        if not call.path.startswith(prefix):
            return None
        rest = call.path.removeprefix(prefix)
        if call.method in WRITES and token and (refusal := _refusal(self.tokens[token]["permissions"], rest)):
            return refusal
        for pattern, route in ROUTES:
            if match := re.fullmatch(pattern, rest):
                return route(self, call, *map(unquote, match.groups()))
        return None


def _rulesets(github: Repository, call: Call) -> Answer:
    if github.is_private and github.plan == "free":
        return Answer(403, {"message": UPGRADE})
    if call.method == "GET":
        names = ("id", "name", "target", "source_type", "source", "enforcement")
        return Answer(200, items=[{key: one[key] for key in names} for one in github.rulesets.values()])
    return _save_ruleset(github, github.next_id(), call.body, 201)


def _ruleset(github: Repository, call: Call, number: str) -> Answer:
    if int(number) not in github.rulesets:
        return Answer(404, NOT_FOUND)
    if call.method == "GET":
        found = shown(github.rulesets[int(number)])
        if not github.may("administration"):
            del found["bypass_actors"]  # "only returned if the user making the request has write access"
        return Answer(200, found)
    return _save_ruleset(github, int(number), call.body, 200)


def _save_ruleset(github: Repository, number: int, body: dict[str, Any], status: int) -> Answer:
    for error in jsonschema.Draft202012Validator(RULESET).iter_errors(body):
        return invalid(f"Invalid request: {error.message[:200]}")
    if any(one["name"] == body["name"] for at, one in github.rulesets.items() if at != number):
        return invalid("Name must be unique")
    actors = [one for one in body["bypass_actors"] if one["actor_type"] == "Integration"]
    if any(one["actor_id"] not in github.apps for one in actors):
        return invalid("Actor integration must be part of the ruleset source or owner organization")
    rules = []
    for rule in body["rules"]:
        parameters = rule.get("parameters", {}) | DEFAULTS.get(rule["type"], {})
        for check in parameters.get("required_status_checks", []):
            if "integration_id" in check and check["integration_id"] not in github.apps:
                return invalid("Integration must be installed on the repository")
        rules.append({"type": rule["type"]} | ({"parameters": parameters} if parameters else {}))
    extra = {"id": number, "source_type": "Repository", "source": github.repository, "rules": rules[::-1]}
    github.rulesets[number] = shown(body) | extra
    return Answer(status, shown(github.rulesets[number]))


def _labels(github: Repository, call: Call) -> Answer:
    if call.method == "GET":
        return Answer(200, items=list(map(shown, github.labels.values())))
    if call.body["name"].lower() in github.labels:
        return Answer(422, {"message": "Validation Failed", "errors": [{"code": "already_exists", "field": "name"}]})
    return _save_label(github, {"description": None} | call.body, 201)


def _label(github: Repository, call: Call, name: str) -> Answer:
    if name.lower() not in github.labels:
        return Answer(404, NOT_FOUND)
    change = {("name" if key == "new_name" else key): value for key, value in call.body.items()}
    return _save_label(github, github.labels.pop(name.lower()) | change, 200)


def _save_label(github: Repository, label: dict[str, Any], status: int) -> Answer:
    if not re.fullmatch("[0-9a-fA-F]{6}", label["color"]):
        return Answer(422, {"message": "Validation Failed", "errors": [{"code": "invalid", "field": "color"}]})
    if len(label["description"] or "") > 100:
        return invalid("description is too long (maximum is 100 characters)")
    github.labels[label["name"].lower()] = label | {"description": label["description"] or None}
    return Answer(status, shown(github.labels[label["name"].lower()]))


def _environments(github: Repository, call: Call) -> Answer:
    found = [{key: one[key] for key in one if key != "policies"} for one in github.environments.values()]
    return Answer(200, items=shown(found), wrapped_as="environments")  # type: ignore[arg-type]


def _environment(github: Repository, call: Call, name: str) -> Answer:
    body = call.body or {}
    for error in jsonschema.Draft202012Validator(ENVIRONMENT).iter_errors(body):
        return invalid(f"Invalid request: {error.message[:200]}")
    reviewers, rules = body.get("reviewers") or [], []
    for wanted, kind in ((reviewers, "required reviewers"), (body.get("wait_timer"), "wait timer")):
        if wanted and github.is_private and github.plan != "enterprise":
            return Answer(422, {"message": BILLING.format(kind)})
    if body.get("deployment_branch_policy") and github.is_private and github.plan == "free":
        return Answer(422, {"message": BILLING.format("branch policy")})
    if body.get("prevent_self_review") and not reviewers:
        return invalid("Required reviewers must have at least one reviewer to set prevent_self_review")
    if reviewers:
        people = [{"type": one["type"], "reviewer": {"id": one["id"]}} for one in reviewers]
        own = body.get("prevent_self_review", False)
        rules.append({"id": 1, "type": "required_reviewers", "prevent_self_review": own, "reviewers": people})
    if body.get("wait_timer"):
        rules.append({"id": 2, "type": "wait_timer", "wait_timer": body["wait_timer"]})
    policy = body.get("deployment_branch_policy")
    kept = github.environments.get(name.lower(), {}).get("policies", []) if policy else []
    github.environments[name.lower()] = {
        "id": 3, "name": name, "protection_rules": rules, "deployment_branch_policy": policy, "policies": kept,
    }  # fmt: skip
    return Answer(200, {"name": name})


def _policies(github: Repository, call: Call, name: str) -> Answer:
    environment = github.environments.get(name.lower())
    if environment is None or not (environment["deployment_branch_policy"] or {}).get("custom_branch_policies"):
        return Answer(404, NOT_FOUND)
    if call.method == "GET":
        return Answer(200, items=list(map(shown, environment["policies"])), wrapped_as="branch_policies")
    environment["policies"].append({"id": github.next_id(), "type": "branch"} | call.body)
    return Answer(200, shown(environment["policies"][-1]))


def _policy(github: Repository, call: Call, name: str, number: str) -> Answer:
    policies = github.environments[name.lower()]["policies"]
    policies[:] = [one for one in policies if one["id"] != int(number)]
    return Answer(204)


def _variables(github: Repository, call: Call) -> Answer:
    if not github.may("variables", "read"):
        return Answer(403, {"message": "Resource not accessible by integration"})
    if call.method == "GET":
        call.query["per_page"] = str(min(30, int(call.query.get("per_page", 10))))  # documented: "max 30"
        items = [{"name": name, "value": value} for name, value in sorted(github.variables.items())]
        return Answer(200, items=items, wrapped_as="variables")
    if call.body["name"] in github.variables:
        return Answer(409, {"message": "Already exists - Variable already exists"})
    github.variables[call.body["name"]] = str(call.body["value"])
    return Answer(201, {})


def _variable(github: Repository, call: Call, name: str) -> Answer:
    if name not in github.variables:
        return Answer(404, NOT_FOUND)
    if call.method == "DELETE":
        del github.variables[name]
    else:
        github.variables[name] = call.body["value"]
    return Answer(204)


def _code_owners(github: Repository, call: Call) -> Answer:
    return Answer(200, {"errors": github.code_owner_errors})


ROUTES: list[tuple[str, Any]] = [
    (r"rulesets", _rulesets),
    (r"rulesets/([0-9]+)", _ruleset),
    (r"labels", _labels),
    (r"labels/([^/]+)", _label),
    (r"environments", _environments),
    (r"environments/([^/]+)", _environment),
    (r"environments/([^/]+)/deployment-branch-policies", _policies),
    (r"environments/([^/]+)/deployment-branch-policies/([0-9]+)", _policy),
    (r"actions/variables", _variables),
    (r"actions/variables/([^/]+)", _variable),
    (r"codeowners/errors", _code_owners),
]
