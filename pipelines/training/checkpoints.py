"""Checkpoints that a kill at any moment cannot spoil: one counts only when a list of its files' hashes is complete."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, sha256, write_json

LIST = "complete.json"


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint complete: write the hash of each of its files."""
    files = [path for path in sorted(checkpoint.iterdir()) if path.name != LIST]
    write_json(checkpoint / LIST, {path.name: sha256(path) for path in files})


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end and nothing in it changed since."""
    try:
        files: Any = read_json(checkpoint / LIST)
        return bool(files) and all(sha256(checkpoint / name) == expected for name, expected in files.items())
    except (ConfigError, OSError, AttributeError):
        return False


def latest(folder: Path) -> Path | None:
    """Return the last whole checkpoint of a run and delete the broken ones."""
    found = None
    for checkpoint in _by_step(folder):
        if is_whole(checkpoint):
            found = checkpoint
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return found


def keep(folder: Path, most: int) -> None:
    """Delete all but the last `most` checkpoints of a run."""
    for checkpoint in _by_step(folder)[:-most]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def _by_step(folder: Path) -> list[Path]:
    steps = {path: path.name.rpartition("-")[2] for path in folder.glob("checkpoint-*")}
    return sorted((path for path, step in steps.items() if step.isdigit()), key=lambda path: int(steps[path]))
