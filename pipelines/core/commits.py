"""Make commits of plain files beside the working tree and its index, and tell a lost race from a failure."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pipelines.core import git
from pipelines.core.errors import ConfigError

# Git's own words where somebody else was faster.
OVERTAKEN = re.compile(
    r"non-fast-forward|fetch first|stale info|cannot lock ref|failed to update ref|reference already"
)
WRITER = {
    "GIT_AUTHOR_NAME": "gatehouse",
    "GIT_AUTHOR_EMAIL": "gatehouse@users.noreply.github.com",
    "GIT_COMMITTER_NAME": "gatehouse",
    "GIT_COMMITTER_EMAIL": "gatehouse@users.noreply.github.com",
}


def check_plain(path: str) -> None:
    """Refuse a path that leads out of the tree.

    Raises:
        ConfigError: It does.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or not pure.parts or {"..", ".git"} & set(pure.parts) or str(pure) != path:
        raise ConfigError(f"{path!r}: a plain path below the branch's top is needed")


def commit_files(root: Path, before: str | None, files: Mapping[str, bytes], message: str) -> str:
    """Build a commit on top of `before` that adds or replaces files; nothing is checked out and no branch moves.

    Args:
        root: The repository.
        before: The parent, or None for a root.
        files: Content by path.
        message: The commit's.

    Returns:
        The new commit, or `before` where it holds the same already.

    Raises:
        ConfigError: A path leads out of the tree.
        GitFailed: Git cannot write.
    """
    for path in files:
        check_plain(path)
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        if before:
            git.git(root, "read-tree", before, environment=index)
        oids = {
            path: git.git(root, "hash-object", "-w", "--stdin", stdin=data).decode() for path, data in files.items()
        }
        listed = "".join(f"100644 {oid.strip()}\t{path}\0" for path, oid in oids.items()).encode()
        git.git(root, "update-index", "-z", "--add", "--index-info", stdin=listed, environment=index)
        tree = git.git(root, "write-tree", environment=index).decode().strip()
    if before and tree == git.git(root, "rev-parse", f"{before}^{{tree}}").decode().strip():
        return before
    parents = ["-p", before] if before else []
    said = git.git(root, "commit-tree", tree, *parents, stdin=f"{message}\n".encode(), environment=WRITER)
    return said.decode().strip()
