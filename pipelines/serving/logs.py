"""One JSON line per request and event: written in batches, without content, keys or users."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import orjson

from pipelines.core.errors import one_line
from pipelines.serving.exchange import Exchange

FLUSH_S = 0.2
MOST_WAITING = 10_000


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
        self._lines: list[bytes] = []
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

    def flush(self) -> None:
        """Write what waits."""
        self._timer = None
        if self._n_lost:
            self._lines.append(orjson.dumps({"at": time.time(), "event": "log_lines_lost", "n": self._n_lost}) + b"\n")
            self._n_lost = 0
        data, self._lines = b"".join(self._lines), []
        try:
            os.write(self._descriptor, data)
        except OSError:
            self._n_lost += data.count(b"\n")  # a full disk or a closed pipe must not stop the gateway

    def _add(self, line: dict[str, Any]) -> None:
        if len(self._lines) >= MOST_WAITING:
            self._n_lost += 1
            return
        self._lines.append(orjson.dumps(line) + b"\n")
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
            except RuntimeError:  # before the loop runs and after it ended
                self.flush()
