"""A proxy in front of a model process that fails on request: how a release takes a bad candidate back is shown with it.

Run as a process of its own: `python -m pipelines.release.local.fault --kind errors --upstream PORT --port PORT`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KINDS = ("none", "latency", "errors", "quality", "crash")
FAILING = (2, 5, 8)
"""Of every ten requests, counted from 0, these are answered 500."""
CRASH_AFTER = 12
TIMEOUT_S = 120.0


class Fault(ThreadingHTTPServer):
    """Passes requests on, but for its fault.

    Args:
        arguments: As the command line says them.
    """

    daemon_threads = True

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.numbers = itertools.count()
        self.turn = threading.Lock()
        super().__init__(("127.0.0.1", arguments.port), Handler)

    def crash(self) -> None:
        """Kill the model's process, and leave as it does: nobody listens any more."""
        with contextlib.suppress(OSError):
            self.arguments.marker.write_text("crashed\n", encoding="utf-8")  # so that nobody starts it again
        with contextlib.suppress(OSError):
            os.kill(self.arguments.victim, signal.SIGKILL)
        os._exit(1)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Fault

    def do_GET(self) -> None:
        """Pass on what asks for the process's health."""
        self._pass_on(None, None)

    def do_POST(self) -> None:
        """Answer a question, well or badly."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.turn:
            number = next(self.server.numbers)
        kind = self.server.arguments.kind
        if kind == "errors" and number % 10 in FAILING:
            self._say(500, json.dumps({"error": {"message": "injected fault", "type": "server_error"}}).encode())
            return
        if kind == "crash" and number >= CRASH_AFTER:
            self.server.crash()
        if kind == "latency":
            time.sleep(self.server.arguments.delay_ms / 1000)
        self._pass_on(body, kind)

    def _pass_on(self, body: bytes | None, kind: str | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.arguments.upstream, timeout=TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("GET" if body is None else "POST", self.path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        finally:
            connection.close()
        if kind == "quality" and response.status == 200:
            data = spoiled(data)
        self._say(response.status, data)

    def _say(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the gateway has the log."""


def spoiled(data: bytes) -> bytes:
    """Return a chat's answer with its text cut in half, so that JSON is none any more."""
    value = json.loads(data)
    for choice in value.get("choices", []):
        message = choice.get("message") or {}
        if isinstance(message.get("content"), str):
            message["content"] = message["content"].strip()[: max(1, len(message["content"].strip()) // 2)]
    return json.dumps(value).encode()


def main() -> None:
    """Listen until killed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.release.local.fault", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--upstream", type=int, required=True, help="port of the model's process")
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to each answer by `latency`")
    parser.add_argument("--victim", type=int, default=0, help="process that `crash` kills")
    parser.add_argument("--marker", type=Path, default=Path(os.devnull), help="file that says it has crashed")
    Fault(parser.parse_args()).serve_forever()


if __name__ == "__main__":
    main()
