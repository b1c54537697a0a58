"""Read and write files so that nothing is half-written, and every complaint names file and line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pipelines.core.errors import ConfigError

LFS = "version https://git-lfs.github.com/spec/"  # how a pointer begins that stands for a file


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    Args:
        path: The file to write; its folder is made where it is missing.
        mode: "wb" or "w" (UTF-8).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its 0600 would follow the file into caches that others read, and a process's umask can only be
    # asked by changing it, which is not safe among threads.
    beside = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open(mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    with replacing(path, "w") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path, *, most_bytes: int | None = None, shown: str | None = None) -> str:
    """Read a UTF-8 file.

    Args:
        path: The file; a byte order mark is skipped.
        most_bytes: Largest size that is read.
        shown: Name of the file in messages; by default its path.

    Raises:
        ConfigError: The file is missing, no regular file, too large, unreadable, or not UTF-8 (the message names
            the line and the byte).
    """
    name = shown or str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{name}: is a folder, a file is needed")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could go on for ever
            raise ConfigError(f"{name}: is a pipe or a device, a file is needed")
        if most_bytes is not None and status.st_size > most_bytes:
            raise ConfigError(
                f"{name}: has {status.st_size:,} bytes, at most {most_bytes:,} are read; split or shorten it"
            )
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file; create it or correct the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{name}:{line}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); check the path, its owner and mode") from None
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{name}: cannot be read ({error}); correct the path") from None


def read_json(path: Path) -> Any:
    """Read a JSON file; NaN, infinities, duplicate keys and halves of characters are refused.

    Raises:
        ConfigError: The file is missing, not UTF-8 or not JSON (the message names the line).
    """
    return _json(read_text(path), str(path), None)


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read JSON Lines, blank lines skipped.

    Returns:
        Pairs of line number (from 1) and object.

    Raises:
        ConfigError: The file is missing, empty, not UTF-8, or a line is not a JSON object (the message names it).
    """
    rows = list(each_line(path))
    for _, row in rows:
        if isinstance(row, ConfigError):
            raise row
    return [(number, row) for number, row in rows if isinstance(row, dict)]


def each_line(path: Path, *, shown: str | None = None) -> Iterator[tuple[int, dict[str, Any] | ConfigError]]:
    """Read JSON Lines, blank lines skipped, going on after a broken line.

    Args:
        path: The file.
        shown: Name of the file in messages; by default its path.

    Yields:
        Line number (from 1) and the object, or the error that says what is wrong with the line.

    Raises:
        ConfigError: The file is missing, empty, not UTF-8, or Git LFS's pointer to the rows.
    """
    name = shown or str(path)
    is_empty, text = True, read_text(path, shown=name)
    if text.startswith(LFS):
        raise ConfigError(
            f"{name}: is Git LFS's pointer to the data, not the data; install git-lfs, then `git lfs pull`"
        )
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        is_empty = False
        try:
            row = _json(line, name, number)
        except ConfigError as error:
            yield number, error
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, ConfigError(f"{name}:{number}: a JSON object is needed, found {type(row).__name__}")
    if is_empty:
        raise ConfigError(f"{name}: is empty; at least one row is needed")


def _json(text: str, name: str, number: int | None) -> Any:
    """Parse JSON; `number` is the line of a JSON Lines file that `text` is, or None for a whole file."""
    place = name if number is None else f"{name}:{number}"
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_without_twins)
        if "\\u" in text:  # only an escape can leave half of a character, which no later file could hold
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        hint = "" if number is None else "; is the line cut off?"
        line = f"{name}:{error.lineno}" if number is None else place
        raise ConfigError(f"{line}: not valid JSON ({error.msg}, column {error.colno}){hint}") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{place}: a \\uD800-\\uDFFF escape stands alone; write the character itself") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not valid JSON ({error})") from None
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"key {next(name for name in names if names.count(name) > 1)[:60]!r} stands in one object twice"
        )
    return value


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def sha256(path: Path) -> str:
    """Return a file's SHA-256 (hex), read in pieces."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


class Occupied(ConfigError):
    """Another process holds a lock; `holder` names it for people."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"another `{name}` ({holder}) runs in this folder; wait for it or use another clone")
        self.holder = holder


@contextlib.contextmanager
def only_one(name: str, *, root: Path = Path()) -> Iterator[None]:
    """Hold the lock `name` of this folder; it is released when the process ends, however it ends.

    Raises:
        Occupied: Another process holds it.
    """
    path = root / ".gatehouse" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read(40).strip() or "unknown"
            raise Occupied(name, f"process {holder}") from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
