"""What a process said last: kept in memory while it runs, made safe, shown when it dies."""

from __future__ import annotations

import asyncio
import re
from collections import deque

from pipelines.core.errors import one_line

MOST_LINES = 12
MOST_CHARACTERS = 300
PIECE_BYTES = 4096
END_OF_LINE = re.compile(rb"[\r\n]+")
PATIENCE_S = 1.0
"""A child of the process may hold the pipe open after its end."""


class LastWords:
    """Reads what a process writes to its standard error, and forgets all but the last lines.

    Args:
        stream: The process's standard error.
    """

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._rest = b""
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def said(self) -> list[str]:
        """Return the last lines, one string each, once the process has ended."""
        await asyncio.wait([self._task], timeout=PATIENCE_S)
        self._task.cancel()
        self._take(self._rest)
        self._rest = b""
        return list(self._lines)

    async def _read(self) -> None:
        while piece := await self._stream.read(PIECE_BYTES):
            *lines, rest = END_OF_LINE.split(self._rest + piece)
            for line in lines:
                self._take(line)
            self._rest = rest[:PIECE_BYTES]  # a line without end is as good as its beginning

    def _take(self, line: bytes) -> None:
        text = one_line(line.decode("utf-8", "replace"), MOST_CHARACTERS).strip()
        if text:
            self._lines.append(text)
