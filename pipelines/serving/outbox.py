"""What a client has not taken yet of a stream that others wait for too: they must not wait for that client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

MOST_BYTES = 4_194_304
"""A client further behind than this is waited for after all: memory has an end."""

Write = Callable[[bytes, bool], Awaitable[None]]


class Outbox:
    """Writes to one client, beside the task that makes the answer.

    Args:
        write: Sends bytes to the client and waits while it takes none; True with the last.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[bytes] = []
        self._n_bytes = 0
        self._is_last = False
        self._has_more = asyncio.Event()
        self._has_room = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def put(self, data: bytes, *, is_last: bool) -> None:
        """Take bytes; return at once, but for the last ones and for a client that is far behind."""
        if self._task.done():
            await self._task  # raises what went wrong
        self._waiting.append(data)
        self._n_bytes += len(data)
        self._is_last = is_last
        self._has_more.set()
        if is_last:
            await self._task
        elif self._n_bytes > MOST_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def stop(self) -> None:
        """Write nothing more."""
        self._task.cancel()

    async def _run(self) -> None:
        is_last = False
        try:
            while not is_last:
                await self._has_more.wait()
                self._has_more.clear()
                data, is_last = b"".join(self._waiting), self._is_last
                self._waiting.clear()
                self._n_bytes = 0
                self._has_room.set()
                await self._write(data, is_last)
        finally:
            self._has_room.set()
