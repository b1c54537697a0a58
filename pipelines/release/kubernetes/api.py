"""The few requests to the Kubernetes API that a release makes: read, patch, create and delete by name."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.release.kubernetes.access import Access

Resource = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TIMEOUT_S = 15.0
ATTEMPTS = 4
EDITS = 8
AGAIN = (429, 500, 502, 503, 504)
"""What an API server answers while it is overloaded or being replaced."""


class Conflict(Exception):
    """Somebody changed it since it was read: read again and decide again."""


class Api:
    """The API of one cluster; nothing is asked before the first method is called."""

    def __init__(self, access: Callable[[], Access], nap: Callable[[float], None] = time.sleep) -> None:
        """Keep how the API is reached.

        Args:
            access: Says where it is and who asks.
            nap: Waits for some seconds.
        """
        self._find, self._nap = access, nap

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Resource | None:
        """Return a resource, or None where there is none.

        Raises:
            ServiceError: The cluster cannot be reached, or refuses.
        """
        return self._asked("GET", f"{path}?{urlencode(query)}" if query else path)

    def patch(self, path: str, patch: Resource, kind: str = MERGE) -> Resource:
        """Change a resource; where the patch names a resourceVersion, only if nobody else has changed it since.

        Raises:
            Conflict: Somebody else has.
            ServiceError: There is no such resource, or the cluster cannot be reached or refuses.
        """
        found = self._asked("PATCH", path, patch, kind)
        if found is None:
            raise ServiceError(f"{self._shown}: {path}: is not there; does Argo CD apply k8s/overlays to this cluster?")
        return found

    def edit(self, path: str, change: Callable[[Resource], Resource | None]) -> bool:
        """Read a resource, and patch it where there is something to change; a change by others is taken in first.

        Args:
            path: The resource.
            change: Returns a JSON merge patch, or None where all is as it should be. May be called several times.

        Returns:
            Whether there was something to change.

        Raises:
            ServiceError: There is no such resource, others change it all the time, or the cluster refuses.
        """
        for _ in range(EDITS):
            found = self.get(path)
            if found is None:
                raise ServiceError(f"{self._shown}: {path}: is not there; does Argo CD apply k8s/overlays to it?")
            patch = change(found)
            if patch is None:
                return False
            metadata = {**patch.get("metadata", {}), "resourceVersion": found["metadata"]["resourceVersion"]}
            try:
                self.patch(path, {**patch, "metadata": metadata})
            except Conflict:
                self._nap(0.2)
            else:
                return True
        raise ServiceError(f"{self._shown}: {path}: was changed by others {EDITS} times in a row; run again")

    def create(self, path: str, resource: Resource) -> None:
        """Make a resource; one of the same name is left alone.

        Raises:
            ServiceError: The cluster cannot be reached or refuses.
        """
        try:
            self._asked("POST", path, resource, "application/json")
        except Conflict:
            return

    def delete(self, path: str) -> None:
        """Remove a resource, if it is there.

        Raises:
            ServiceError: The cluster cannot be reached or refuses.
        """
        self._asked("DELETE", path)

    @cached_property
    def _access(self) -> Access:
        return self._find()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        found = self._access
        try:
            context = ssl.create_default_context(cadata=found.ca or None)
            if found.certificate:
                with tempfile.TemporaryDirectory() as folder:  # ssl reads a certificate from nowhere but a file
                    both = Path(folder) / "client.pem"
                    both.touch(0o600)
                    both.write_text(f"{found.certificate}\n{found.key}\n", encoding="utf-8")
                    context.load_cert_chain(both)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{self._shown}: its certificate cannot be used ({one_line(str(error), 120)})") from None
        return context

    @property
    def _shown(self) -> str:
        return f"Kubernetes at {one_line(urlsplit(self._access.server).netloc, 80)}"

    def _asked(self, method: str, path: str, body: Resource | None = None, kind: str = "") -> Resource | None:
        """Ask until there is an answer; all that is asked here may be asked again."""
        said = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._nap(0.5 * 2**attempt)
            try:
                status, text = self._once(method, path, body, kind)
            except (OSError, http.client.HTTPException) as error:
                said = one_line(str(error) or type(error).__name__, 120)
                continue
            if status in AGAIN:
                said = f"{status} {_message(text)}"
                continue
            return self._read(status, text, method, path)
        raise ServiceError(f"{self._shown}: does not answer {method} {path} ({said}); run again")

    def _once(self, method: str, path: str, body: Resource | None, kind: str) -> tuple[int, bytes]:
        parts = urlsplit(self._access.server)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
        headers = {"Accept": "application/json", "User-Agent": "gatehouse-release"}
        if token := self._access.bearer():
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = kind
        try:
            connection.request(method, parts.path + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _read(self, status: int, text: bytes, method: str, path: str) -> Resource | None:
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status == http.HTTPStatus.CONFLICT:
            raise Conflict(path)
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            cure = "give the account the role that docs/release-kubernetes.md says, and a token that lives"
            raise ServiceError(f"{self._shown}: {method} {path}: {status} {_message(text)}; {cure}")
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ServiceError(f"{self._shown}: {method} {path}: {status} {_message(text)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ServiceError(f"{self._shown}: {method} {path}: answers no JSON object; is it a Kubernetes API?")
        return value


def _message(text: bytes) -> str:
    """Return what the API says went wrong."""
    try:
        said = json.loads(text).get("message", "")
    except (ValueError, AttributeError):
        said = text.decode(errors="replace")
    return one_line(str(said), 200)
