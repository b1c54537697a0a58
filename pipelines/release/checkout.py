"""Bring the work trees that have a branch checked out up to its tip, for some files alone; nobody's work is lost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from pipelines.core import git
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import replacing

TRIES, PAUSE_S = 50, 0.1


def settle(root: Path, branch: str, paths: Iterable[str], *, is_strict: bool = True) -> None:
    """Write the branch's version of files into every work tree that has the branch checked out.

    A file is only replaced if the branch itself once held what lies there (or there is no file): a process that died
    between moving the branch and writing the file leaves exactly that. Anything else is somebody's own work.

    Args:
        root: The repository.
        branch: The branch.
        paths: Files, or patterns of files as Git reads them.
        is_strict: Whether somebody's own work in one of them is an error; else such a file is left alone.

    Raises:
        ConfigError: A file holds something that was never committed; nothing is touched.
    """
    wanted = sorted(set(paths))
    for tree in _work_trees(root, branch):
        changed = _changed(tree, wanted)
        own = [path for path in changed if not {_indexed(tree, path), _lying(tree, path)} <= _known(tree, path) | {""}]
        if own and is_strict:
            raise ConfigError(
                f"{one_line(str(tree / own[0]), 200)}: has changes that are not committed; commit them or put it back"
            )
        for path in changed:
            if path not in own:
                _write(tree, path)


def _work_trees(root: Path, branch: str) -> list[Path]:
    found, tree = [], Path()
    for line in git.git(root, "worktree", "list", "--porcelain").decode(errors="surrogateescape").splitlines():
        word, _, rest = line.partition(" ")
        if word == "worktree":
            tree = Path(rest)
        elif word == "branch" and rest == f"refs/heads/{branch}" and tree.is_dir():
            found.append(tree)
    return found


def _changed(tree: Path, paths: list[str]) -> list[str]:
    """Return which of the paths differ from the branch's tip, in the index or in the work tree."""
    words = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *paths)
    said = git.git(tree, "--no-optional-locks", *words).decode(errors="surrogateescape")
    return sorted({line[3:] for line in said.split("\0") if line})


def _known(tree: Path, path: str) -> set[str]:
    """Return the objects that the branch ever held at a path."""
    said = git.git(tree, "log", "--format=", "--raw", "--no-abbrev", "--no-renames", "--", path).decode()
    words = [line.split() for line in said.splitlines() if line.startswith(":")]
    return {oid for each in words for oid in each[2:4] if set(oid) != {"0"}}


def _indexed(tree: Path, path: str) -> str:
    said = git.git(tree, "ls-files", "--stage", "--", path).decode().split()
    return said[1] if said else ""


def _lying(tree: Path, path: str) -> str:
    if not (tree / path).is_file():
        return ""
    return git.git(tree, "hash-object", "--", path).decode().strip()


def _write(tree: Path, path: str) -> None:
    listed = git.git(tree, "ls-tree", "-z", "--full-tree", "HEAD", "--", path).decode()
    if not listed:
        return  # it lies there and was committed once, but is not part of the tip: leave it
    oid = listed.split("\t")[0].split()[2]
    with replacing(tree / path) as stream:
        stream.write(git.text_of(tree, oid))
    _update_index(tree, "--add", "--cacheinfo", f"100644,{oid},{path}")


def _update_index(tree: Path, *words: str) -> None:
    """Let a command beside this one, which has locked the index, finish first."""
    for _ in range(TRIES):
        try:
            git.git(tree, "update-index", *words)
        except git.GitFailed as error:
            if "index.lock" not in str(error):
                raise
            time.sleep(PAUSE_S)
        else:
            return
    git.git(tree, "update-index", *words)
