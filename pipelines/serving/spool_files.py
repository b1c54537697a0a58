"""The files of a spool: how records lie in them, and which of them the database has.

A record is a line: CRC-32 in hex, a space, the record. Files are allocated before they are used, so the rest of one is
zeros.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

PIECE_BYTES = 65_536
"""Read at once at least; no record is longer."""
USUAL_BYTES = 512
FULL = 1 << 62
"""Offset behind everything that a file can hold."""
SUFFIX = ".spool"
CANNOT_ALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Position(NamedTuple):
    """A place on the spool: number of the file, byte in it."""

    segment: int
    offset: int


class Piece(NamedTuple):
    """Some records.

    Attributes:
        records: In the order in which they were appended.
        end: Where the next one begins.
        n_damaged: Records passed over because their checksum is wrong: torn by a power cut, or changed.
    """

    records: list[bytes]
    end: Position
    n_damaged: int


def line_of(record: bytes) -> bytes:
    """Return a record as it is written; it must hold no line break."""
    return b"%08x %b\n" % (crc32(record), record)


class SpoolFiles:
    """The folder of a spool."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def numbers(self) -> list[int]:
        """Return the numbers of the files that are there."""
        names = [path.stem for path in self._folder.glob(f"*{SUFFIX}")]
        return sorted(int(name) for name in names if name.isdecimal())

    def create(self, number: int, n_bytes: int) -> int:
        """Allocate a file and return its descriptor.

        Raises:
            OSError: There is no room.
        """
        path = self._path(number)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _allocate(descriptor, n_bytes)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return descriptor

    def delete(self, number: int) -> None:
        """Delete a file."""
        self._path(number).unlink(missing_ok=True)

    def read(self, start: Position, stop: Position, most: int) -> Piece:
        """Return the next records, at most `most`; none only if there are none before `stop`."""
        n_damaged, n_bytes = 0, max(PIECE_BYTES, most * USUAL_BYTES)
        while start < stop:
            left = stop.offset - start.offset if start.segment == stop.segment else n_bytes
            data = self._load(start, min(left, n_bytes))
            cut = data.rfind(b"\n") + 1
            if not cut:  # zeros, or a record that was torn, or the end of the file
                n_damaged += bool(data.strip(b"\0"))
                is_over = len(data) < n_bytes
                start = Position(start.segment + 1, 0) if is_over else start._replace(offset=start.offset + len(data))
                continue
            lines = data[: cut - 1].split(b"\n", most)[:most]
            records = [record for record in map(_checked, lines) if record]
            n_damaged += len(lines) - len(records)
            start = start._replace(offset=start.offset + sum(map(len, lines)) + len(lines))
            if records:
                return Piece(records, start, n_damaged)
        return Piece([], max(start, stop) if stop.offset < FULL else start, n_damaged)

    def saved(self) -> Position:
        """Return what was saved; where that is lost, everything that is there is read again, and booked once."""
        first = Position(min(self.numbers(), default=0), 0)
        try:
            segment, offset = (self._folder / "position").read_text(encoding="ascii").split()
            found = Position(int(segment), int(offset))
        except (OSError, ValueError):
            return first
        return max(found, first) if found.offset >= 0 else first

    def save(self, position: Position) -> None:
        """Note that everything before is booked, and delete the files that are."""
        beside = self._folder / "position.tmp"
        with contextlib.suppress(OSError):  # then records are read again, and booked only once
            beside.write_text(f"{position.segment} {position.offset}\n", encoding="ascii")
            beside.replace(self._folder / "position")
        for number in self.numbers():
            if number < position.segment:
                self.delete(number)

    def sync(self, first: int, last: int) -> None:
        """Force these files to the disk."""
        for number in range(first, last + 1):
            with contextlib.suppress(OSError):
                descriptor = os.open(self._path(number), os.O_RDONLY)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)

    def _load(self, start: Position, n_bytes: int) -> bytes:
        try:
            with self._path(start.segment).open("rb", buffering=0) as stream:
                stream.seek(start.offset)
                return stream.read(n_bytes) or b""
        except FileNotFoundError:
            return b""

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}{SUFFIX}"


def _allocate(descriptor: int, n_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except OSError as error:
        if error.errno not in CANNOT_ALLOCATE:
            raise
        os.ftruncate(descriptor, n_bytes)  # a full disk is then noticed when a record is written


def _checked(line: bytes) -> bytes | None:
    if line[:1] == b"\0":
        line = line.lstrip(b"\0")  # blocks that a power cut kept from the disk
    record = line[9:]
    return record if record and line[:9] == b"%08x " % crc32(record) else None
