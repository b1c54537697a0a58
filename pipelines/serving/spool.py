"""The spool: records on the local disk, in order, from before anybody is told until the database has them.

Two files are allocated ahead of what is written, so that a full disk is noticed while there is still room for all that
is under way. One thread appends (the gateway's loop), another one reads, saves the position and deletes (the ledger's
writer); any may allocate.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.serving.spool_files import FULL, Piece, Position, SpoolFiles, line_of


class Spool:
    """One gateway's spool.

    Args:
        folder: On a local disk; nobody else may use it.
        segment_bytes: Size of one file; half of it is kept free for what is under way when the disk is full.

    Attributes:
        end: Where the next record goes.
        problem: Why the last write or allocation failed, or "".
    """

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder = folder
        self._files = SpoolFiles(folder)
        self._segment_bytes = segment_bytes
        self._last_call = segment_bytes // 2
        self._descriptor = self._lock = -1
        self._ready: tuple[int, int] | None = None  # number and descriptor of the file that comes next
        self._allocating = threading.Lock()
        self._pending: list[bytes] = []
        self.end = Position(0, FULL)
        self.problem = ""

    def open(self) -> Position:
        """Take the spool over, and return from where it has not been booked.

        Raises:
            ConfigError: Another gateway has it.
            ServiceError: The folder cannot be used.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock()
            start = self._files.saved()
            # What a killed process may have torn is never written to again: the first record opens a new file.
            self.end = Position(max([*self._files.numbers(), start.segment]), FULL)
        except OSError as error:
            problem = f"{self._folder}: cannot be used as spool ({error.strerror}); check `ledger.spool`"
            raise ServiceError(problem) from None
        self.prepare()
        return start

    def close(self) -> None:
        """Let go of the files and of the lock; a file that was allocated and not used goes away."""
        if self._ready is not None:
            os.close(self._ready[1])
            self._files.delete(self._ready[0])
            self._ready = None
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def _take_lock(self) -> None:
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"{self._folder}: another gateway (process {holder}) has this spool; give each its own `ledger.spool`"
            ) from None
        with contextlib.suppress(OSError):  # a full disk must not keep a gateway from starting
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    # --- the gateway's loop

    @property
    def has_room(self) -> bool:
        """Tell whether new requests may be taken: there is room for them and for all that are under way."""
        return not self._pending and (self._ready is not None or self.end.offset <= self._last_call)

    def append(self, record: bytes) -> None:
        """Write a record. If that fails it is kept in memory, in order, until `retry` succeeds."""
        line = line_of(record)
        if self._pending or not self._write(line):
            self._pending.append(line)

    def retry(self) -> None:
        """Write what could not be written."""
        while self._pending and self._write(self._pending[0]):
            del self._pending[0]

    @property
    def is_prepared(self) -> bool:
        """Tell whether the file that comes next is allocated."""
        return self._ready is not None

    @property
    def n_pending(self) -> int:
        """How many records are in memory only."""
        return len(self._pending)

    def _write(self, line: bytes) -> bool:
        if self.end.offset + len(line) > self._segment_bytes and not self._turn():
            return False
        segment, offset = self.end
        try:
            if os.pwrite(self._descriptor, line, offset) < len(line):
                self.problem = os.strerror(errno.ENOSPC)
                return False  # the next try writes over what was written of it
        except OSError as error:
            self.problem = error.strerror or "unknown"
            return False
        self.end = Position(segment, offset + len(line))
        return True

    def _turn(self) -> bool:
        """Go on in the next file."""
        if not self.prepare():
            return False
        with self._allocating:
            assert self._ready is not None
            if self._descriptor >= 0:
                os.close(self._descriptor)
            number, self._descriptor = self._ready
            self.end, self._ready = Position(number, 0), None
        return True

    # --- other threads

    def prepare(self) -> bool:
        """Allocate the file that comes next, if there is none; tell whether there is one now."""
        with self._allocating:
            if self._ready is not None:
                return True
            number = self.end.segment + 1
            try:
                self._ready = number, self._files.create(number, self._segment_bytes)
            except OSError as error:
                self.problem = error.strerror or "unknown"
                return False
            self.problem = ""
            return True

    def read(self, start: Position, stop: Position, most: int) -> Piece:
        """Return the next records, at most `most`; none only if there are none before `stop`."""
        return self._files.read(start, stop, most)

    def save(self, position: Position) -> None:
        """Note that everything before is booked, and delete the files that are."""
        self._files.save(position)

    def put_aside(self, record: bytes) -> Path:
        """Keep a record that the database will never take in a file of its own, and return which.

        Raises:
            OSError: It cannot be written.
        """
        path = self._folder / "put-aside.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, record + b"\n")
        finally:
            os.close(descriptor)
        return path

    def sync(self, since: Position) -> Position:
        """Force everything appended since then to the disk, and return up to where."""
        end = self.end
        if since < end and end.offset < FULL:
            self._files.sync(since.segment, end.segment)
        return end
