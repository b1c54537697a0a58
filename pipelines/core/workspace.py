"""Look at the folder a job starts in: is it the commit it claims to be, with nothing left of an earlier run?"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.files import LFS
from pipelines.core.git import credentials

# What a verdict rests on: a file here that the commit does not hold would be judged with it.
INPUTS = ("params.yaml", "gates.yaml", "dvc.yaml", "serving.yaml", "prompts", "data", "pipelines", "scripts", "locks")
COMPILED = ":(exclude,glob)**/__pycache__/**"  # this very script may have left some
# What only this run may write: a step that fails must not leave the previous run's in place.
RESULTS = ("evaluation/decision.json", "evaluation/report.md", "evaluation/report.html", ".gatehouse/stages.json")
SHOWN = 3
LONGEST_S = 1800  # for all that Git LFS has to fetch


def inspect(root: Path, *, with_data: bool = True) -> None:
    """Refuse a workspace whose files are not those of its commit.

    Args:
        root: The workspace.
        with_data: Whether files are needed that Git LFS keeps: where only their pointers are here, they are fetched.

    Raises:
        ConfigError: No repository, changed or foreign files, or pointers where data should be and no git-lfs.
        ServiceError: Git LFS cannot fetch them.
    """
    if not _git(root, "rev-parse", "--is-inside-work-tree").startswith("true"):
        raise ConfigError("this folder is no Git checkout; add a step with actions/checkout before this one")
    # Workflows are not read from the workspace, so a harness may rewrite them.
    changed = _names(_git(root, "diff", "--name-only", "-z", "HEAD", "--", ".", ":(exclude).github"))
    foreign = _names(_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *INPUTS, COMPILED))
    if changed or foreign:
        raise ConfigError(
            f"the workspace is not what was checked out ({_few([*changed, *foreign])}); an earlier run may have left "
            "this: let actions/checkout clean up (`clean: true`)"
        )
    if with_data:
        _resolve(root)


def _resolve(root: Path) -> None:
    """Put what Git LFS keeps in the place of its pointers."""
    stored = _names(_git(root, "ls-files", "-z", "--", ":(attr:filter=lfs)"))
    pointers = [name for name in stored if _is_pointer(root / name)]
    if not pointers:
        return
    if shutil.which("git-lfs") is None:
        raise ConfigError(
            f"{_few(pointers)}: Git LFS keeps this data, and git-lfs is missing: install it on this runner"
        )
    # The filters are set for this clone alone, so that the files count as unchanged; no hook is installed.
    _lfs(root, "install", "--local", "--skip-repo")
    _lfs(root, "pull")
    if left := [name for name in pointers if _is_pointer(root / name)]:
        raise ServiceError(
            f"{_few(left)}: Git LFS has not fetched this; is it on the server, and may this token read it?"
        )


def _lfs(root: Path, *words: str) -> None:
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **credentials(root, "origin")}
    command = ["git", "-c", "core.fsmonitor=false", "lfs", *words]
    try:
        done = subprocess.run(command, cwd=root, env=variables, capture_output=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise ServiceError(f"git lfs {words[0]}: not done after {LONGEST_S // 60} minutes") from None
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise ServiceError(f"git lfs {words[0]}: {one_line(said, 300)}; is the server up, and may this token read it?")


def clear(root: Path) -> list[str]:
    """Remove the results of an earlier run and return their names."""
    found = [name for name in RESULTS if (root / name).is_file()]
    for name in found:
        (root / name).unlink()
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        # A watcher named in .git/config would be a program that an earlier run left.
        git = ["git", "-c", "core.fsmonitor=false", "-C", str(root)]
        result = subprocess.run([*git, *arguments], check=False, capture_output=True)
    except FileNotFoundError:
        raise ConfigError("git is not installed on this runner; install it") from None
    if result.returncode:
        said = one_line(result.stderr.decode("utf-8", "replace").strip(), 300)
        raise ConfigError(f"this folder cannot be used as a Git checkout ({said})")
    return result.stdout.decode("utf-8", "surrogateescape")


def _names(listing: str) -> list[str]:
    return [name for name in listing.split("\0") if name]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(one_line(name, 100) for name in names[:SHOWN]) + more


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(LFS)) == LFS.encode()
    except OSError:
        return False
