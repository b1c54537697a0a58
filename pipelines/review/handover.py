"""Lay out what a verdict needs of a finished run, with a manifest that names every file by its SHA-256."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pipelines.core import git
from pipelines.core.commit import head
from pipelines.core.errors import ConfigError
from pipelines.core.files import sha256, write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.github.event import read_event
from pipelines.review.outputs import cached_paths, hashes, manifest
from pipelines.review.reproduction import opened

PATTERNS = (
    "evaluation/*/rows.parquet",
    "evaluation/*/run.json",
    "evaluation/*/metrics.json",
    "data/validation/*/*.json",
    "models/candidate/training.json",
    "models/candidate/model.json",
    "dvc.lock",
    ".gatehouse/stages.json",
)
BASELINE = "evaluation/baseline"


def hand_over(to: Path, root: Path = Path()) -> int:
    """Fill `to`, which is replaced as a whole, with results, `dvc.lock` and `manifest.json`.

    Args:
        to: The folder that is uploaded.
        root: The repository, reproduced.

    Returns:
        How many files are handed over, the manifest not counted.

    Raises:
        ConfigError: Nothing was evaluated, or an output is not the one that `dvc.lock` names.
    """
    lock = root / "dvc.lock"
    if not lock.is_file() or not list(root.glob("evaluation/*/rows.parquet")):
        raise ConfigError("there is nothing to hand over; run `python -m scripts.reproduce` first")
    if to.resolve() in (root.resolve(), *root.resolve().parents):
        raise ConfigError(
            f"--to {to}: is replaced as a whole, so it cannot be the repository; name a folder of its own"
        )
    found = objects(root, lock.read_text(encoding="utf-8"))
    names = sorted({path.relative_to(root).as_posix() for pattern in PATTERNS for path in root.glob(pattern)})
    files: dict[str, str] = {}
    with replacing_folder(to) as new:
        for name in names:
            if name.startswith(f"{BASELINE}/"):
                continue
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, new / name)
            files[name] = sha256(new / name)
        known = {"schema_version": 1, **_commits(root), "files": files}
        write_json(new / "manifest.json", {**known, "objects": found})
    return len(files)


def objects(root: Path, lock: str) -> dict[str, Any]:
    """Return every file of every output that DVC keeps, by path: its SHA-256, size and MD5.

    Args:
        root: The repository, reproduced.
        lock: Text of its `dvc.lock`.

    Raises:
        ConfigError: An output is not the one that the lock names.
    """
    with opened(root) as repo:
        cached = sorted(path for path in hashes(lock) if path in cached_paths(repo))
    return {name: one._asdict() for name, one in manifest(root, lock, cached).items()}


def _commits(root: Path) -> dict[str, str]:
    """Return what was evaluated: in a pull request its head, its base, and the merge of both that was checked out."""
    commit = head(root)[0]
    commit = "" if commit == "unknown" else commit
    pull_request: Any = read_event().get("pull_request") if os.environ.get("GITHUB_EVENT_PATH") else None
    if not isinstance(pull_request, dict):
        return {"head": commit, "base": "", "merge": ""}
    try:
        wanted, base = pull_request["head"]["sha"], pull_request["base"]["sha"]
    except (KeyError, TypeError):
        raise ConfigError(
            "GITHUB_EVENT_PATH: pull_request lacks head.sha or base.sha; this is no event of GitHub"
        ) from None
    # The event's base can be older than the one that GitHub merged with.
    parents = git.parents_of_head(root)
    if len(parents) == 2 and parents[1] == wanted:
        base = parents[0]
    return {"head": wanted, "base": base, "merge": commit}
