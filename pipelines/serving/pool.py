"""Open connections to one address, kept for the next request."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from pipelines.serving.connections import Broken, Connection, Timeouts

IDLE_S = 4.0
"""uvicorn closes idle connections after 5 s: ours end earlier, so that hardly any request meets a closing one."""

PARTS = 8
"""In which the time for a connection is waited: while our own loop is too busy to look, one part passes, not all."""


class Pool:
    """Open connections to one address.

    Args:
        url: Scheme, host and port are taken from it.
        timeouts: For every request.
        most_bytes: Largest body.
        tls: Whose certificates are trusted, where not the machine's are.
    """

    def __init__(self, url: str, timeouts: Timeouts, most_bytes: int, *, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._timeouts = timeouts
        self._most_bytes = most_bytes
        self._idle: list[Connection] = []
        self._is_closed = False

    async def take(self, *, fresh: bool = False) -> Connection:
        """Return a connection that is idle, or a new one.

        Raises:
            Broken: There is none to be had (`connect`).
        """
        loop = asyncio.get_running_loop()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.is_open and loop.time() - connection.idle_since < IDLE_S:
                connection.is_reused = True
                return connection
            connection.abort()
        return await self._connect(loop)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        connecting = loop.create_task(
            loop.create_connection(
                lambda: Connection(loop, self._timeouts, self._most_bytes), self._host, self._port, ssl=self._tls
            )
        )
        try:
            for _ in range(PARTS):
                if (await asyncio.wait([connecting], timeout=self._timeouts.connect / PARTS))[0]:
                    return connecting.result()[1]
        except (OSError, ssl.SSLError):
            raise Broken("connect", "cannot be connected to") from None
        except asyncio.CancelledError:
            _abandon(connecting)
            raise
        _abandon(connecting)
        raise Broken("connect", "did not accept a connection in time")

    def give(self, connection: Connection) -> None:
        """Take a connection back; one whose answer was not read to its end is closed."""
        if connection.is_open and connection.is_done and not self._is_closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close what is idle, and what comes back."""
        self._is_closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()


def _abandon(connecting: asyncio.Task[tuple[asyncio.Transport, Connection]]) -> None:
    """End an attempt to connect; a connection that came all the same is closed."""

    def close(ended: asyncio.Task[tuple[asyncio.Transport, Connection]]) -> None:
        if not ended.cancelled() and ended.exception() is None:
            ended.result()[1].abort()

    connecting.cancel()
    connecting.add_done_callback(close)
