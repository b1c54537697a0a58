"""What a repository's settings are now, read through GitHub's REST API."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.api import Api, segment
from pipelines.core.github.replies import NotFound, Refused
from pipelines.review.settings import PLACEHOLDER, Environment, Settings

MOST_REVIEWERS = 6


class Live(NamedTuple):
    """The settings as they are.

    Attributes:
        rulesets: By name; None where the plan has none.
        labels: By name in small letters.
        environments: By name in small letters, each with its `policies`: [{id, name, type}].
        variables: Value by name.
        code_owner_errors: Lines of CODEOWNERS that GitHub cannot follow.
    """

    rulesets: dict[str, dict[str, Any]] | None
    labels: dict[str, dict[str, Any]]
    environments: dict[str, dict[str, Any]]
    variables: dict[str, str]
    code_owner_errors: tuple[str, ...]


def observe(api: Api) -> Live:
    """Read every setting that the files speak of.

    Raises:
        Refused: The token may not read one of them.
        ServiceError: GitHub does not answer.
    """
    return Live(
        rulesets=_rulesets(api),
        labels={one["name"].casefold(): one for one in api.pages("/repos/{repository}/labels")},
        environments=_environments(api),
        variables={one["name"]: one["value"] for one in api.pages("/repos/{repository}/actions/variables")},
        code_owner_errors=_code_owner_errors(api),
    )


def reviewer_ids(api: Api, settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return for each environment its reviewers as GitHub numbers them: [{type: User | Team, id}].

    Raises:
        ConfigError: GitHub knows no such user or team, or there are too many.
    """
    known: dict[str, dict[str, Any]] = {}
    found = {}
    for environment in settings.environments:
        names, where = _reviewers(environment, settings)
        names = tuple(name for name in names if not name.startswith(PLACEHOLDER))
        if len(names) > MOST_REVIEWERS:
            raise ConfigError(
                f"{where}: {len(names)} people and teams own `*`, an environment takes {MOST_REVIEWERS} at most; "
                f"list its reviewers in .github/environments.yml"
            )
        for name in names:
            if name not in known:
                known[name] = _identity(api, name, where)
        found[environment.name] = [known[name] for name in names]
    return found


def _reviewers(environment: Environment, settings: Settings) -> tuple[tuple[str, ...], str]:
    if environment.reviewers == "CODEOWNERS":
        return settings.owners, ".github/CODEOWNERS"
    return environment.reviewers, f".github/environments.yml: {environment.name}"


def _identity(api: Api, name: str, where: str) -> dict[str, Any]:
    organisation, _, team = name[1:].partition("/")
    path = f"/orgs/{segment(organisation)}/teams/{segment(team)}" if team else f"/users/{segment(organisation)}"
    try:
        return {"type": "Team" if team else "User", "id": api.get(path)["id"]}
    except NotFound:
        what = "team" if team else "user"
        raise ConfigError(
            f"{where}: {one_line(name, 140)} is no {what} that GitHub shows this token; correct the name, or let the "
            "token read the organisation's members"
        ) from None


def _rulesets(api: Api) -> dict[str, dict[str, Any]] | None:
    try:
        listed = list(api.pages("/repos/{repository}/rulesets", includes_parents="false"))
    except Refused as error:
        if error.status == 403 and "upgrade" in str(error).lower():
            return None
        raise
    # The list shows names only; rules and bypasses stand with each ruleset.
    full = [api.get(f"/repos/{{repository}}/rulesets/{int(one['id'])}", includes_parents="false") for one in listed]
    return {one["name"]: one for one in full}


def _environments(api: Api) -> dict[str, dict[str, Any]]:
    found = {}
    for one in api.pages("/repos/{repository}/environments"):
        policy = one.get("deployment_branch_policy") or {}
        path = f"/repos/{{repository}}/environments/{segment(one['name'])}/deployment-branch-policies"
        policies = list(api.pages(path)) if policy.get("custom_branch_policies") else []
        found[one["name"].casefold()] = one | {"policies": policies}
    return found


def _code_owner_errors(api: Api) -> tuple[str, ...]:
    try:
        answer = api.get("/repos/{repository}/codeowners/errors")
    except NotFound:
        return ("the default branch has no CODEOWNERS: no code owner's review is required for anything",)
    return tuple(
        f"{one_line(str(one.get('path')), 100)}:{one.get('line')}: {one_line(str(one.get('kind')), 100)}: GitHub asks "
        "no code owner about what this line covers"
        for one in answer.get("errors", [])
    )
