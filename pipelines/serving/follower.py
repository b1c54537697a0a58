"""Keeps the split in force what its source says it is: a file, or an HTTPRoute of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pipelines.serving.config import Serving
from pipelines.serving.config_rollout import Weights
from pipelines.serving.logs import Log
from pipelines.serving.route_watch import RouteWatch
from pipelines.serving.split_sources import SplitFile, Taker
from pipelines.serving.splitting import Splitting

FIRST_ANSWER_S = 2.0
"""So long a start waits for the first answer, so that a new replica deals as the others do from its first request."""


class Follower:
    """Follows the declared source.

    Args:
        root: Folder of the repository.
        log: Is told of every other split, and of what is wrong.
    """

    def __init__(self, root: Path, log: Log) -> None:
        self._root = root
        self._log = log
        self._followed: Weights | None = None
        self._task: asyncio.Task[None] | None = None

    async def follow(self, serving: Serving, splitting: Splitting | None) -> None:
        """Follow what a file declares; one that declares the same as before changes nothing."""
        declared = serving.rollout.weights if serving.rollout is not None else None
        if declared == self._followed or splitting is None:
            return
        await self.stop()
        self._followed = declared
        splitting.answered_s = None
        if declared is None:
            splitting.apply(None)
            return
        taker = Taker(splitting, self._log)
        source: SplitFile | RouteWatch
        if declared.file is not None:
            source = SplitFile(self._root / declared.file, taker)
        else:
            assert declared.http_route is not None
            source = RouteWatch(declared.http_route, taker)
        self._task = asyncio.create_task(source.follow())
        self._task.add_done_callback(self._note_end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                await taker.first.wait()

    async def stop(self) -> None:
        """Follow nothing any more; what is in force stays."""
        self._followed = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.event("bug", error=type(error).__name__, where="the source of the weights is followed no more")
