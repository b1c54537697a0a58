"""Take what an untrusted run handed over: plain files of known names and bounded sizes that its manifest names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import read_json, replacing
from pipelines.core.params import NAME
from pipelines.core.records import Output
from pipelines.review.outputs import File as Written
from pipelines.review.outputs import hashes, is_inside, listing
from pipelines.review.rows_file import cleaned

MIB = 1 << 20
MOST_FILES = 500
MOST_BYTES = 2048 * MIB
# What a verdict needs, and how large it may be. Everything else is left where it is.
KNOWN = (
    (re.compile(r"manifest\.json"), 32 * MIB),
    (re.compile(r"dvc\.lock"), 4 * MIB),
    (re.compile(r"\.gatehouse/stages\.json"), MIB),
    (re.compile(r"models/candidate/(training|model)\.json"), 16 * MIB),
    (re.compile(rf"evaluation/{NAME}/(run|metrics)\.json"), 16 * MIB),
    (re.compile(rf"evaluation/{NAME}/rows\.parquet"), 256 * MIB),
    (re.compile(rf"data/validation/{NAME}/(passed|results)\.json"), 16 * MIB),
)
SHA = re.compile("[0-9a-f]{40}|[0-9a-f]{64}|")


class Manifest(BaseModel):
    """What the run says of itself: claims, each of which is held against something."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    schema_version: Literal[1]
    head: str
    base: str
    merge: str = ""
    files: dict[str, str]
    objects: dict[str, Output] = {}


class Received(NamedTuple):
    """What was handed over and taken.

    Attributes:
        manifest: What the run says of itself.
        lock: Text of its `dvc.lock`.
    """

    manifest: Manifest
    lock: str


def take(source: Path, to: Path, *, most_rows: int) -> Received:
    """Copy what a verdict needs out of an artifact, each file held against the manifest.

    Args:
        source: The artifact: a folder, or a zip file that nobody has unpacked.
        to: Where it goes; `rows.parquet` is written anew from its values.
        most_rows: No suite has more.

    Raises:
        ConfigError: There is none, or it holds a link, a device, a path to elsewhere, too much, a file that the
            manifest does not name or that is not what it names, or something that cannot be read.
    """
    found = set()
    for name, stream in _opened(source):
        _copy(name, stream, to / name)
        found.add(name)
    if "manifest.json" not in found:
        raise ConfigError("the run handed nothing over (no manifest.json); run it again")
    manifest = _manifest(to / "manifest.json")
    wanted = {name for name in manifest.files if _limit(name) is not None} - {"manifest.json"}
    if missing := sorted(wanted - found):
        raise ConfigError(f"{missing[0]}: was handed over incompletely: it is missing; run it again")
    for name in sorted(found - {"manifest.json"}):
        _check(to / name, name, manifest.files.get(name), most_rows)
    lock = (to / "dvc.lock").read_text(encoding="utf-8") if "dvc.lock" in found else ""
    _check_lock(lock, manifest)
    return Received(manifest, lock)


def claims(source: Path) -> Manifest:
    """Return what an artifact says of itself, before anything else of it is read.

    Raises:
        ConfigError: As for `take`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, stream in _opened(source):
            with stream:
                if name == "manifest.json":
                    _copy(name, stream, Path(folder) / name)
        if not (Path(folder) / "manifest.json").exists():
            raise ConfigError("the run handed nothing over (no manifest.json); run it again")
        return _manifest(Path(folder) / "manifest.json")


def _opened(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    return _zipped(source) if source.is_file() and not source.is_symlink() else _folder(source)


def _limit(name: str) -> int | None:
    return next((most for pattern, most in KNOWN if pattern.fullmatch(name)), None)


def _folder(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if source.is_symlink() or not source.is_dir():
        raise ConfigError("the run handed nothing over; run it again")
    n_files, n_bytes = 0, 0
    for folder, folders, files in os.walk(source, followlinks=False):
        for name in [*folders, *files]:
            path = Path(folder) / name
            shown = one_line(path.relative_to(source).as_posix(), 200)
            status = path.lstat()
            n_files, n_bytes = n_files + 1, n_bytes + status.st_size
            is_plain = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if not is_plain:
                raise ConfigError(f"{shown}: is a link or a device; only plain files are taken")
            if n_files > MOST_FILES or n_bytes > MOST_BYTES:
                raise ConfigError(f"more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes were handed over")
            if stat.S_ISREG(status.st_mode) and _limit(path.relative_to(source).as_posix()) is not None:
                yield (
                    path.relative_to(source).as_posix(),
                    os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"),
                )


def _zipped(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    try:
        archive = zipfile.ZipFile(source)
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"the artifact is no readable zip file ({one_line(str(error), 100)})") from None
    names = [entry.filename for entry in entries]
    if (
        len(names) > MOST_FILES
        or sum(entry.file_size for entry in entries) > MOST_BYTES
        or len(set(names)) < len(names)
    ):
        raise ConfigError(f"more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes, or a name twice, were handed over")
    for entry in entries:
        mode, parts = entry.external_attr >> 16, PurePosixPath(entry.filename).parts
        is_plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
        if not is_plain or entry.flag_bits & 1 or entry.filename.startswith("/") or ".." in parts:
            raise ConfigError(f"{one_line(entry.filename, 200)}: is a link, locked, or leads elsewhere")
        if not entry.is_dir() and _limit(entry.filename) is not None:
            try:
                yield entry.filename, archive.open(entry)
            except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
                raise ConfigError(f"{entry.filename}: cannot be unpacked ({one_line(str(error), 100)})") from None


def _copy(name: str, stream: IO[bytes], target: Path) -> None:
    """Copy a file until it ends or grows too large, whatever was said of its size."""
    left = _limit(name) or 0
    try:
        with stream, replacing(target) as out:
            while piece := stream.read(min(MIB, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise ConfigError(f"{name}: is larger than {_limit(name):,} bytes")
                out.write(piece)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be unpacked ({one_line(str(error), 100)})") from None
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise ConfigError(f"{name}: cannot be unpacked ({one_line(str(error), 100)})") from None
        raise


def _manifest(path: Path) -> Manifest:
    try:
        found = Manifest.model_validate(_read_json(path, "manifest.json"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"manifest.json: {one_line(key, 100)}: {first['msg'].lower()}") from None
    for name in ("head", "base", "merge"):
        if not SHA.fullmatch(getattr(found, name)):
            raise ConfigError(f"manifest.json: {name}: is no commit")
    for name, output in found.objects.items():
        if not is_inside(name) or not re.fullmatch("[0-9a-f]{64}", output.sha256) or output.size < 0:
            raise ConfigError(f"manifest.json: objects: {one_line(repr(name), 100)} can be no output")
    return found


def _read_json(path: Path, name: str) -> object:
    try:
        return read_json(path)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(path), name)) from None


def _check(path: Path, name: str, expected: str | None, most_rows: int) -> None:
    if expected is None:
        raise ConfigError(f"{name}: the manifest does not name it")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ConfigError(f"{name}: is not the file that the manifest names (its SHA-256 differs); run it again")
    if name.endswith(".json"):
        _read_json(path, name)
    elif name.endswith(".parquet"):
        hostile = path.with_name("hostile.parquet")
        path.rename(hostile)
        try:
            cleaned(hostile, path, most_rows=most_rows)
        except ConfigError as error:
            raise ConfigError(str(error).replace(hostile.name, name)) from None
        finally:
            hostile.unlink()
    elif name == "dvc.lock":
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError("dvc.lock: is not UTF-8") from None


def _check_lock(lock: str, manifest: Manifest) -> None:
    """Hold `dvc.lock`, the manifest's objects and the files of the evaluation against one another.

    Main later takes over what these name: all three must speak of the same bytes.
    """
    if not lock:
        raise ConfigError("dvc.lock: was not handed over, so nobody could take over what the run computed")
    locked = hashes(lock)
    objects = {path: Written(**output.model_dump()) for path, output in manifest.objects.items()}
    for path, md5 in locked.items():
        if md5.endswith(".dir"):
            is_named = not any(name.startswith(f"{path}/") for name in objects) or listing(path, objects)[1] == md5
        else:
            is_named = path not in objects or objects[path].md5 == md5
        if not is_named:
            raise ConfigError(f"{one_line(path, 100)}: dvc.lock and the manifest name different contents")
    for path, sha in manifest.files.items():
        if path.startswith("evaluation/") and _limit(path) is not None:
            if path not in objects or objects[path].sha256 != sha:
                raise ConfigError(f"{path}: is not the output that dvc.lock and the manifest name")
            if path not in locked and not any(path.startswith(f"{folder}/") for folder in locked):
                raise ConfigError(f"{path}: dvc.lock does not name it")
