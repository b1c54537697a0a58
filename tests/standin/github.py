"""A stand-in for GitHub's REST API: a real HTTP server that records what is asked and keeps GitHub's own limits.

In a test:

    with GitHub(repository="o/r") as github:
        github.pull(3, head="a" * 40)
        ...                                     # GITHUB_API_URL=github.url, GH_TOKEN=github.token
        assert [call.path for call in github.posts] == ["/repos/o/r/issues/3/comments"]

As a process, with what it knows in a file that is rewritten after every request:

    python -m tests.standin.github --port 0 --state FILE
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.standin.github_answers import Answer
from tests.standin.github_routes import answer
from tests.standin.github_store import Store


@dataclass
class Call:
    """One request and the status it was answered with (0: the connection was cut)."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    login: str | None
    status: int = 0


@dataclass
class Failure:
    """What happens instead of the next `times` fitting requests."""

    status: int
    times: float
    path: str
    method: str | None
    headers: dict[str, str]
    message: str
    is_done: bool


class GitHub(Store):
    """The server and all it knows; see `Store` for pull requests, comments, reviews, statuses and settings."""

    def __init__(self, repository: str = "o/r", *, port: int = 0, state: Path | None = None) -> None:
        super().__init__(repository)
        self.calls: list[Call] = []
        self.failures: list[Failure] = []
        self.before: Callable[[Call], None] | None = None  # runs ahead of each request, outside of the lock
        self._lock = threading.RLock()
        self._state = state
        if state is not None and state.exists() and state.stat().st_size:
            self.load(json.loads(state.read_text(encoding="utf-8")))
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"github": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.save()

    def __enter__(self) -> GitHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        """Answer until the process ends."""
        self._server.serve_forever()

    @property
    def posts(self) -> list[Call]:
        """What was written with success: POST, PATCH, PUT and DELETE."""
        writes = [call for call in self.calls if call.method != "GET" and not call.path.endswith("/graphql")]
        return [call for call in writes if 200 <= call.status < 300]

    @property
    def environment(self) -> dict[str, str]:
        """What a step's environment says of GitHub."""
        return {
            "GITHUB_API_URL": f"{self.url}/api/v3", "GITHUB_SERVER_URL": self.url,
            "GITHUB_REPOSITORY": self.repository, "GH_TOKEN": self.token,
        }  # fmt: skip

    def fail_next(
        self,
        status: int,
        times: float = 1,
        path: str = "",
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        message: str = "no luck",
        is_done: bool = False,
    ) -> None:
        """Answer the next requests with an error.

        Args:
            status: HTTP status; 0 cuts the connection without an answer.
            times: So many requests; `math.inf` for all.
            path: Only requests whose path holds this.
            method: Only this method.
            headers: Further headers.
            message: GitHub's message.
            is_done: The request is carried out all the same: only its answer is lost.
        """
        self.failures.append(Failure(status, times, path, method, headers or {}, message, is_done))

    def limit_next(self, times: float = 1, *, retry_after_s: int = 1, path: str = "") -> None:
        """Turn the next requests away for a secondary rate limit, as GitHub does: 403 with Retry-After."""
        message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        self.fail_next(403, times, path, headers={"Retry-After": str(retry_after_s)}, message=message)

    def handle(self, call: Call, token: str | None) -> Answer | None:
        """Answer one request; None cuts the connection."""
        if self.before:
            self.before(call)
        with self._lock:
            self.calls.append(call)
            failure = self._failure_for(call)
            found = answer(self, call, token) if failure is None or failure.is_done else None
            if failure is not None:
                found = Answer(failure.status, {"message": failure.message}, failure.headers)
            assert found is not None
            call.status = found.status
            self.save()
            return found if found.status else None

    def _failure_for(self, call: Call) -> Failure | None:
        for failure in self.failures:
            if failure.times > 0 and failure.path in call.path and failure.method in (None, call.method):
                failure.times -= 1
                return failure
        return None

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self._state is None:
            return
        shown = self.dump() | {"url": self.url, "calls": [asdict(call) for call in self.calls]}
        beside = self._state.with_name(f"{self._state.name}.new")
        beside.write_text(json.dumps(shown, indent=1), encoding="utf-8")
        beside.replace(self._state)


class _Handler(BaseHTTPRequestHandler):
    github: GitHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/api/v3")  # where an Enterprise server has its API
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            is_file = self.headers.get("Content-Type") == "application/octet-stream"
            body = {"base64": base64.b64encode(raw).decode()} if is_file else json.loads(raw) if raw else None
        except ValueError:
            self._send(Answer(400, {"message": "Problems parsing JSON"}), path, {})
            return
        query = dict(parse_qsl(parts.query))
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        known = token if scheme.lower() in ("bearer", "token") else None
        found = self.github.handle(Call(self.command, path, query, body, self.github.login_of(known)), known)
        if found is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            return
        self._send(found, path, query)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def _send(self, found: Answer, path: str, query: dict[str, str]) -> None:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "x-ratelimit-limit": "1000",
            "x-ratelimit-remaining": "999",
            "x-ratelimit-reset": str(int(time.time()) + 3600),
        }
        value = found.body
        if found.items is not None:
            page, per_page = int(query.get("page", 1)), min(100, max(1, int(query.get("per_page", 30))))
            value = found.items[(page - 1) * per_page : page * per_page]
            last = max(1, math.ceil(len(found.items) / per_page))
            links = [(page - 1, "prev"), (page + 1, "next"), (last, "last"), (1, "first")]
            shown = [
                f'<{self.github.url}{path}?{urlencode(query | {"page": str(at)})}>; rel="{name}"'
                for at, name in links
                if 1 <= at <= last and not (at == page and name in ("last", "first"))
            ]
            if shown:
                headers["Link"] = ", ".join(shown)
            if found.wrapped_as:
                value = {"total_count": len(found.items), found.wrapped_as: value}
        data = b"" if found.status == 204 else json.dumps(value).encode()
        self.send_response(found.status)
        for name, text in (headers | found.headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the calls are recorded."""


@contextlib.contextmanager
def _no_traceback() -> Iterator[None]:
    with contextlib.suppress(KeyboardInterrupt):
        yield


def main() -> None:
    """Serve until killed; the first line printed is the URL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", default="o/r")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path)
    arguments = parser.parse_args()
    github = GitHub(arguments.repository, port=arguments.port, state=arguments.state)
    print(github.url, flush=True)
    with _no_traceback():
        github.serve()


if __name__ == "__main__":
    main()
