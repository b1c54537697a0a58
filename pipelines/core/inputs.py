"""The digest of everything a decision is about: declared files, data, prompts and code, from files or from Git.

It follows content alone, so that a squash merge, another clone or a later tag gives the same digest.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.core.files import digest, sha256
from pipelines.core.source import parse

DECLARED = ("params.yaml", "gates.yaml", "dvc.yaml", "serving.yaml")
FOLDERS = ("prompts", "locks")
CODE = ("pipelines", "scripts")
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize [0-9]+\n")


def input_digest(root: Path = Path()) -> str:
    """Return the digest of the working tree's inputs.

    Raises:
        ConfigError: An input is a symbolic link, whose content Git does not hold, or `params.yaml` is no YAML.
    """
    there = set(_walk(root))
    params = _parsed((root / "params.yaml").read_bytes()) if "params.yaml" in there else {}
    chosen = inputs(there | {path for path in named(params) if (root / path).exists()}, params)
    return digest({path: _of_file(root, path) for path in chosen})


def input_digest_at(commit: str, root: Path = Path()) -> str:
    """Return the digest of a commit's (or tree's) inputs from Git's objects; nothing is checked out.

    Raises:
        ConfigError: As for `input_digest`.
        GitFailed: Git does not have the commit.
    """
    return digest(input_digests_at(commit, root))


def input_digests_at(commit: str, root: Path = Path()) -> dict[str, str]:
    """Return the SHA-256 (hex) of each input of a commit (or tree) by its path.

    Raises:
        ConfigError: As for `input_digest`.
        GitFailed: Git does not have the commit.
    """
    entries = git.files_of(root, commit)
    params = {}
    if "params.yaml" in entries:
        params = _parsed(git.text_of(root, entries["params.yaml"].oid))
    chosen = [path for path in inputs(entries, params) if entries[path].mode != git.MODULE]
    for path in chosen:
        if entries[path].mode == git.LINK:
            raise _linked(path)
    contents = git.contents_of(root, (entries[path].oid for path in chosen))
    return {path: _of_bytes(data) for path, data in zip(chosen, contents, strict=True)}


def inputs(paths: Iterable[str], params: Any) -> list[str]:
    """Return which of a tree's paths a decision is about, sorted.

    Args:
        paths: Every path of the tree.
        params: `params.yaml` as plain values; what does not fit its model is left out.
    """
    there = set(paths)
    chosen = {path for path in there if path in DECLARED or path.startswith(tuple(f"{name}/" for name in FOLDERS))}
    chosen |= {path for path in there if path.startswith(tuple(f"{name}/" for name in CODE)) and _is_code(path)}
    for path in named(params):
        # DVC's small file stands for what it keeps; it can stand beside the file or beside a folder above it.
        above = [path, *(str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")]
        locks = [f"{each}.dvc" for each in above if f"{each}.dvc" in there]
        chosen |= set(locks[:1] or [path]) & there
    return sorted(chosen)


def named(params: Any) -> list[str]:
    """Return the paths that `params.yaml` names: data, prompts, and rows that calibrate a judge."""
    found = [_get(one, "path") for one in _values(params, "datasets")]
    found += [_get(one, "prompt") for one in [*_values(params, "suites"), *_values(params, "validate")]]
    found += [_get(params, "train", "prompt")]
    for suite in _values(params, "suites"):
        found += [_get(judge, key) for judge in _values(suite, "judges") for key in ("prompt", "calibration")]
    pure = {str(PurePosixPath(path)) for path in found if isinstance(path, str) and path.strip() and "\0" not in path}
    return sorted(path for path in pure if not path.startswith("/") and ".." not in PurePosixPath(path).parts)


def _is_code(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return path.endswith(".py") or ("templates" in parts and not path.endswith(".pyc"))


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _values(value: Any, key: str) -> list[Any]:
    found = _get(value, key)
    return list(found.values()) if isinstance(found, dict) else []


def _parsed(text: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "params.yaml"
        copy.write_bytes(text)
        return parse(copy, "params.yaml").value


def _walk(root: Path) -> Iterator[str]:
    """Yield the declared files and everything below the folders of inputs, without following links to folders."""
    yield from (name for name in DECLARED if os.path.lexists(root / name))
    for name in (*FOLDERS, *CODE):
        for folder, folders, files in os.walk(root / name):
            folders[:] = [each for each in folders if each != "__pycache__"]
            place = Path(folder)
            links = [each for each in folders if (place / each).is_symlink()]
            yield from ((place / each).relative_to(root).as_posix() for each in [*files, *links])
    # DVC's small files beside the data: the data itself is found by its name.
    yield from (path.relative_to(root).as_posix() for path in _locks(root))


def _locks(root: Path) -> Iterator[Path]:
    try:
        params = _parsed((root / "params.yaml").read_bytes())
    except FileNotFoundError:
        return
    for path in named(params):
        for each in (PurePosixPath(path), *PurePosixPath(path).parents):
            lock = root / f"{each}.dvc"
            if str(each) != "." and lock.is_file():
                yield lock


def _of_file(root: Path, path: str) -> str:
    place = root / path
    if place.is_symlink():
        raise _linked(path)
    if not place.is_file():
        raise ConfigError(f"{path}: is no regular file; a file of its own is needed")
    if place.stat().st_size < 1024:  # only a small file can be a pointer
        return _of_bytes(place.read_bytes())
    return sha256(place)


def _of_bytes(data: bytes) -> str:
    """Return the SHA-256 of content; Git LFS's pointer stands for the content it names."""
    if len(data) < 1024 and (pointer := POINTER.fullmatch(data)):
        return pointer[1].decode()
    return hashlib.sha256(data).hexdigest()


def _linked(path: str) -> ConfigError:
    return ConfigError(f"{path}: is a symbolic link, whose content Git does not hold; put the file itself there")
