"""Bring a pull request's commits into the object store, and ask Git what they change; nothing is checked out."""

from __future__ import annotations

from pathlib import Path

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.review.pull_request import PullRequest


def fetch(root: Path, found: PullRequest, main: str) -> str:
    """Bring main's newest commit and the pull request's head into the object store; return the former.

    Args:
        root: The clone.
        found: The pull request.
        main: Name of the branch that is judged for.

    Raises:
        ConfigError: The head is gone, or holds a malformed object.
        GitFailed: The remote cannot be reached.
    """
    access = git.credentials(root, "origin")
    tracked = f"refs/remotes/origin/{main}"
    words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--end-of-options", "origin")
    git.git(root, *words, f"+refs/heads/{main}:{tracked}", environment=access)
    try:
        git.fetch_untrusted(root, f"refs/pull/{found.number}/head")
    except git.GitFailed:  # a remote without GitHub's own references
        git.fetch_untrusted(root, found.head)
    if git.commit_of(root, found.head) is None:
        git.fetch_untrusted(root, found.head)
    tip = git.commit_of(root, tracked)
    if tip is None or git.commit_of(root, found.head) is None:
        raise ConfigError("the pull request's head could not be fetched; push again")
    return tip


def common(root: Path, one: str, other: str) -> str | None:
    """Return the commit where two left one another, or None where they share no history."""
    try:
        return git.git(root, "merge-base", "--end-of-options", one, other).decode().strip() or None
    except git.GitFailed:
        return None


def changed_paths(root: Path, before: str, after: str) -> dict[str, str]:
    """Return every path that differs, with its mode afterwards, empty where it is gone."""
    found = git.changed_between(root, before, after)
    return {path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"): found[path] for path in found}
