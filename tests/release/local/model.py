"""Stands in for `transformers serve`: the same command line, one answer to everything, ready at once."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TEXT = '{"intent": "fault"}'


class Handler(BaseHTTPRequestHandler):
    """`/health` and chat completions; keeps the last Authorization header."""

    protocol_version = "HTTP/1.1"
    text = TEXT
    asked: str | None = None

    def do_GET(self) -> None:
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked = self.headers["Authorization"]
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        self._answer({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def program(folder: Path) -> str:
    """Write an executable that serves like this, and return its path."""
    path = folder / "transformers"
    path.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
    path.chmod(0o755)
    return str(path)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
