"""What time it is, given from outside, so that a release can be told again to the second."""

from __future__ import annotations

import datetime
import time
from typing import Protocol

LONGEST_NAP_S = 5.0


class Clock(Protocol):
    """Where every time of a release comes from."""

    def now(self) -> float:
        """Return the seconds since 1970 (UTC)."""

    def wait_until(self, moment: float) -> None:
        """Return at `moment` (seconds since 1970) or later."""


class SystemClock:
    """This machine's clock."""

    def now(self) -> float:
        """Return the seconds since 1970 (UTC)."""
        return time.time()

    def wait_until(self, moment: float) -> None:
        """Sleep in short naps, so that a clock that is put right is noticed."""
        while (left := moment - time.time()) > 0:
            time.sleep(min(left, LONGEST_NAP_S))


def written(moment: float) -> str:
    """Return a moment (seconds since 1970) as files hold it: 2026-11-21T15:20:00Z."""
    return datetime.datetime.fromtimestamp(int(moment), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(text: str) -> float:
    """Return the moment that `written` wrote, seconds since 1970; 0 for empty text."""
    if not text:
        return 0.0
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC).timestamp()


def next_on_grid(since: str, now: float, every_s: float) -> float:
    """Return the next moment that is a whole number of intervals after `since`: the same one, whoever asks when."""
    start = read(since)
    passed = max(0.0, now - start)
    return start + (int(passed / every_s + 1e-9) + 1) * every_s
