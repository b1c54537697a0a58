"""Equal questions that are asked at once share one call to an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipelines.serving.parts import Answer


class SharedFlight:
    """One call that several equal requests wait for; goes on under the next one's lead where a leader fails.

    Attributes:
        n_followers: Who waits now.
        is_scattered: It ended without an answer that could be shared: who waited asks by itself, all at once.
    """

    def __init__(self, flights: SharedFlights, key: bytes) -> None:
        self._flights = flights
        self._key = key
        self._waiting: dict[asyncio.Future[Answer | None], None] = {}  # in the order in which they came
        self.needs_leader = False
        self.is_scattered = False
        self._cancel: Callable[[], object] | None = None

    @property
    def n_followers(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def leave(self, cancel: Callable[[], object]) -> None:
        """Tell that the leader's client left; `cancel` is called when the last who waits leaves too."""
        self._cancel = cancel

    def land(self, answer: Answer | None, *, scatters: bool = False) -> None:
        """End the call: everybody gets the answer; without one, the first who waits is sent to lead, or all are."""
        self._cancel = None
        if answer is None and not scatters:
            self._call_next()
            return
        self.is_scattered = scatters
        self._flights.forget(self._key)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(answer)
        self._waiting.clear()

    async def wait(self) -> Answer | None:
        """Return the leader's answer, or None where the caller has to lead now (or another did, or all do)."""
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            return await waiting
        except asyncio.CancelledError:
            self._waiting.pop(waiting, None)
            was_called = waiting.done() and not waiting.cancelled() and waiting.result() is None
            if was_called and self.needs_leader:  # it left in the moment in which it was to lead
                self._call_next()
            if not self._waiting and self._cancel is not None:
                self._cancel()
            raise

    def _call_next(self) -> None:
        while self._waiting:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            if not waiting.done():
                self.needs_leader = True
                waiting.set_result(None)
                return
        self._flights.forget(self._key)


class SharedFlights:
    """The calls under way, by question."""

    def __init__(self) -> None:
        self._flights: dict[bytes, SharedFlight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: bytes) -> tuple[SharedFlight, bool]:
        """Return the flight of a question, and whether the caller leads it and must land it, exactly once."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = SharedFlight(self, key)
            return flight, True
        if flight.needs_leader:
            flight.needs_leader = False
            return flight, True
        return flight, False

    def forget(self, key: bytes) -> None:
        """End a flight."""
        self._flights.pop(key, None)
