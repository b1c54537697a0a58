"""Whether a person has lifted what a pull request may not pass by itself: its owners, or an environment's reviewers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.core import git
from pipelines.core.github.api import Api
from pipelines.review import approval, deployment_review
from pipelines.review.approval import Approved
from pipelines.review.pull_request import PullRequest, Run

Teams = Mapping[str, Sequence[str] | None]


def ask(
    api: Api, found: PullRequest, run: Run, paths: Mapping[str, str], tip: str, root: Path, teams: Teams | None
) -> dict[str, Any]:
    """Ask GitHub who has approved exactly the head commit.

    Args:
        api: The repository.
        found: The pull request.
        run: A run of its branch.
        paths: What it changes.
        tip: Commit of main whose CODEOWNERS counts.
        root: A clone that holds it.
        teams: Members by team, or None: GitHub is asked.

    Returns:
        `approval` and `lacking`, as `context.json` holds them.
    """
    entries = git.files_of(root, tip)
    place = next((entries[name] for name in approval.PLACES if name in entries), None)
    text = None if place is None else git.text_of(root, place.oid, most_bytes=3 << 20).decode("utf-8", "replace")
    asked = _combined(approval.ask(api, found, sorted(paths), text, teams), api, found, run)
    return {"approval": asked.approval.model_dump() if asked.approval else None, "lacking": asked.lacking}


def _combined(owners: Approved, api: Api, found: PullRequest, run: Run) -> Approved:
    """Let an environment's reviewers lift what no owner has said anything against."""
    if owners.approval or owners.is_refused:
        return owners
    reviewed = deployment_review.ask(api, found, run)
    if reviewed.against:
        where = f"environment {deployment_review.ENVIRONMENT}"
        return Approved(None, f"{reviewed.against}, a reviewer of {where}, has rejected it; {owners.lacking}", True)
    return Approved(reviewed.approval) if reviewed.approval else owners
