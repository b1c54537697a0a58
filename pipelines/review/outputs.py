"""What `dvc.lock` says that the stages wrote: names and hashes, read as text that anybody may have written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import sha256
from pipelines.review.remote import MD5


class File(NamedTuple):
    """One file of an output, as the manifest names it.

    Attributes:
        sha256: What it is held against.
        size: In bytes.
        md5: The name of its object in DVC's caches and remotes.
    """

    sha256: str
    size: int
    md5: str


def hashes(lock: str, shown: str = "dvc.lock") -> dict[str, str]:
    """Return the MD5 of each output in a `dvc.lock` by path; a folder's ends in `.dir`.

    Raises:
        ConfigError: The text is not a `dvc.lock`, or names what no output can be.
    """
    try:
        stages = yaml.load(lock, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"].values()  # noqa: S506
        outs = [(out["path"], out["md5"]) for stage in stages for out in stage.get("outs", []) if "md5" in out]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{shown}: is not one that DVC wrote; reproduce again") from None
    for path, md5 in outs:
        if not (isinstance(path, str) and is_inside(path) and isinstance(md5, str) and MD5.fullmatch(md5)):
            raise ConfigError(f"{shown}: {one_line(repr(path), 100)}: no output has such a path or hash")
    return dict(outs)


def is_inside(path: str) -> bool:
    """Tell whether a relative path stays inside the repository, and out of what Git and DVC keep there."""
    parts = PurePosixPath(path).parts
    is_plain = path == str(PurePosixPath(*parts)) and not path.startswith("/") and "\\" not in path
    return bool(parts) and is_plain and ".." not in parts and parts[0] not in (".git", ".dvc", ".")


def listing(path: str, files: Mapping[str, File]) -> tuple[bytes, str]:
    """Return the bytes and the name of the object that lists a folder's files, as DVC writes it.

    Args:
        path: The folder.
        files: Files by path, those of other outputs too.
    """
    inside = sorted(name for name in files if name.startswith(f"{path}/"))
    entries = [{"md5": files[name].md5, "relpath": name.removeprefix(f"{path}/")} for name in inside]
    data = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True).encode()
    return data, f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"


def cached_paths(repo: Any) -> set[str]:
    """Return the paths of all outputs that DVC keeps in its cache; `repo` is DVC's repository object."""
    return {out.def_path for out in repo.index.outs if out.use_cache}


def manifest(root: Path, lock: str, paths: Sequence[str]) -> dict[str, File]:
    """Return every file of some outputs by path, read from the working tree and held against `dvc.lock`.

    Args:
        root: The repository.
        lock: Text of `dvc.lock`.
        paths: The outputs.

    Raises:
        ConfigError: An output is missing, or is not the one that `dvc.lock` names.
    """
    known, found = hashes(lock), dict[str, File]()
    for path in paths:
        if path not in known:
            raise ConfigError(f"dvc.lock: does not name {path}; run `python -m scripts.reproduce`")
        place = root / path
        names = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
        try:
            files = {each.relative_to(root).as_posix(): _file(each) for each in names}
        except FileNotFoundError:
            raise ConfigError(f"{place}: no such file; run `python -m scripts.reproduce`") from None
        md5 = listing(path, files)[1] if known[path].endswith(".dir") else files[path].md5
        if md5 != known[path]:
            raise ConfigError(f"{place}: is not what dvc.lock names; run `python -m scripts.reproduce`")
        found |= files
    return found


def _file(path: Path) -> File:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            md5.update(piece)
    return File(sha256(path), path.stat().st_size, md5.hexdigest())
