"""Hold the repository's settings against the files, and make them what the files say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.github.api import Api, segment
from pipelines.core.github.replies import NotFound, Refused
from pipelines.review import environments, rulesets
from pipelines.review.differences import compare, missing
from pipelines.review.repository import Live, observe, reviewer_ids
from pipelines.review.settings import APP_VARIABLE, CODEOWNERS, FILES, PLACEHOLDER, Label, Settings
from pipelines.review.steps import Call, Step

# What a fine-grained token or an App needs in order to write each kind.
PERMISSION = {"ruleset": "Administration", "environment": "Administration", "label": "Issues", "variable": "Variables"}
UNSEEN = "who may bypass it is not shown to this token; one with Administration: write sees it"


class Plan(NamedTuple):
    """What differs, and what would not be protected even if nothing did."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: nothing differs; 3: something does; 4: what was seen agrees, and not everything was seen."""
        return 3 if any(not step.is_unknown for step in self.steps) else 4 if self.steps else 0


def look(api: Api, settings: Settings, app: str | None, *, is_final: bool) -> Plan:
    """Read the repository and return what differs.

    Args:
        api: Whose token may read the settings.
        settings: What the files say.
        app: The release bot's App id, `none`, or None to take what the files or the repository say.
        is_final: The plan is going to be carried out.

    Raises:
        ConfigError: The App's id is no number, a reviewer is unknown, or nobody is named as code owner yet.
        ServiceError: GitHub refuses or does not answer.
    """
    if is_final and (nobody := _nobody(settings)):
        raise ConfigError(nobody)
    live = observe(api)
    return plan(settings, live, choose_app(app, settings, live), reviewer_ids(api, settings))


def choose_app(argument: str | None, settings: Settings, live: Live) -> int | None:
    """Return the release bot's App id: the argument's, the file's, or the one that the repository already trusts.

    Args:
        argument: A number, `none` to do without an App, or None.
        settings: Their `variables.yml` may name the App.
        live: A status that is pinned already is never unpinned by leaving the argument out.

    Raises:
        ConfigError: The argument is no App id.
    """
    if argument == "none":
        return None
    text = argument or settings.app_id
    if text:
        if not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise ConfigError(
                f"--app-id: {one_line(text, 60)!r} is no App id; it is the number on the App's settings page "
                "(not the client id), or `none`"
            )
        return int(text)
    pinned = [rulesets.pinned_app(body) for body in (live.rulesets or {}).values()]
    return next((one for one in pinned if one is not None), None)


def plan(settings: Settings, live: Live, app_id: int | None, reviewers: dict[str, list[dict[str, Any]]]) -> Plan:
    """Return every difference with the calls that close it. Reads nothing and changes nothing."""
    steps: list[Step] = []
    notes: list[str] = []
    if nobody := _nobody(settings):
        notes.append(f"{nobody}; until then no code owner's review is required")
    notes.extend(live.code_owner_errors)
    if live.rulesets is None:
        steps.append(Step("ruleset", "(every one)", ".github/rulesets", "is missing, this plan has none", ()))
        notes.append(
            "this plan has no rulesets for private repositories: nothing holds main, the records or the release tags; "
            "make the repository public or upgrade"
        )
    else:
        steps += _rulesets(settings, live.rulesets, app_id, notes)
    steps += [step for label in settings.labels if (step := _label(label, live))]
    for environment in settings.environments:
        body = environments.body(environment, reviewers[environment.name])
        step = environments.step(environment, body, live.environments.get(environment.name.casefold()))
        steps += [step] if step else []
    steps += _variables(settings, live.variables, app_id)
    return Plan(tuple(steps), tuple(notes))


def summary(plan: Plan, repository: str) -> list[str]:
    """Return what people read: a line for each difference."""
    if not plan.steps:
        return [f"ok: {repository} is what the files say"]
    n = len(plan.steps)
    return [*map(str, plan.steps), f"{repository}: {n} setting{'s differ' if n > 1 else ' differs'} from the files"]


def apply(api: Api, steps: tuple[Step, ...], done: Callable[[Step], None]) -> list[str]:
    """Carry the steps out, in order.

    Args:
        api: Whose token may write them.
        steps: From `plan`.
        done: Told of each step that was carried out.

    Returns:
        What this repository's plan does not have, and what stands in for it.

    Raises:
        ServiceError: GitHub refuses one; what was done before it stays, and the next run goes on from there.
    """
    notes = []
    for step in steps:
        if not step.calls:
            continue
        try:
            lost = _carry_out(api, step)
        except (Refused, NotFound) as error:
            raise _lacking(step, error) from None
        notes += lost
        if lost and not step.otherwise:
            continue
        done(step)
    return notes


def _carry_out(api: Api, step: Step) -> list[str]:
    """Send a step's calls, or what is left of them on this repository's plan; return what it does not have."""
    try:
        _send(api, step.calls)
        return []
    except Refused as error:
        if not _is_plan(error):
            raise
    if step.otherwise is None:
        return [environments.WITHOUT_ANY.format(name=step.name)]
    try:
        _send(api, step.otherwise)
    except Refused as error:
        if not _is_plan(error):
            raise
        return [environments.WITHOUT_ANY.format(name=step.name)]
    return [step.otherwise_note]


def _is_plan(error: Refused) -> bool:
    return error.status == 422 and "billing plan" in str(error).lower()


def _send(api: Api, calls: tuple[Call, ...]) -> None:
    writers: dict[str, Callable[[str, Any], Any]] = {
        "POST": api.post, "PUT": api.put, "PATCH": api.patch, "DELETE": api.delete,
    }  # fmt: skip
    for call in calls:
        writers[call.method](call.path, call.body)


def _lacking(step: Step, error: ServiceError) -> ServiceError:
    is_permission = isinstance(error, NotFound) or (isinstance(error, Refused) and error.status == 403)
    needed = f"; the token needs {PERMISSION[step.kind]}: write" if is_permission else ""
    return ServiceError(f"{step.kind} {step.name}: {error}{needed}")


def _rulesets(settings: Settings, live: dict[str, dict[str, Any]], app_id: int | None, notes: list[str]) -> list[Step]:
    steps = []
    for path, ruleset in settings.rulesets:
        body, open_points = rulesets.with_app(ruleset, app_id)
        notes.extend(f"without the release bot's App (--app-id), {point}" for point in open_points)
        where, have = f".github/rulesets/{path.name}", live.get(ruleset.name)
        if body is None:
            continue
        if have is None:
            call = Call("POST", "/repos/{repository}/rulesets", body)
            steps.append(missing("ruleset", ruleset.name, where, call))
            continue
        found = compare(rulesets.comparable(body), rulesets.comparable(have))
        if "bypass_actors" not in have:
            found = [one for one in found if not one.startswith("bypass_actors")]
            steps.append(Step("ruleset", ruleset.name, where, UNSEEN, (), is_unknown=True))
        if found:
            call = Call("PUT", f"/repos/{{repository}}/rulesets/{int(have['id'])}", body)
            steps.append(Step("ruleset", ruleset.name, where, "; ".join(found), (call,)))
    declared = {ruleset.name for _, ruleset in settings.rulesets}
    return steps + [
        Step("ruleset", one_line(name, 100), ".github/rulesets", "is in no file and is left alone", ())
        for name in live
        if name not in declared
    ]


def _label(label: Label, live: Live) -> Step | None:
    body = label.model_dump() | {"description": label.description}
    have = live.labels.get(label.name.casefold())
    where = str(FILES["labels"])
    if have is None:
        return missing("label", label.name, where, Call("POST", "/repos/{repository}/labels", body))
    shown = {"name": have["name"], "color": have["color"].lower(), "description": have.get("description") or ""}
    found = compare(body, shown)
    changed = {"new_name": body.pop("name")} | body
    call = Call("PATCH", f"/repos/{{repository}}/labels/{segment(have['name'])}", changed)
    return Step("label", label.name, where, "; ".join(found), (call,)) if found else None


def _variables(settings: Settings, live: dict[str, str], app_id: int | None) -> list[Step]:
    path, where, steps = "/repos/{repository}/actions/variables", str(FILES["variables"]), []
    for name, variable in settings.variables.items():
        value = variable.value
        if name == APP_VARIABLE:  # the workflows take the App's token only where it is set, and the status needs it
            value = None if app_id is None else str(app_id)
        body, one = {"name": name, "value": value}, f"{path}/{name}"
        if value is None:
            if name in live:
                said = f"is {_short(live[name])}, the file leaves it to the workflows' default"
                steps.append(Step("variable", name, where, said, (Call("DELETE", one, None),)))
        elif name not in live:
            steps.append(missing("variable", name, where, Call("POST", path, body)))
        elif found := compare({"value": value}, {"value": live[name]}):
            steps.append(Step("variable", name, where, "; ".join(found), (Call("PATCH", one, body),)))
    return steps + [
        Step("variable", one_line(name, 100), where, "is in no file, no workflow reads it, and it is left alone", ())
        for name in live
        if name.startswith("GATEHOUSE_") and name not in settings.variables
    ]


def _nobody(settings: Settings) -> str | None:
    if settings.owners and not any(owner.startswith(PLACEHOLDER) for owner in settings.owners):
        return None
    return f"{CODEOWNERS}: names nobody as owner of `*` yet; write the users or teams that decide in its place"


def _short(value: str) -> str:
    return one_line(repr(value), 100)
