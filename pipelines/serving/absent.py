"""Parts that do nothing: what a gateway has where `serving.yaml` declares none, and what tests begin with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Answer, Body, Flight, Guard, OverBudget, Parts, Question, Rated


class NoCaches:
    """Remembers nothing."""

    def question(self, exchange: Exchange, identity: str, body: Body) -> Question | None:
        """Nothing may be remembered."""
        return None

    async def get(self, exchange: Exchange, question: Question) -> Answer | None:
        """Nothing is known."""
        return None

    def put(self, question: Question, answer: Answer) -> None:
        """Forget it."""

    async def close(self) -> None:
        """Nothing is open."""


class NoFlights:
    """Everybody leads a flight of their own."""

    class _Alone:
        n_followers = 0
        is_scattered = False

        def leave(self, cancel: Callable[[], object]) -> None:
            pass

        def land(self, answer: Answer | None, *, scatters: bool = False) -> None:
            pass

        async def wait(self) -> Answer | None:
            return None

    def join(self, key: bytes) -> tuple[Flight, bool]:
        """Lead."""
        return self._Alone(), True


class NoGuards:
    """Lets everything through."""

    def of(self, route: str) -> Guard | None:
        """There are none."""
        return None


class NoLedger:
    """Keeps the last rows in memory, for tests."""

    is_accepting = True

    def __init__(self) -> None:
        self.rows: deque[Exchange] = deque(maxlen=1000)

    def book(self, exchange: Exchange) -> None:
        """Keep the row."""
        self.rows.append(exchange)

    async def rate(self, request_id: str, project: str, rating: int) -> Rated | None:
        """Find the row."""
        found = (row for row in self.rows if row.id == request_id and row.project == project)
        return next((Rated(row.route, row.variant) for row in found), None)

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to write."""


class NoBudgets:
    """Knows no limit."""

    def check(self, project: str) -> OverBudget | None:
        """Never over."""
        return None

    def spend(self, exchange: Exchange) -> None:
        """Count nothing."""


class NoMetrics:
    """Counts nothing."""

    def assigned(self, route: str, variant: str) -> None:
        """Ignore it."""

    def active(self, change: int) -> None:
        """Ignore it."""

    def attempted(self, upstream: str, outcome: str) -> None:
        """Ignore it."""

    def health(self, upstream: str, state: str) -> None:
        """Ignore it."""

    def observe(self, exchange: Exchange) -> None:
        """Ignore it."""

    def rated(self, rated: Rated, rating: int) -> None:
        """Ignore it."""

    def render(self) -> bytes:
        """Nothing was counted."""
        return b""


def no_parts() -> Parts:
    """Return parts that do nothing, of which a test replaces what it is about."""
    return Parts(NoLedger(), NoBudgets(), NoMetrics(), NoGuards(), NoCaches(), NoFlights())
