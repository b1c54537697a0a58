"""HTTP to the processes of this machine: short, with a timeout, and None where nobody answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answered(NamedTuple):
    """A response: its status and its JSON value (None where the body is none)."""

    status: int
    value: Any


def ask(url: str, body: Any = None, *, key: str = "", timeout_s: float = 5.0) -> Answered | None:
    """Ask a process of this machine.

    Args:
        url: With http and a port.
        body: A JSON value to post; None gets.
        key: Sent as the bearer.
        timeout_s: For each wait, seconds.

    Returns:
        What it answered, or None where it did not.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    try:
        return exchange(connection, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers_of(key))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def headers_of(key: str) -> dict[str, str]:
    """Return the headers of a request."""
    return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}


def exchange(connection: http.client.HTTPConnection, path: str, body: Any, headers: Mapping[str, str]) -> Answered:
    """Send one request on a connection and read its answer.

    Raises:
        OSError: The connection broke.
        http.client.HTTPException: What came is no HTTP.
    """
    content = None if body is None else json.dumps(body).encode()
    connection.request("GET" if content is None else "POST", path, content, dict(headers))
    response = connection.getresponse()
    data = response.read()
    try:
        return Answered(response.status, json.loads(data))
    except ValueError:
        return Answered(response.status, None)
