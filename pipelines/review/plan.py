"""What a pull request has to compute, told from the names of the files it changes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from pipelines.core import git
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.event import read_event

TRAINING = "train"
EVERYTHING = "*"
"""Stands for every key of `params.yaml`, where one of its versions cannot be read."""

# Nothing under these is measured, decides, or runs while something is measured. Whatever is not listed is evaluated.
HARMLESS_FOLDERS = ("docs", "tests", "benchmarks", "schemas", "k8s", ".github/ISSUE_TEMPLATE")
HARMLESS_NAMES = ("LICENSE", "LICENSE.txt", "NOTICE", ".editorconfig", ".gitattributes")


class Stage(NamedTuple):
    """A stage of `dvc.yaml` with its loop and variables filled in.

    Attributes:
        name: As DVC says it, such as `evaluate@reply`.
        deps: Files and folders it reads.
        params: Keys of `params.yaml` it reads, such as `suites.reply`.
        outs: Files and folders it writes.
    """

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]


class Plan(NamedTuple):
    """What has to be computed.

    Attributes:
        evaluate: Whether anything that is measured, decides or runs has changed.
        train: Whether training has to run again.
        reason: One sentence for people.
        stages: Names of the stages that a change reaches, in the order of `dvc.yaml`.
    """

    evaluate: bool
    train: bool
    reason: str
    stages: tuple[str, ...] = ()


def plan(changed: Collection[str], stages: Sequence[Stage], changed_params: Collection[str] = ()) -> Plan:
    """Tell what a set of changed files makes necessary.

    Args:
        changed: Changed paths, relative to the repository.
        stages: The stages of `dvc.yaml`.
        changed_params: Keys of `params.yaml` whose values differ, dotted.

    Returns:
        The plan. A change that no stage reads still asks for an evaluation (which then comes from caches) unless its
        path is known to be harmless: only the judge may say that nothing is to be judged.
    """
    if not changed:
        return Plan(False, False, "nothing changed")
    dirty = {path for path in changed if path != "params.yaml"}
    names: set[str] = set()
    for _ in stages:  # as deep as the chain of stages can be, in whatever order they stand
        for stage in stages:
            if _touches(dirty, stage.deps) or _overlaps(changed_params, stage.params):
                names.add(stage.name)
                dirty.update(stage.outs)
    telling = [path for path in changed if not is_harmless(path)]
    if not telling and not names:
        return Plan(False, False, "only documentation, tests or deployment files changed: nothing is measured anew")
    shown = one_line(", ".join(sorted(telling or changed)[:3]), 200)
    more = f" and {len(telling) - 3} more" if len(telling) > 3 else ""
    does_train = TRAINING in names
    what = "training and evaluation" if does_train else "evaluation without training" if names else "evaluation"
    return Plan(
        True, does_train, f"{what}: {shown}{more} changed", tuple(stage.name for stage in stages if stage.name in names)
    )


def is_harmless(path: str) -> bool:
    """Tell whether a file can have no part in what is measured or decided."""
    name = PurePosixPath(path).name
    if name == "CODEOWNERS":  # GitHub reads it from docs/ as well
        return False
    is_text_for_people = "/" not in path.removeprefix(".github/") and (name.endswith(".md") or name in HARMLESS_NAMES)
    return is_text_for_people or any(path.startswith(f"{folder}/") for folder in HARMLESS_FOLDERS)


def _touches(paths: Iterable[str], deps: Sequence[str]) -> bool:
    """Tell whether a path is one of `deps`, lies in it, or holds it."""
    wanted = [dep.rstrip("/") for dep in deps]
    return any(
        path == dep or path.startswith(f"{dep}/") or dep.startswith(f"{path.rstrip('/')}/")
        for path in paths
        for dep in wanted
    )


def _overlaps(changed: Collection[str], params: Sequence[str]) -> bool:
    if EVERYTHING in changed:
        return bool(params)
    return any(
        key == mine or key.startswith(f"{mine}.") or mine.startswith(f"{key}.") for key in changed for mine in params
    )


def read_stages(root: Path = Path()) -> tuple[Stage, ...]:
    """Read the stages of `dvc.yaml`, loops and variables filled in.

    Raises:
        ConfigError: DVC cannot read it.
    """
    import contextlib

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.closing(Repo(str(root))) as repo:
            return tuple(_facts(stage) for stage in repo.index.stages)
    except DvcException as error:
        raise ConfigError(f"dvc: {one_line(' '.join(str(error).split()), 400)}") from None


def _facts(stage: Any) -> Stage:
    from dvc.dependency import ParamsDependency

    files = [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    params = [key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params]
    if stage.is_data_source:  # NAME.dvc: what changes is the file that names the data
        files.append(stage.path_in_repo)
    return Stage(stage.addressing, tuple(files), tuple(params), tuple(out.def_path for out in stage.outs))


def base_of(given: str, root: Path = Path()) -> str:
    """Return the commit that a pull request was merged with, where that merge is checked out; else the given one.

    An event's base can be older than the merge, and main's own changes since would count as the pull request's.
    """
    event: Any = read_event().get("pull_request") if os.environ.get("GITHUB_EVENT_PATH") else None
    head = (event.get("head") or {}).get("sha") if isinstance(event, dict) else None
    parents = git.parents_of_head(root)
    return parents[0] if len(parents) == 2 and parents[1] == head else given


def changed_files(base: str, root: Path = Path(), head: str = "HEAD") -> list[str]:
    """Return the paths that differ between `head` and the point where it left `base`, both names of a rename.

    Raises:
        ConfigError: Git does not know the commits, or not what they have in common.
    """
    shown = _git(root, "diff", "--name-only", "--no-renames", "-z", "--end-of-options", f"{base}...{head}")
    return [name for name in shown.split("\0") if name]


def changed_params(base: str, root: Path = Path(), head: str = "HEAD") -> set[str]:
    """Return the dotted keys of `params.yaml` whose values differ between `head` and the point where it left `base`."""
    start = _git(root, "merge-base", "--end-of-options", base, head).strip()
    before, after = (_flat(_params_at(commit, root)) for commit in (start, head))
    if before is None or after is None:
        return {EVERYTHING}
    return {key for key in before.keys() | after.keys() if before.get(key, _flat) != after.get(key, _flat)}


def _params_at(commit: str, root: Path) -> Any:
    try:
        return yaml.safe_load(_git(root, "show", "--end-of-options", f"{commit}:params.yaml"))
    except (ConfigError, yaml.YAMLError):
        return None


def _flat(value: Any, prefix: str = "") -> dict[str, Any] | None:
    """Return the leaves of nested keys by dotted key; None unless the file holds keys."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else None
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{prefix}.{key}" if prefix else str(key)) or {}
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True)
    except FileNotFoundError:
        raise ConfigError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        said = one_line(error.stderr.decode(errors="replace").strip().splitlines()[0] if error.stderr else "", 200)
        raise ConfigError(f"git {arguments[0]}: {said}; fetch the whole history (fetch-depth: 0)") from None
    return done.stdout.decode("utf-8", "surrogateescape")
