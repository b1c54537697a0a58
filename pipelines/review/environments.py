"""Environments as GitHub's REST API takes and shows them."""

from __future__ import annotations

from typing import Any

from pipelines.core.github.api import segment
from pipelines.review.differences import compare, missing
from pipelines.review.settings import FILES, Environment
from pipelines.review.steps import Call, Step

WITHOUT_REVIEWERS = (
    "environment {name}: this plan has no protection rules for environments of private repositories, so it has neither "
    "required reviewers nor a waiting time. What stands in for them: a CODEOWNER's approving review of exactly the "
    "head commit, and the rulesets. To declare it so: `reviewers: []` in .github/environments.yml"
)

WITHOUT_ANY = (
    "environment {name}: this plan has no environments with rules for private repositories, so every branch's own "
    "workflows, a pull request's too, can name it and read its secrets: give it none that may write"
)


def body(environment: Environment, reviewers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what `PUT .../environments/NAME` takes.

    Args:
        environment: As declared.
        reviewers: Its reviewers as GitHub numbers them.
    """
    has_patterns = bool(environment.branches or environment.tags)
    policy = {"protected_branches": False, "custom_branch_policies": True} if has_patterns else None
    return {
        "wait_timer": environment.wait_minutes,
        "prevent_self_review": environment.prevent_self_review,
        "reviewers": reviewers or None,
        "deployment_branch_policy": policy,
    }


def step(environment: Environment, wanted: dict[str, Any], have: dict[str, Any] | None) -> Step | None:
    """Return what must happen to an environment, None if nothing."""
    name, where = environment.name, str(FILES["environments"])
    path = f"/repos/{{repository}}/environments/{segment(have['name'] if have else name)}"
    patterns = _patterns(environment, have, path)
    if have is None:
        step = missing("environment", name, where, Call("PUT", path, wanted), *patterns)
        found = []
    else:
        found = compare(_of_body(wanted, environment), _of_answer(have))
        if not found:
            return None
        step = Step("environment", name, where, "; ".join(found), (Call("PUT", path, wanted), *patterns))
    if not (wanted["reviewers"] or wanted["wait_timer"]):
        return step
    poorer = wanted | {"reviewers": None, "prevent_self_review": False, "wait_timer": 0}
    is_there = have is not None and not compare(_of_body(poorer, environment), _of_answer(have))
    otherwise = () if is_there else (Call("PUT", path, poorer), *patterns)
    return step._replace(otherwise=otherwise, otherwise_note=WITHOUT_REVIEWERS.format(name=name))


def _patterns(environment: Environment, have: dict[str, Any] | None, path: str) -> tuple[Call, ...]:
    """Return the calls that add and remove patterns; after the PUT, which switches patterns on."""
    wanted = [("branch", name) for name in environment.branches] + [("tag", name) for name in environment.tags]
    there = {_pattern(one): int(one["id"]) for one in have["policies"]} if have else {}
    path = f"{path}/deployment-branch-policies"
    added = [Call("POST", path, {"name": name, "type": kind}) for kind, name in wanted if (kind, name) not in there]
    # Without any pattern the PUT has taken them all away.
    removed = [Call("DELETE", f"{path}/{at}", None) for one, at in there.items() if wanted and one not in wanted]
    return (*added, *removed)


def _pattern(policy: dict[str, Any]) -> tuple[str, str]:
    return str(policy.get("type") or "branch"), str(policy["name"])


def _of_body(wanted: dict[str, Any], environment: Environment) -> dict[str, Any]:
    return {
        "reviewers": sorted(f"{one['type']} {one['id']}" for one in wanted["reviewers"] or []),
        "prevent_self_review": wanted["prevent_self_review"],
        "wait_minutes": wanted["wait_timer"],
        "branches": sorted(environment.branches) if wanted["deployment_branch_policy"] else "all",
        "tags": sorted(environment.tags) if wanted["deployment_branch_policy"] else "all",
    }


def _of_answer(have: dict[str, Any]) -> dict[str, Any]:
    rules = {rule["type"]: rule for rule in have.get("protection_rules") or []}
    reviewed = rules.get("required_reviewers", {})
    policy = have.get("deployment_branch_policy")
    patterns = [_pattern(one) for one in have["policies"]]
    is_custom = bool(policy and policy["custom_branch_policies"])
    other = "protected branches" if policy else "all"
    return {
        "reviewers": sorted(f"{one['type']} {one['reviewer']['id']}" for one in reviewed.get("reviewers", [])),
        "prevent_self_review": bool(reviewed.get("prevent_self_review")),
        "wait_minutes": rules.get("wait_timer", {}).get("wait_timer", 0),
        "branches": sorted(name for kind, name in patterns if kind == "branch") if is_custom else other,
        "tags": sorted(name for kind, name in patterns if kind == "tag") if is_custom else other,
    }
