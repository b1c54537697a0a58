"""Keeps the split in force what its source says it is: a file, or an HTTPRoute of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pipelines.serving.config import Serving
from pipelines.serving.config_rollout import RolloutSettings
from pipelines.serving.logs import Log
from pipelines.serving.route_watch import RouteWatch
from pipelines.serving.split_sources import SplitFile, Taker
from pipelines.serving.splitting import Splitting

FIRST_ANSWER_S = 2.0
"""So long a start waits for the first answer, so that a new replica deals as the others do from its first request."""
AGAIN_S = 5.0
"""After a bug in what follows a source it begins anew."""
AGE_EVERY_S = 1.0


class Follower:
    """Follows the declared source.

    Args:
        root: Folder of the repository.
        log: Is told of every other split, and of what is wrong.
    """

    def __init__(self, root: Path, log: Log) -> None:
        self._root = root
        self._log = log
        self._followed: RolloutSettings | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, serving: Serving, splitting: Splitting | None) -> None:
        """Follow what a file declares; one that declares the same as before changes nothing."""
        declared = serving.rollout
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
        if declared.weights.file is not None:
            source = SplitFile(self._root / declared.weights.file, taker)
        else:
            assert declared.weights.http_route is not None
            source = RouteWatch(declared.weights.http_route, taker)
        self._tasks = [asyncio.create_task(self._keep(source))]
        if declared.max_age_s is not None:
            self._tasks.append(asyncio.create_task(self._age(splitting, declared.max_age_s)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                await taker.first.wait()

    async def stop(self) -> None:
        """Follow nothing any more; what is in force stays."""
        self._followed = None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep(self, source: SplitFile | RouteWatch) -> None:
        """Follow a source, and begin anew should that ever end."""
        while True:
            try:
                await source.follow()
            except Exception as error:
                self._log.event("bug", error=type(error).__name__, where="the source of the weights is followed anew")
            await asyncio.sleep(AGAIN_S)

    async def _age(self, splitting: Splitting, most_s: float) -> None:
        """Give all traffic to stable while the source has been silent for too long."""
        while True:
            await asyncio.sleep(min(AGE_EVERY_S, most_s / 2))
            if splitting.expire(most_s):
                self._log.event("rollout_weights_expired", max_age_s=most_s)
