"""Earlier pushes of a branch: what they executed could have left forged entries in the caches that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api
from pipelines.core.github.replies import NotFound, Refused
from pipelines.review.changes import is_data
from pipelines.review.pull_request import SHA, PullRequest, Run

SHOWN = 3
MOST_LISTED = 4000
MOST_HEADS = 200  # each may have to be fetched


def earlier_code(api: Api, found: PullRequest, run: Run, root: Path, tip: str) -> list[str]:
    """Say which earlier heads of a pull request's branch changed code that is no longer changed by now.

    Answers and objects that a run computes are kept for the next push. A push whose code forged them, followed by one
    without that code, would else look like a change of data alone. It makes no difference when that was: a cache that
    is read stays, and a push can fill it before there is any pull request.

    Args:
        api: The repository.
        found: The pull request.
        run: A run of its branch.
        root: A clone of main.
        tip: Main's newest commit.

    Returns:
        One sentence, or none.
    """
    listed = list(islice(chain(_pushed(api, found, run), _ran(api, run)), MOST_LISTED + 1))
    known = [head for head in dict.fromkeys(listed) if SHA.fullmatch(head) and head.strip("0") and head != found.head]
    if len(listed) > MOST_LISTED or len(known) > MOST_HEADS:
        return ["its branch has had more pushes than are looked at here; one of a new name has none"]
    heads = [head for head in known if _has_code(root, tip, head)]
    if not heads:
        return []
    more = f" and {len(heads) - SHOWN} more" if len(heads) > SHOWN else ""
    shown = ", ".join(head[:12] for head in heads[:SHOWN])
    return [f"an earlier push ({shown}{more}) changed code, which can have forged what later ones took from its caches"]


def _pushed(api: Api, found: PullRequest, run: Run) -> Iterator[str]:
    """Yield what the branch has pointed at, also before the pull request: nobody can delete a push, as they can a run.

    A GitHub without that list, and one that does not show it to us, yields nothing; nor is a fork's branch in it.
    """
    if found.is_fork:
        return
    try:
        for value in api.pages("/repos/{repository}/activity", ref=f"refs/heads/{run.branch}"):
            yield from (str(value.get("after")), str(value.get("before")))
    except NotFound:
        return
    except Refused as error:
        if error.status != 403:
            raise


def _ran(api: Api, run: Run) -> Iterator[str]:
    """Yield the heads of the branch that any workflow ran on, whatever started it: all of them can write its caches."""
    for value in api.pages("/repos/{repository}/actions/runs", branch=run.branch):
        if (value.get("head_repository") or {}).get("full_name") == run.repository:
            yield str(value.get("head_sha"))


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
