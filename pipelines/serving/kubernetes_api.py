"""Kubernetes' API as a pod sees it: asked over the gateway's own HTTP, with the service account's token."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson

from pipelines.core.errors import ServiceError, one_line
from pipelines.serving.connections import Broken, Connection, Timeouts
from pipelines.serving.pool import Pool

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_S = 30
"""A watch ends after so long and is begun again, so that a connection which died unseen is noticed."""
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=WATCH_S + 10.0, total=WATCH_S + 20.0)
MOST_BYTES = 16_777_216


class Gone(ServiceError):
    """The version asked for is too old: everything has to be read anew."""


class KubernetesApi:
    """The API server, for one conversation: token and certificate are read anew with each, because they are rotated.

    Raises:
        ServiceError: This is no pod, or its account cannot be read.
    """

    def __init__(self) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ServiceError("KUBERNETES_SERVICE_HOST is not set: weights of an HTTPRoute are read in a cluster only")
        self._folder = Path(os.environ.get("GATEHOUSE_SERVICE_ACCOUNT", "") or ACCOUNT)
        self._host = f"[{host}]" if ":" in host else host
        try:
            tls = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        except OSError as error:
            raise ServiceError(f"{self._folder / 'ca.crt'}: cannot be used ({one_line(str(error), 100)})") from None
        self._pool = Pool(f"https://{self._host}:{port}", TIMEOUTS, MOST_BYTES, tls=tls)

    async def read(self, path: str) -> Any:
        """Return the object at a path.

        Raises:
            ServiceError: It was not given.
        """
        connection = await self._get(path, streams=False)
        value = _parsed(connection.content())
        self._pool.give(connection)
        return value

    async def watch(self, path: str) -> AsyncIterator[Any]:
        """Yield the events of a watch as they come, until the server ends it.

        Raises:
            Gone: The version is too old.
            ServiceError: It broke off.
        """
        connection = await self._get(path, streams=True)
        rest = b""
        try:
            while piece := await connection.piece():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _event(_parsed(line))
        except Broken as broken:
            raise ServiceError(f"the API server {broken}") from None
        finally:
            self._pool.give(connection)

    def close(self) -> None:
        """End the conversation."""
        self._pool.close()

    async def _get(self, path: str, *, streams: bool) -> Connection:
        try:
            token = (self._folder / "token").read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ServiceError(f"{self._folder / 'token'}: cannot be read ({one_line(str(error), 100)})") from None
        head = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {token}\r\n"
        try:
            connection = await self._pool.take()
            try:
                await connection.send(f"{head}Accept: application/json\r\n\r\n".encode("ascii"), streams=streams)
            except BaseException:
                self._pool.give(connection)
                raise
        except Broken as broken:
            raise ServiceError(f"the API server {broken}") from None
        if connection.status == 200:
            return connection
        status, said = connection.status, connection.content()
        self._pool.give(connection)
        raise _refusal(status, said)


def _event(event: Any) -> Any:
    """Return an event that is no error."""
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ServiceError("the API server sends events that are none")
    if event.get("type") == "ERROR":
        status = event["object"]
        code = status.get("code")
        raise _refusal(code if isinstance(code, int) else 0, orjson.dumps(status))
    return event


def _refusal(status: int, content: bytes) -> ServiceError:
    try:
        message = one_line(str(orjson.loads(content)["message"]), 200)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = "no reason given"
    return (Gone if status == 410 else ServiceError)(f"the API server answered {status}: {message}")


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ServiceError("the API server does not answer in JSON") from None
