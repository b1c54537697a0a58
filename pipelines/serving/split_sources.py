"""Where splits come from, and how they are taken: what is wrong is refused, and the one before stays in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.split import Split, read
from pipelines.serving.logs import Log
from pipelines.serving.splitting import Splitting

LOOK_EVERY_S = 0.2


class Taker:
    """Puts into force what a source says.

    Args:
        splitting: Where.
        log: Is told of every change, and once of what is wrong.

    Attributes:
        first: Set when the source has said anything at all.
    """

    def __init__(self, splitting: Splitting, log: Log) -> None:
        self._splitting = splitting
        self._log = log
        self._lost = ""
        self.first = asyncio.Event()

    def take(self, split: Split | None) -> None:
        """Put a split into force; None is that there is none."""
        self.confirm()
        if self._splitting.apply(split):
            found = split or Split(weight=0)
            self._log.event("rollout_split", rollout=found.rollout, stage=found.stage, weight=found.weight)

    def refuse(self, error: ConfigError) -> None:
        """Leave what is in force: the source says something that is no split."""
        self.confirm()
        self._splitting.n_refused += 1
        self._log.event("rollout_split_refused", problem=one_line(str(error)))

    def confirm(self) -> None:
        """Note that the source answers."""
        self._splitting.answered()
        self.first.set()
        if self._lost:
            self._lost = ""
            self._log.event("rollout_weights_found")

    def lose(self, problem: str) -> None:
        """Leave what is in force: the source does not answer."""
        if problem != self._lost:
            self._lost = problem
            self._log.event("rollout_weights_lost", problem=one_line(problem))


class SplitFile:
    """A split document that a release writes.

    Args:
        path: Of the file; it is replaced, never written to.
        taker: Is told what it says.
    """

    def __init__(self, path: Path, taker: Taker) -> None:
        self._path = path
        self._taker = taker

    async def follow(self) -> None:
        """Read the file whenever it is another one; never returns."""
        seen: object = self
        while True:
            mark = self._mark()
            if mark == seen:
                self._taker.confirm()
            else:
                seen = mark
                try:
                    self._taker.take(read(self._path))
                except ConfigError as error:
                    self._taker.refuse(error)
            await asyncio.sleep(LOOK_EVERY_S)

    def _mark(self) -> tuple[int, ...]:
        """Return what changes with the file, at the cost of one system call."""
        try:
            status = self._path.stat()
        except OSError as error:
            return (error.errno or 0,)
        return status.st_mtime_ns, status.st_ino, status.st_size
