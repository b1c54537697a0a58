"""One JSON line per request and event: written in batches, without content, keys or users."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import time
from typing import Any

import orjson

from pipelines.core.errors import one_line
from pipelines.serving.exchange import Exchange

FLUSH_S = 0.2
SHORTEST_PAUSE_S = 0.005
"""Before a full pipe is tried again; doubles up to `FLUSH_S`."""
FINISH_S = 1.0
MOST_WAITING = 10_000
MOST_AT_ONCE = 4096
"""Bytes. A pipe that poll calls writable takes so many (POSIX's PIPE_BUF on Linux) without making the writer wait; the
descriptor itself stays blocking, because it is shared with whatever else writes to standard error."""


class Forward(logging.Handler):
    """Passes what libraries log on as events: their message, never the exception, which may quote content."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.ERROR)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        message = one_line(str(record.msg).partition("\n")[0], 200)
        self._log.event("library_error", logger=record.name, message=message, error=error)


class Log:
    """Writes lines to a file descriptor; never waits for a reader that does not read.

    Args:
        descriptor: Where to; by default standard error.
        requests: Write a line per request as well, not only events.
    """

    def __init__(self, descriptor: int | None = None, *, requests: bool = True) -> None:
        self._descriptor = sys.stderr.fileno() if descriptor is None else descriptor
        self._requests = requests
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._lines: list[bytes] = []
        self._rest = b""  # of the batch that is being written
        self._n_written = 0  # of these
        self._is_cut = False
        self._pause_s = SHORTEST_PAUSE_S
        self._n_lost = 0
        self._timer: asyncio.TimerHandle | None = None

    def take_over(self) -> None:
        """Write what libraries log to this log too, errors only."""
        root = logging.getLogger()
        root.handlers = [Forward(self)]
        root.setLevel(logging.ERROR)

    def request(self, exchange: Exchange) -> None:
        """Note a finished request."""
        if self._requests:
            self._add(
                {
                    "at": exchange.time_s,
                    "event": "request",
                    "id": exchange.id,
                    "endpoint": exchange.endpoint,
                    "project": exchange.project,
                    "key": exchange.key,
                    "route": exchange.route,
                    "variant": exchange.variant,
                    "model": exchange.model,
                    "upstream": exchange.upstream,
                    "attempts": exchange.n_attempts,
                    "stream": exchange.is_stream,
                    "status": exchange.status,
                    "error": exchange.error,
                    "cache": exchange.cache,
                    "guardrail": exchange.guardrail,
                    "rules": [decision.rule for decision in exchange.decisions],
                    "prompt_tokens": exchange.prompt_tokens,
                    "completion_tokens": exchange.completion_tokens,
                    "usd": exchange.usd,
                    "ttft_ms": exchange.ttft_ms,
                    "latency_ms": round(exchange.latency_ms, 3),
                }
            )

    def event(self, name: str, **fields: Any) -> None:
        """Note anything else: a start, a reload, a process that died."""
        self._add({"at": time.time(), "event": name, **fields})

    @property
    def n_waiting(self) -> int:
        """How many lines are not written yet."""
        return len(self._lines) + self._rest.count(b"\n", self._n_written)

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it; the rest is tried again soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()
        if self._rest:
            self._pause_s = min(FLUSH_S, self._pause_s * 2)
            self._wait(self._pause_s)
        else:
            self._pause_s = SHORTEST_PAUSE_S

    def finish(self) -> None:
        """Write what waits, for the last time: a reader that does not read is given `FINISH_S`."""
        ends = time.monotonic() + FINISH_S
        self._write(ends)
        self._write(ends)  # what was lost until now

    def _write(self, ends: float = 0.0) -> None:
        while True:
            if not self._rest:
                self._rest = self._batch()
            if not self._rest:
                return
            wait_s = max(0.0, ends - time.monotonic()) if ends else 0.0
            if not self._poll.poll(wait_s * 1000):
                return
            piece = self._rest[self._n_written : self._n_written + MOST_AT_ONCE]
            try:
                self._n_written += os.write(self._descriptor, piece)
            except OSError:  # a full disk or a closed pipe must not stop the gateway
                self._n_lost += self._rest.count(b"\n", max(1, self._n_written))
                self._is_cut = self._is_cut or self._rest[: self._n_written][-1:] not in (b"", b"\n")
                self._rest, self._n_written = b"", 0
                return
            self._is_cut = False
            if self._n_written == len(self._rest):
                self._rest, self._n_written = b"", 0

    def _batch(self) -> bytes:
        if not self._lines and not self._n_lost:
            return b""
        if self._is_cut:  # in the middle of a line
            self._lines.insert(0, b"\n")
        if self._n_lost:
            self._lines.append(orjson.dumps({"at": time.time(), "event": "log_lines_lost", "n": self._n_lost}) + b"\n")
            self._n_lost = 0
        data, self._lines = b"".join(self._lines), []
        return data

    def _add(self, line: dict[str, Any]) -> None:
        if len(self._lines) >= MOST_WAITING:
            self._n_lost += 1
            return
        self._lines.append(orjson.dumps(line) + b"\n")
        if self._timer is None:
            self._wait(FLUSH_S)

    def _wait(self, wait_s: float) -> None:
        try:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.flush)
        except RuntimeError:  # before the loop runs and after it ended
            self._write()
