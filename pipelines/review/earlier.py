"""Earlier pushes of a pull request: what they executed could have left forged entries in the caches that it reads."""

from __future__ import annotations

from pathlib import Path

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api
from pipelines.review.changes import is_data
from pipelines.review.pull_request import SHA, PullRequest, Run

SHOWN = 3


def earlier_code(api: Api, found: PullRequest, run: Run, root: Path, tip: str) -> list[str]:
    """Say which earlier heads of a pull request changed code that is no longer changed by now.

    Answers and objects that a run computes are kept for the next push. A push whose code forged them, followed by one
    without that code, would else look like a change of data alone.

    Args:
        api: The repository.
        found: The pull request.
        run: A run of its branch.
        root: A clone of main.
        tip: Main's newest commit.

    Returns:
        One sentence, or none.
    """
    heads = [head for head in _heads(api, found, run) if _has_code(root, tip, head)]
    if not heads:
        return []
    more = f" and {len(heads) - SHOWN} more" if len(heads) > SHOWN else ""
    shown = ", ".join(head[:12] for head in heads[:SHOWN])
    return [f"an earlier push ({shown}{more}) changed code, which can have forged what later ones took from its caches"]


def _heads(api: Api, found: PullRequest, run: Run) -> list[str]:
    """Return the heads of the branch that workflows ran on since the pull request was opened, the newest first."""
    since = str(api.get(f"/repos/{{repository}}/pulls/{found.number}").get("created_at") or "")
    values = api.pages("/repos/{repository}/actions/runs", event="pull_request", branch=run.branch)
    heads = [
        str(value.get("head_sha"))
        for value in values
        if (value.get("head_repository") or {}).get("full_name") == run.repository
        and str(value.get("created_at") or since) >= since
    ]
    return [head for head in dict.fromkeys(heads) if SHA.fullmatch(head) and head != found.head]


def _has_code(root: Path, tip: str, head: str) -> bool:
    """Tell whether a head changes code against main; one that nobody can look at counts as if it did."""
    try:
        if git.commit_of(root, head) is None:
            git.fetch_untrusted(root, head)
        start = git.git(root, "merge-base", "--end-of-options", tip, head).decode().strip()
        changed = git.changed_between(root, start, head)
    except (git.GitFailed, ConfigError):
        return True
    return any(not is_data(path, mode) for path, mode in changed.items())
