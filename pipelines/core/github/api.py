"""GitHub's REST API with the standard library: a token that stays at home, bounded retries, errors in one line."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urlencode, urljoin, urlsplit

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.github.replies import Reply, Unreachable, is_rate_limit, problem, wait_s

ATTEMPTS = 8
PATIENCE_S = 300  # for all waits of one call
REDIRECTS = 3
MOST_BYTES = 64 * 1024 * 1024

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_PATH = re.compile(r"/[A-Za-z0-9_.~!$&'()*+,;=:@%/{}-]*")
_log = logging.getLogger(__name__)


class Api:
    """One repository on GitHub, on behalf of one token."""

    def __init__(
        self,
        repository: str,
        token: str,
        *,
        base_url: str | None = None,
        timeout_s: float = 30,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect nothing yet.

        Args:
            repository: `owner/name`; fills `{repository}` in paths.
            token: Never shown and never sent to another host.
            base_url: By default GITHUB_API_URL, then GitHub's public one.
            timeout_s: For one attempt.
            sleep: Waits between attempts.

        Raises:
            ConfigError: A repository, token or URL that cannot be one.
        """
        if not _REPOSITORY.fullmatch(repository):
            raise ConfigError(f"GITHUB_REPOSITORY: {one_line(repository, 100)!r} is not of the form owner/name")
        if not re.fullmatch(r"[!-~]+", token.strip()):
            raise ConfigError("GH_TOKEN: is empty or holds characters that no token has; set it to a token of GitHub")
        url = (base_url or os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
        parts = urlsplit(url)
        is_local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
            raise ConfigError(f"GITHUB_API_URL: {one_line(url, 100)!r} is no https:// URL; a token goes nowhere else")
        self.repository = repository
        self.base_url = url
        self.token = token.strip()
        self._timeout_s = timeout_s
        self.sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    @classmethod
    def from_environment(cls) -> Api:
        """Return the API as a workflow's environment describes it.

        Raises:
            ConfigError: GITHUB_REPOSITORY or the token is missing.
        """
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
        if not token.strip():
            raise ConfigError("GH_TOKEN: is not set; give the step `env: GH_TOKEN: ${{ github.token }}` or a token")
        return cls(os.environ.get("GITHUB_REPOSITORY", ""), token)

    def get(self, path: str, **query: str | int) -> Any:
        """Return the JSON at a path such as `/repos/{repository}/pulls/3`.

        Raises:
            NotFound: There is none, or the token may not see it.
            Refused: GitHub says no.
            Unreachable: GitHub gave no usable answer.
        """
        return self._json("GET", self._url(path, query), None, repeatable=True)

    def pages(self, path: str, **query: str | int) -> Iterator[Any]:
        """Yield every item of a list over all its pages; raises as `get` does."""
        url: str | None = self._url(path, {"per_page": 100} | query)
        while url:
            reply = self._send("GET", url, None, repeatable=True)
            found = reply.json()
            if isinstance(found, dict):  # {"total_count": 2, "workflow_runs": [...]}
                found = next((value for value in found.values() if isinstance(value, list)), None)
            if not isinstance(found, list):
                raise Unreachable(f"GitHub's answer to GET {path} is no list; is GITHUB_API_URL right?")
            yield from found
            url = reply.next_page()
            if url and not self._is_home(url):
                raise Unreachable("GitHub's answer leads to another host for its next page; is GITHUB_API_URL right?")

    def post(self, path: str, body: Any = None, *, repeatable: bool = False) -> Any:
        """Create something; raises as `get` does.

        Args:
            path: As for `get`.
            body: JSON.
            repeatable: Doing it twice does no harm, so it may be sent again when no answer came.
        """
        return self._json("POST", self._url(path), body, repeatable=repeatable)

    def patch(self, path: str, body: Any) -> Any:
        """Change what stands at the path; raises as `get` does."""
        return self._json("PATCH", self._url(path), body, repeatable=True)

    def put(self, path: str, body: Any = None) -> Any:
        """Set what stands at the path; raises as `get` does."""
        return self._json("PUT", self._url(path), body, repeatable=True)

    def delete(self, path: str, body: Any = None) -> Any:
        """Remove what stands at the path; raises as `get` does."""
        return self._json("DELETE", self._url(path), body, repeatable=True)

    def send_file(self, url: str, data: bytes) -> Any:
        """Send bytes to a whole address that was found to be GitHub's own; raises as `get` does."""
        return self._json("POST", url, data, repeatable=False)

    def login(self) -> str:
        """Return whose token it is; an App's, GITHUB_TOKEN too, can only ask the GraphQL API; raises as `get` does."""
        url = f"{self.base_url.removesuffix('/v3')}/graphql"
        answer = self._json("POST", url, {"query": "{ viewer { login } }"}, repeatable=True)
        try:
            return str(answer["data"]["viewer"]["login"])
        except (KeyError, TypeError):
            raise Unreachable("GitHub does not say whose token it is; name the login with --bot") from None

    def may_write(self, user: str) -> bool:
        """Tell whether a user may write to the repository; what others say counts for nothing; raises as `get` does."""
        found = self.get(f"/repos/{{repository}}/collaborators/{segment(user)}/permission")
        return found.get("permission") in ("admin", "maintain", "write")

    def _url(self, path: str, query: Mapping[str, str | int] | None = None) -> str:
        filled = path.replace("{repository}", self.repository)
        if not _PATH.fullmatch(filled) or "/../" in f"{filled}/":
            raise ConfigError(f"{one_line(path, 200)!r} is no path of GitHub's API; quote names with `segment`")
        return f"{self.base_url}{filled}" + (f"?{urlencode(query)}" if query else "")

    def _is_home(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.base_url)[:2]

    def _json(self, method: str, url: str, body: Any, *, repeatable: bool) -> Any:
        return self._send(method, url, body, repeatable=repeatable).json()

    def _send(self, method: str, url: str, body: Any, *, repeatable: bool) -> Reply:
        """Send until there is an answer to go by; a request that may have been carried out only if `repeatable`."""
        what = f"{method} {urlsplit(url).path}"
        waited = 0.0
        for attempt in range(ATTEMPTS):
            wait = min(30.0, 2.0**attempt)
            try:
                reply = self._follow(method, url, body)
            except (OSError, http.client.HTTPException) as error:
                failed: ServiceError = Unreachable(f"GitHub did not answer {what} ({_cause(error)}); run again later")
                is_final = not (repeatable or _never_arrived(error))
            else:
                if reply.status < 300:
                    return reply
                failed = problem(reply, what)
                is_limit = is_rate_limit(reply)
                wait = wait_s(reply, time.time()) if is_limit else wait
                is_final = not is_limit and not (reply.status >= 500 and repeatable)
            if is_final or attempt == ATTEMPTS - 1 or waited + wait > PATIENCE_S:
                raise failed from None
            _log.warning("%s; trying again in %.0f s", str(failed).rpartition("; ")[0], wait)
            self.sleep(wait)
            waited += wait
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, method: str, url: str, body: Any) -> Reply:
        for _ in range(REDIRECTS):
            reply = self._once(method, url, body)
            target = reply.headers.get("Location")
            is_moved = reply.status in (301, 302, 303, 307, 308) and target
            if not is_moved or (method != "GET" and reply.status not in (307, 308)):
                return reply
            onward = urljoin(url, target)
            if urlsplit(onward).scheme != urlsplit(self.base_url).scheme:
                return reply
            if method != "GET" and not self._is_home(onward):  # what we write is for GitHub alone
                return reply
            url = onward
        return reply

    def _once(self, method: str, url: str, body: Any) -> Reply:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28",
                   "User-Agent": "gatehouse"}  # fmt: skip
        is_file = isinstance(body, bytes)
        if self._is_home(url) or is_file:  # where files go, `uploads` has looked at
            headers["Authorization"] = f"Bearer {self.token}"
        data = body if is_file or body is None else json.dumps(body).encode("ascii")
        headers |= {"Content-Type": f"application/{'octet-stream' if is_file else 'json'}"} if data is not None else {}
        # The scheme is https, or http to this machine: __init__ and _follow hold that.
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return _reply(answer.status, answer.headers, answer)
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error.headers, error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The standard handler would carry the token to whatever host an answer names."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


def segment(name: str) -> str:
    """Quote a name that a person chose (a branch, a label, a user) as one part of a path."""
    quoted = urllib.parse.quote(name.encode("utf-8", "replace"), safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def _reply(status: int, headers: Message, stream: IO[bytes]) -> Reply:
    body = stream.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise ServiceError(f"GitHub's answer has more than {MOST_BYTES:,} bytes; is GITHUB_API_URL right?")
    length = headers.get("Content-Length") or ""
    if length.isascii() and length.isdecimal() and len(body) < int(length):  # reading up to a size does not tell
        raise http.client.IncompleteRead(body, int(length) - len(body))
    return Reply(status, headers, body)


def _never_arrived(error: Exception) -> bool:
    reason = getattr(error, "reason", error)
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return one_line(str(reason) or type(reason).__name__, 200)
