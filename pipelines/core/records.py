"""Records of decisions, kept in Git on a branch of their own: one file per input digest, written by compare-and-swap.

The branch shares no history with `main` and is never merged into it, so that a record triggers no workflow that
trains, and needs no server.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core import git
from pipelines.core.commits import OVERTAKEN, check_plain, commit_files
from pipelines.core.errors import ConfigError, ServiceError

BRANCH = "gatehouse"
ATTEMPTS = 12
DIGEST = re.compile("[0-9a-f]{64}")


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Approval(_Kept):
    """Who lifted a `manual_review`, when, and why.

    Attributes:
        user: Login; several, with commas, where several owners were needed.
        at: ISO 8601.
        why: What they wrote.
        review_url: Page of the review, or of the run that an environment's reviewer let go on.
        environment: That environment, or empty for the review of a code owner.
    """

    user: str
    at: str
    why: str = ""
    review_url: str = ""
    environment: str = ""


class Output(_Kept):
    """One file of a stage's output, as the lock's objects are handed over."""

    sha256: str
    size: int
    md5: str = ""


class Record(_Kept):
    """A decision and what main needs to take over what it was made on.

    Attributes:
        input_digest: Of the tree that was decided about.
        verdict: `pass`, `fail`, `manual_review` or `error`.
        decision: `decision.json` as it was.
        commit: The commit that was evaluated, hex.
        pull_request: Its number, or None on main.
        replaces: On main, number of the pull request that had decided about the same inputs.
        head: Head of the pull request, hex, or empty on main.
        lock: Text of `dvc.lock`, empty where nothing was evaluated.
        manifest: Every file of every output by its path.
        run_url: The workflow run that evaluated it.
        created: ISO 8601.
    """

    schema_version: Literal[1]
    input_digest: str
    verdict: Literal["pass", "fail", "manual_review", "error"]
    decision: dict[str, Any]
    commit: str
    pull_request: int | None = None
    replaces: int | None = None
    head: str = ""
    approval: Approval | None = None
    lock: str = ""
    manifest: dict[str, Output] = {}
    run_url: str = ""
    created: str = ""

    @property
    def is_trusted(self) -> bool:
        """Tell whether what it names may be used: main made it, or it is a pass, which a cap keeps the forged from."""
        return self.pull_request is None or self.verdict == "pass"

    def as_file(self) -> dict[str, bytes]:
        """Return the path and the bytes that `write` takes."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        return {path_of(self.input_digest): f"{text}\n".encode()}


def path_of(input_digest: str) -> str:
    """Return where a decision's record lies on the branch.

    Raises:
        ConfigError: It is no SHA-256, and so could be a path to somewhere else.
    """
    if not DIGEST.fullmatch(input_digest):
        raise ConfigError(f"{input_digest[:80]!r} is no input digest; 64 lower-case hex digits are needed")
    return f"decisions/{input_digest}.json"


def read(digest: str, root: Path = Path(), remote: str | None = "origin") -> Record | None:
    """Return the record of a decision, or None where nobody has decided.

    Args:
        digest: Input digest.
        root: The repository.
        remote: Where the branch lies; None, or a remote that is not configured: in this repository.

    Raises:
        ServiceError: The remote cannot be reached.
        ConfigError: The record is broken.
    """
    path = path_of(digest)
    if not git.is_repository(root):
        return None
    data = _content(root, _tip(root, _known(root, remote)), path)
    if data is None:
        return None
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"branch {BRANCH}: {path}: {key}: {first['msg'].lower()}; delete the record") from None
    if record.input_digest != digest:
        raise ConfigError(f"branch {BRANCH}: {path}: holds the record of another digest; delete it")
    return record


def write(files: Mapping[str, bytes], message: str, root: Path = Path(), *, remote: str | None = "origin") -> str:
    """Add or replace files on the branch; whoever is overtaken starts again from the new tip, and nothing is forced.

    Args:
        files: Content by path on the branch.
        message: The commit's.
        root: The repository.
        remote: As for `read`.

    Returns:
        The branch's new commit, or the old one where it holds the same already.

    Raises:
        ConfigError: A path leads out of the branch.
        ServiceError: The remote cannot be reached or refuses, or others were faster for a long time.
    """
    for path in files:
        check_plain(path)
    where = _known(root, remote)
    for attempt in range(ATTEMPTS):
        before = _tip(root, where)
        commit = commit_files(root, before, files, message)
        if commit == before or _moved(root, where, before, commit):
            return commit
        time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 6)))  # noqa: S311 - spreads writers, guards nothing
    raise ServiceError(f"branch {BRANCH}: {ATTEMPTS} writes were overtaken by others; run the job again")


def _known(root: Path, remote: str | None) -> str | None:
    return remote if remote and git.has_remote(root, remote) else None


def _tip(root: Path, remote: str | None) -> str | None:
    """Return the branch's newest commit, or None where there is no branch yet."""
    if remote is None:
        return git.commit_of(root, f"refs/heads/{BRANCH}")
    access = git.credentials(root, remote)
    listed = git.git(root, "ls-remote", "--end-of-options", remote, f"refs/heads/{BRANCH}", environment=access)
    if not listed.strip():
        return None
    kept = f"refs/remotes/{remote}/{BRANCH}"
    refspec = f"+refs/heads/{BRANCH}:{kept}"
    git.git(root, "fetch", "--quiet", "--no-tags", "--end-of-options", remote, refspec, environment=access)
    return git.commit_of(root, kept)


def _content(root: Path, tip: str | None, path: str) -> bytes | None:
    if tip is None:
        return None
    listed = git.git(root, "ls-tree", "-z", "--full-tree", "--end-of-options", tip, path).decode()
    return git.text_of(root, listed.split("\t")[0].split()[2]) if listed else None


def _moved(root: Path, remote: str | None, before: str | None, commit: str) -> bool:
    """Move the branch from `before` to `commit`; False where somebody else has moved it meanwhile."""
    try:
        if remote is None:
            git.git(root, "update-ref", f"refs/heads/{BRANCH}", commit, before or "0" * len(commit))
        else:
            access = git.credentials(root, remote) | {"LC_ALL": "C"}
            # A plain push moves the branch only forward, which is the comparison: our commit stands on what we saw.
            arguments = ("push", "--quiet", "--no-verify", "--end-of-options", remote, f"{commit}:refs/heads/{BRANCH}")
            git.git(root, *arguments, environment=access)
    except git.GitFailed as error:
        if OVERTAKEN.search(str(error)):
            return False
        raise
    return True
