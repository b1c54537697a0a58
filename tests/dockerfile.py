"""Carry the Dockerfile's steps for one stage out in an empty folder, as far as no container is needed for that.

COPY and RUN are done with every absolute path below the folder; bind mounts become copies, cache mounts are left out.
What is not understood is refused, so that no step is passed over in silence.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PLACES = re.compile(r"(?<![\w.])/(?=(?:opt|srv|build|workspace)\b)")


class Stage(NamedTuple):
    """Instructions between two FROM lines."""

    name: str
    base: str
    steps: list[tuple[str, str]]


def stages() -> dict[str, Stage]:
    """Read the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    found: dict[str, Stage] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(name, base, [])
        else:
            stage.steps.append((word, rest.strip()))
    return found


def ignored(path: Path) -> bool:
    """Tell whether .dockerignore keeps a path of the repository from the builder."""
    first, *_ = path.relative_to(ROOT).parts
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return f"!{first}" not in lines or "__pycache__" in path.parts or path.suffix == ".pyc"


def carry_out(name: str, folder: Path, run: Callable[[str, dict[str, str]], None]) -> dict[str, str]:
    """Carry out a stage and those below it; return its ENV, WORKDIR, USER and ENTRYPOINT."""
    stage = stages()[name]
    settings = carry_out(stage.base, folder, run) if stage.base in stages() else {}
    for word, rest in stage.steps:
        if word in ("WORKDIR", "USER", "EXPOSE", "ENTRYPOINT"):
            settings[word] = rest
        elif word == "ENV":
            settings |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "COPY":
            copy(rest, folder, run)
        else:
            assert word == "RUN", word
            run(mounted(rest, folder), settings)
    return settings


def copy(rest: str, folder: Path, run: Callable[[str, dict[str, str]], None]) -> None:
    """Carry out a COPY."""
    if rest.startswith("--from="):
        stage, source, target = rest.removeprefix("--from=").split()
        assert source == target
        carry_out(stage, folder, run)  # both stages are this one folder: what is copied lies where it must
        assert (folder / source[1:]).exists()
        return
    *sources, target = rest.split()
    for source in sources:
        path, to = ROOT / source, folder / target[1:]
        assert not ignored(path), f"{source}: .dockerignore keeps it from the builder"
        if path.is_dir():
            shutil.copytree(path, to, ignore=lambda place, names: [one for one in names if ignored(Path(place, one))])
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to / path.name)


def mounted(rest: str, folder: Path) -> str:
    """Lay out what a RUN mounts, and return its command."""
    while rest.startswith("--mount="):
        mount, _, rest = rest.partition(" ")
        options = dict(part.split("=", 1) for part in mount.removeprefix("--mount=").split(","))
        if options["type"] == "bind":
            path = ROOT / options["source"]
            assert not ignored(path), f"{path}: .dockerignore keeps it from the builder"
            target = folder / options["target"][1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        else:
            assert options["type"] == "cache", "no secret and nothing of the builder's machine"
        rest = rest.strip()
    return rest


def in_folder(folder: Path) -> Callable[[str, dict[str, str]], None]:
    """Return what runs a command with its absolute paths below the folder."""

    def run(command: str, settings: dict[str, str]) -> None:
        moved = PLACES.sub(f"{folder}/", command)
        find_links = os.environ.get("PIP_FIND_LINKS", "")
        environment = {**os.environ, "UV_FIND_LINKS": find_links}
        done = subprocess.run(["sh", "-ec", moved], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{moved}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    return run
