"""What GitHub's answers mean: which error they are, whether to try again and when."""

from __future__ import annotations

import datetime
import json
import re
from email.message import Message
from typing import Any, NamedTuple

from pipelines.core.errors import ServiceError, one_line

SECONDARY_LIMIT_S = 60  # "wait for at least one minute" where an answer names no time

_NEXT = re.compile(r'<([^<>\s]+)>\s*;[^,<]*\brel="next"')
_CURE = {
    401: "the token is wrong or has expired (GITHUB_TOKEN lives as long as its job, an App's token one hour)",
    403: "give the job or the App the permission it lacks",
    422: "correct what is sent",
}


class NotFound(ServiceError):
    """There is no such thing, or the token may not see it."""


class Refused(ServiceError):
    """GitHub understood and says no; asking again would not help.

    Attributes:
        status: HTTP status, such as 401, 403 or 422.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(ServiceError):
    """No usable answer: whether a request was carried out is not known."""


class Reply(NamedTuple):
    """An answer, whatever its status."""

    status: int
    headers: Message  # finds a name in any case
    body: bytes

    def json(self) -> Any:
        """Return the parsed body, None for an empty one.

        Raises:
            Unreachable: Something between here and GitHub answered in its place.
        """
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Unreachable(
                f"the answer ({self.status}) is not JSON, so it is not GitHub's; is GITHUB_API_URL or a proxy wrong?"
            ) from None

    def next_page(self) -> str | None:
        """Return the URL of the next page, None on the last."""
        found = _NEXT.search(self.headers.get("Link") or "")
        return found.group(1) if found else None


def is_rate_limit(reply: Reply) -> bool:
    """Return whether the request was turned away, unread, for being one too many."""
    if reply.status not in (403, 429):
        return False
    is_used_up = reply.headers.get("x-ratelimit-remaining") == "0"
    return reply.status == 429 or is_used_up or "Retry-After" in reply.headers or "rate limit" in _said(reply).lower()


def wait_s(reply: Reply, now: float) -> float:
    """Return for how many seconds a rate limit asks us to stay away.

    Args:
        reply: One that `is_rate_limit`.
        now: Seconds since 1970.
    """
    after, reset = reply.headers.get("Retry-After") or "", reply.headers.get("x-ratelimit-reset") or ""
    if re.fullmatch("[0-9]{1,9}", after):
        return max(1.0, float(after))
    if reply.headers.get("x-ratelimit-remaining") == "0" and re.fullmatch("[0-9]{1,11}", reset):
        return max(1.0, float(reset) - now + 1)
    return SECONDARY_LIMIT_S


def problem(reply: Reply, what: str) -> ServiceError:
    """Return the error that an answer of 300 or more is.

    Args:
        reply: The answer; its text is untrusted.
        what: Method and path.
    """
    said = one_line(_said(reply), 300)
    if reply.status == 404:
        return NotFound(f"GitHub knows nothing at {what} (404), or the token may not see it; check both")
    if is_rate_limit(reply):
        reset = reply.headers.get("x-ratelimit-reset") or ""
        is_known = reply.headers.get("x-ratelimit-remaining") == "0" and re.fullmatch("[0-9]{1,11}", reset)
        until = f" until {_clock(int(reset))}" if is_known else ""
        return Unreachable(f"GitHub's rate limit is used up{until} ({what}: {said}); run again after that")
    if reply.status < 400:
        return Unreachable(f"GitHub sends {what} elsewhere ({reply.status}); was the repository renamed?")
    if reply.status >= 500 or reply.status == 408:
        return Unreachable(f"GitHub is not able to answer {what} ({reply.status}: {said}); run again later")
    needed = one_line(reply.headers.get("X-Accepted-GitHub-Permissions") or "", 100)
    cure = _CURE.get(reply.status, "correct the request")
    permission = f": one of {needed}" if needed and reply.status == 403 else ""
    return Refused(f"GitHub refuses {what} ({reply.status}: {said}); {cure}{permission}", reply.status)


def _clock(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%H:%M} UTC"


def _said(reply: Reply) -> str:
    """Return GitHub's message with the errors it lists."""
    try:
        found = json.loads(reply.body)
        errors = [one if isinstance(one, str) else str(one.get("message") or one) for one in found.get("errors") or []]
        return ": ".join([str(found.get("message") or "no reason given"), *errors])
    except (ValueError, RecursionError, AttributeError, TypeError):
        return "no reason given"
