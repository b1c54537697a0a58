"""Payloads of the events that start workflows, with the keys that GitHub documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.act.project import Pull

BRANCH = "main"


def repository(name: str, *, fork: bool = False) -> dict[str, Any]:
    owner, _, short = name.partition("/")
    return {
        "id": sum(name.encode()), "name": short, "full_name": name, "owner": {"login": owner, "type": "Organization"},
        "private": False, "fork": fork, "default_branch": BRANCH, "html_url": f"https://github.com/{name}",
        "clone_url": f"https://github.com/{name}.git", "url": f"https://api.github.com/repos/{name}",
    }  # fmt: skip


def push(name: str, commit: str) -> dict[str, Any]:
    """Return what GitHub sends for a push to main."""
    return {
        "ref": f"refs/heads/{BRANCH}", "before": "0" * 40, "after": commit, "created": False, "deleted": False,
        "forced": False, "repository": repository(name), "sender": {"login": "olivia", "type": "User"},
        "head_commit": {"id": commit, "message": "A change"},
    }  # fmt: skip


def dispatch(pull: Pull) -> dict[str, Any]:
    """Return what GitHub sends for a workflow that somebody starts by hand on the pull request's branch."""
    here = pull.project.github.repository
    return {
        "ref": f"refs/heads/{pull.branch}", "workflow": ".github/workflows/approve.yml", "inputs": None,
        "repository": repository(here), "sender": {"login": pull.author, "type": "User"},
    }  # fmt: skip


def pull_request(pull: Pull, action: str, sender: str = "") -> dict[str, Any]:
    """Return what GitHub sends for a pull request or a review of it; act needs the number on top."""
    known = pull.project.github.pulls[pull.number]
    repositories = {"head": repository(pull.fork or pull.project.github.repository, fork=bool(pull.fork)),
                    "base": repository(pull.project.github.repository)}  # fmt: skip
    shown = {**known, **{side: {**known[side], "repo": repositories[side]} for side in repositories}}
    return {
        "action": action, "number": pull.number, "pull_request": shown, "repository": repositories["base"],
        "sender": {"login": sender or pull.author, "type": "User"},
    }  # fmt: skip


def workflow_run(
    pull: Pull,
    action: str,
    conclusion: str | None,
    *,
    number: int,
    event: str = "pull_request",
    workflow: str = "pull-request",
    head: str = "",
) -> dict[str, Any]:
    """Return what GitHub sends when a run of the pull request was requested or has completed.

    For a pull request from a fork, GitHub leaves the list of pull requests empty.
    """
    here = pull.project.github.repository
    sha = head or pull.head
    side = {"id": 1, "url": f"https://api.github.com/repos/{here}", "name": here.partition("/")[2]}
    pulls = [
        {"id": pull.number, "number": pull.number, "url": f"https://api.github.com/repos/{here}/pulls/{pull.number}",
         "head": {"ref": pull.branch, "sha": sha, "repo": side},
         "base": {"ref": BRANCH, "sha": pull.project.main, "repo": side}}
    ]  # fmt: skip
    person = {"login": pull.author, "type": "User", "id": 7}
    run = {
        "id": number, "name": workflow, "path": f".github/workflows/{workflow}.yml", "head_branch": pull.branch,
        "head_sha": sha, "run_number": number - 999, "run_attempt": 1, "event": event, "display_title": pull.title,
        "status": "completed" if conclusion else "queued", "conclusion": conclusion, "workflow_id": 5,
        "html_url": f"https://github.com/{here}/actions/runs/{number}", "pull_requests": [] if pull.fork else pulls,
        "actor": person, "triggering_actor": person, "created_at": "2026-11-02T08:00:00Z",
        "updated_at": "2026-11-02T08:10:00Z", "run_started_at": "2026-11-02T08:00:00Z",
        "artifacts_url": f"https://api.github.com/repos/{here}/actions/runs/{number}/artifacts",
        "head_commit": {"id": sha, "message": pull.title}, "repository": repository(here),
        "head_repository": repository(pull.fork or here, fork=bool(pull.fork)),
    }  # fmt: skip
    return {
        "action": action, "workflow_run": run, "repository": repository(here), "sender": person,
        "workflow": {"id": 5, "name": workflow, "path": f".github/workflows/{workflow}.yml", "state": "active"},
    }  # fmt: skip
