"""What it means that an upstream did not answer: for the client, for the upstream's health, and for asking again."""

from __future__ import annotations

from pipelines.serving.connections import Broken, Connection
from pipelines.serving.errors import Refused, busy, invalid, upstream_failed
from pipelines.serving.replies import error_field, error_message, retry_after_s

UNDONE = frozenset({429, 502, 503})
"""Statuses that say that no work was done, so that asking again costs nothing twice."""
CAUSES = {
    "connect": ("connect", "upstream_unreachable", 502),
    "stale": ("error", "upstream_broke_off", 502),
    "reset": ("error", "upstream_broke_off", 502),
    "timeout": ("timeout", "upstream_timeout", 504),
    "garbage": ("garbage", "upstream_garbage", 502),
    "too_large": ("garbage", "upstream_too_large", 502),
}
"""Cause of a broken connection: outcome for the metrics, code and status for the client."""


class Failed(Exception):
    """An upstream did not answer.

    Attributes:
        refused: What the client is told if nobody else answers.
        outcome: For the metrics.
        is_illness: It counts for the circuit breaker.
        is_clients_fault: Nobody else would answer either: the request itself is wrong.
        wait_s: Asking the same upstream again is safe, after so many seconds; None where it is not.
    """

    def __init__(
        self,
        refused: Refused,
        outcome: str,
        *,
        is_illness: bool = False,
        is_clients_fault: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(refused.message)
        self.refused = refused
        self.outcome = outcome
        self.is_illness = is_illness
        self.is_clients_fault = is_clients_fault
        self.wait_s = wait_s


def of_connection(name: str, broken: Broken) -> Failed:
    """Return what a broken connection to upstream `name` means."""
    outcome, code, status = CAUSES[broken.cause]
    refused = upstream_failed(f"upstream {name} {broken}", code, status=status)
    return Failed(refused, outcome, is_illness=True, wait_s=0.0 if broken.cause == "connect" else None)


def of_status(name: str, connection: Connection, key: str) -> Failed:
    """Return what an answer that is no 2xx means.

    Args:
        name: The upstream.
        connection: With the whole answer.
        key: The upstream's key, which it may repeat and the client must not see.
    """
    status, content = connection.status, connection.content()
    wait_s = retry_after_s(connection.headers) or 0.0
    if status == 429:
        return Failed(busy(f"upstream {name}", max(1, round(wait_s))), "refused", wait_s=wait_s)
    if status in (401, 403) or not 400 <= status < 500:
        what = "refuses the gateway's key" if status in (401, 403) else f"answered {status}"
        refused = upstream_failed(f"upstream {name} {what}", "upstream_error")
        return Failed(refused, "error", is_illness=True, wait_s=wait_s if status in UNDONE else None)
    message = error_message(content) or f"upstream {name} answered {status}"
    if key:
        message = message.replace(key, "***")
    param, code = error_field(content, "param"), error_field(content, "code")
    refused = invalid(message, param=param, code=code or "upstream_refused", status=status)
    return Failed(refused, "refused", is_clients_fault=status != 404)
