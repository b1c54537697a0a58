"""Leave an upstream alone that fails again and again; pure but for the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]


class CircuitBreaker:
    """Closed while all is well; open after so many failures in a row; then one request at a time tries.

    Args:
        failures: So many in a row open it.
        open_s: So long nothing is tried.
        clock: Monotonic seconds.
        on_change: Told of every new state.
    """

    def __init__(
        self, failures: int, open_s: float, *, clock: Callable[[], float], on_change: Callable[[State], None]
    ) -> None:
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._n_failures = 0
        self._opened_at = 0.0
        self.state: State = "closed"

    def allows(self) -> bool:
        """Tell whether a request may go now; a True must be followed by `succeed`, `fail` or `withdraw`."""
        if self.state == "closed":
            return True
        if self._clock() - self._opened_at < self._open_s:
            return False
        # A trial that is never reported (its task was killed) must not close the door for ever: after another
        # `open_s` the next one may try.
        self._opened_at = self._clock()
        self._become("half_open")
        return True

    def retry_after_s(self) -> float:
        """Return how long it stays shut, in seconds."""
        return max(0.0, self._open_s - (self._clock() - self._opened_at))

    def succeed(self) -> None:
        """A request was answered (a refusal such as 400 or 429 is an answer)."""
        if self._n_failures:
            self._n_failures = 0
        if self.state != "closed":
            self._become("closed")

    def fail(self) -> None:
        """A request failed: no connection, a timeout, a 5xx, garbage."""
        self._n_failures += 1
        if self.state == "half_open" or self._n_failures >= self._most:
            self._opened_at = self._clock()
            self._become("open")

    def withdraw(self) -> None:
        """A request ended without saying anything about the upstream (its client left): the next one may try."""
        if self.state == "half_open":
            self._opened_at = self._clock() - self._open_s

    def _become(self, state: State) -> None:
        if self.state != state:
            self.state = state
            self._on_change(state)
