"""The model of `.github/rulesets/*.json`, which is GitHub's own format, with the release bot's App filled in later."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.core.declared import Declared, Misplaced

STATUS = "gatehouse/verdict"
APP = 0  # stands in the files for the release bot's App, whose id differs from repository to repository


class BypassActor(Declared):
    """Who the rules of a ruleset do not hold."""

    actor_id: int | None = Field(description="0 with Integration: the release bot's App.")
    actor_type: Literal["Integration", "OrganizationAdmin", "RepositoryRole", "Team", "DeployKey", "User"]
    bypass_mode: Literal["always", "pull_request", "exempt"]


class RefName(Declared):
    """Patterns as Ruby's File.fnmatch reads them: `+` is a plain character and `*` does not match `/`."""

    include: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...]


class Conditions(Declared):
    """Which branches or tags a ruleset is about."""

    ref_name: RefName


class Plain(Declared):
    """A rule without parameters."""

    type: Literal[
        "creation", "deletion", "update", "non_fast_forward", "required_linear_history", "required_signatures"
    ]


class Reviews(Declared):
    """What a pull request needs before it is merged."""

    allowed_merge_methods: tuple[Literal["merge", "squash", "rebase"], ...] = Field(min_length=1)
    dismiss_stale_reviews_on_push: bool
    require_code_owner_review: bool
    require_last_push_approval: bool
    required_approving_review_count: Annotated[int, Field(ge=0, le=10)]
    required_review_thread_resolution: bool


class PullRequest(Declared):
    """Commits arrive by pull request only."""

    type: Literal["pull_request"]
    parameters: Reviews


class StatusCheck(Declared):
    """A status that must be green, and the App that alone can make it so."""

    context: Annotated[str, Field(min_length=1)]
    integration_id: int | None = Field(default=None, description="0: the release bot's App. Absent: anybody's counts.")


class StatusChecks(Declared):
    """Which statuses are required."""

    do_not_enforce_on_create: bool
    required_status_checks: tuple[StatusCheck, ...] = Field(min_length=1)
    strict_required_status_checks_policy: bool = Field(description="The branch must be up to date with its base.")


class RequiredStatus(Declared):
    """Statuses that must be green."""

    type: Literal["required_status_checks"]
    parameters: StatusChecks


Rule = Annotated[Plain | PullRequest | RequiredStatus, Field(discriminator="type")]


class Ruleset(Declared):
    """One file of `.github/rulesets/`, as GitHub's REST API takes it."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    target: Literal["branch", "tag"]
    enforcement: Literal["active", "evaluate", "disabled"]
    bypass_actors: tuple[BypassActor, ...]
    conditions: Conditions
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rules_differ(self) -> Ruleset:
        types = [rule.type for rule in self.rules]
        for at, kind in enumerate(types):
            if kind in types[:at]:
                raise Misplaced(f"'{kind}' is there twice; keep one", "rules", at, "type")
        return self


def with_app(ruleset: Ruleset, app_id: int | None) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the body for GitHub's API with the App filled in, and what is not protected for want of one.

    Args:
        ruleset: As its file says.
        app_id: The release bot's App. Without one, a rule that nobody but the bot may bypass would lock the workflows
            out as well: it is left out, and None returned for a ruleset that has no other.
    """
    body = json_of(ruleset)
    actors: list[dict[str, Any]] = body["bypass_actors"]
    kept = [one for one in actors if app_id is not None or not _is_app(one)]
    body["bypass_actors"] = [one | {"actor_id": app_id} if _is_app(one) else one for one in kept]
    notes = [note for rule in body["rules"] if (note := _pin(rule, app_id))]
    if len(kept) == len(actors):
        return body, notes
    refs = ", ".join(ruleset.conditions.ref_name.include)
    if kept or any(isinstance(rule, PullRequest) for rule in ruleset.rules):
        return body, [*notes, f"the bot cannot write to {refs} by itself: its commits need a person there"]
    body["rules"] = [rule for rule in body["rules"] if rule["type"] not in ("creation", "update")]
    notes.append(f"{refs} can be written by everybody with write access, not by the bot alone")
    return body if body["rules"] else None, notes


def pinned_app(body: dict[str, Any]) -> int | None:
    """Return the App that a ruleset of the repository pins the required status to."""
    for rule in body.get("rules") or []:
        for check in (rule.get("parameters") or {}).get("required_status_checks") or []:
            if check.get("context") == STATUS and isinstance(check.get("integration_id"), int):
                return int(check["integration_id"])
    return None


def json_of(ruleset: Ruleset) -> dict[str, Any]:
    """Return the ruleset as its file has it."""
    body: dict[str, Any] = ruleset.model_dump(mode="json", exclude_unset=True)
    return body


def _is_app(actor: dict[str, Any]) -> bool:
    return bool(actor["actor_type"] == "Integration" and actor["actor_id"] == APP)


def _pin(rule: dict[str, Any], app_id: int | None) -> str | None:
    """Fill the App into a rule's required statuses; return what is open where there is none."""
    for check in rule.get("parameters", {}).get("required_status_checks", []):
        if check.get("integration_id") != APP:
            continue
        if app_id is not None:
            check["integration_id"] = app_id
            continue
        del check["integration_id"]
        return (
            f"the required status {check['context']} counts whoever sets it: everybody with write access can turn it "
            "green, and so can a job of that name in any pull request"
        )
    return None


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Return a ruleset, declared or answered, so that equal rulesets are equal whatever their order."""
    refs = (body.get("conditions") or {}).get("ref_name") or {}
    rules = {rule["type"]: dict(rule.get("parameters") or {}) for rule in body.get("rules") or []}
    for parameters in rules.values():
        if "required_status_checks" in parameters:
            checks = parameters["required_status_checks"]
            parameters["required_status_checks"] = sorted(
                f"{one['context']} by App {one['integration_id']}" if one.get("integration_id") else one["context"]
                for one in checks
            )
        if "allowed_merge_methods" in parameters:
            parameters["allowed_merge_methods"] = sorted(parameters["allowed_merge_methods"])
    return {
        "target": body.get("target"),
        "enforcement": body.get("enforcement"),
        "bypass_actors": sorted(map(_actor, body.get("bypass_actors", []))),
        "include": sorted(refs.get("include", [])),
        "exclude": sorted(refs.get("exclude", [])),
        "rules": sorted(rules),
        "parameters": rules,
    }


def _actor(actor: dict[str, Any]) -> str:
    has_id = actor["actor_type"] not in ("OrganizationAdmin", "DeployKey")  # GitHub ignores theirs
    number = f" {actor.get('actor_id')}" if has_id else ""
    return f"{actor['actor_type']}{number} {actor.get('bypass_mode', 'always')}"
