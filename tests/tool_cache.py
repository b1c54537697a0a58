"""Let `actions/setup` find environments as if an earlier job had installed them: this one, and one to judge in."""

from __future__ import annotations

import csv
import functools
import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from pipelines.core.installation import choose, mark, place

ROOT = Path(__file__).parent.parent
# `name==version ; marker \`: a marker leaves a package out on other machines or Pythons.
LOCKED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ \\\n]+)(?P<marker> ;[^\\\n]*)?", re.M)


def adopt(tool_cache: Path, source: Path = ROOT) -> Path:
    """Link this environment into a runner's tool cache, and lay a smaller one for `judging` beside it.

    Args:
        tool_cache: What `RUNNER_TOOL_CACHE` will say; under act that is `<HOME>/.cache/act/tool_cache`.
        source: The repository whose locks jobs will ask for.

    Returns:
        The environment as jobs will see it. They need `python3` to be the Python of this environment.
    """
    lock = choose("auto")
    folder = place(source, lock, tool_cache)
    if not folder.is_symlink():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(sys.prefix, target_is_directory=True)
    mark(folder, lock)
    small = place(source, "judging", tool_cache)
    if not small.exists():
        lay_out(small, (source / "locks/judging.txt").read_text(encoding="utf-8"))
    mark(small, "judging")
    return folder


def lay_out(folder: Path, lock: str) -> Path:
    """Make a virtual environment of links that holds what a lock names and nothing else; return its Python."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    base = Path(sys.executable).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (programs / name).symlink_to(base)
    packages = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    for name in links(lock):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).symlink_to(installed_at() / name)
    return programs / "python"


@functools.cache
def links(lock: str) -> tuple[str, ...]:
    """Return what of this environment a lock names: folders that are one package's alone, else single files."""
    known = recorded()
    owners = Counter(top for files in known.values() for top in {file.split("/")[0] for file in files})
    found: set[str] = set()
    for one in LOCKED.finditer(lock):
        name = f"{normal(one['name'])}=={one['version']}"
        assert name in known or one["marker"], f"{name} is locked for judging and is not what is installed here"
        for file in known.get(name, ()):
            top = file.split("/")[0]
            found.add(top if owners[top] == 1 else file)
    return tuple(sorted(found))


@functools.cache
def recorded() -> dict[str, tuple[str, ...]]:
    """Return the files of every installed package, by `name==version`."""
    found = {}
    for record in installed_at().glob("*.dist-info/RECORD"):
        name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        with record.open(newline="", encoding="utf-8") as stream:
            files = (row[0] for row in csv.reader(stream) if row)
            kept = [file for file in files if not file.startswith(("..", "/")) and "__pycache__" not in file]
        found[f"{normal(name)}=={version}"] = tuple(kept)
    return found


def installed_at() -> Path:
    """Return the folder of this environment's packages."""
    return Path(sysconfig.get_path("purelib"))


def normal(name: str) -> str:
    """Return a package's name as locks write it."""
    return re.sub(r"[-_.]+", "-", name).lower()
