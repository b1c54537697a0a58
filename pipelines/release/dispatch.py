"""Have main's own release workflow take up a tag: what a tag's commit runs itself is given no key of an environment."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.api import Api
from pipelines.core.github.replies import NotFound
from pipelines.release.standing import Standing
from pipelines.release.state import BEFORE_TRAFFIC
from pipelines.release.version import parse_tag

WORKFLOW = "release.yml"
LISTED = 100
MOST_AGAIN = 2


class Dispatched(NamedTuple):
    """What became of it: whether a run was started, and one line for people."""

    is_new: bool
    said: str


def dispatch(api: Api, tag: str) -> Dispatched:
    """Start the release workflow of the default branch for a tag.

    Args:
        api: Whose token may start workflows.
        tag: The tag; the run that is started verifies it.

    Raises:
        ConfigError: It is no version, or the default branch has no such workflow.
        ServiceError: GitHub refuses or does not answer.
    """
    parse_tag(tag)
    branch = str(api.get("/repos/{repository}")["default_branch"])
    body = {"ref": branch, "inputs": {"tag": tag, "dry-run": "false"}}
    try:
        api.post(f"/repos/{{repository}}/actions/workflows/{WORKFLOW}/dispatches", body)
    except NotFound:
        raise ConfigError(
            f"{branch} has no .github/workflows/{WORKFLOW}, or the token lacks Actions: write; merge it, or grant it"
        ) from None
    return Dispatched(True, f"{tag}: {branch}'s {WORKFLOW} releases it, in a run of its own")


def go_on(api: Api, found: Standing) -> Dispatched:
    """Start the release workflow again where a release that has no traffic yet is carried by no run any more.

    A reviewer's no stays one, and runs that fail again and again are left to a person.

    Args:
        api: Whose token may start workflows and list runs.
        found: How the release that was moved last stands.

    Raises:
        ServiceError: GitHub refuses or does not answer.
    """
    state, tag = found.state, found.history.tag
    if state.candidate is None or state.step not in BEFORE_TRAFFIC:
        return Dispatched(False, "nothing waits for a release run")
    if state.pause:
        return Dispatched(False, f"{tag}: held by {state.pause.by}; nothing is started")
    runs = _runs(api, tag)
    if busy := [one for one in runs if one.get("status") != "completed"]:
        return Dispatched(False, f"{tag}: waits at step {state.step}, run {int(busy[0]['id'])} is at it")
    by_hand = f"start {WORKFLOW} by hand, or roll it back"
    begun = next((event.at for event in reversed(found.history.events) if event.action == "begin"), "")
    again = [one for one in runs if str(one.get("created_at") or "") > begun]
    for one in runs[: len(again) + 1]:  # and the run that began it
        if who := _rejected_by(api, int(one["id"])):
            return Dispatched(False, f"{tag}: {one_line(who, 60)} has rejected it at step {state.step}; {by_hand}")
    if len(again) >= MOST_AGAIN:
        return Dispatched(False, f"{tag}: {len(again)} further runs ended at step {state.step}; read them, {by_hand}")
    return dispatch(api, tag)


def _runs(api: Api, tag: str) -> list[dict[str, Any]]:
    """Return the runs that were started for a tag, the newest first; release.yml names them so, rehearsals not."""
    path = f"/repos/{{repository}}/actions/workflows/{WORKFLOW}/runs"
    found = api.get(path, event="workflow_dispatch", per_page=LISTED)
    runs = found.get("workflow_runs") if isinstance(found, dict) else None
    return [one for one in runs or [] if one.get("display_title") == f"release {tag}"]


def _rejected_by(api: Api, run: int) -> str:
    """Return who said no to a run that asked, or nothing."""
    found = api.get(f"/repos/{{repository}}/actions/runs/{run}/approvals")
    return next((str(one["user"]["login"]) for one in found or [] if one.get("state") == "rejected"), "")
