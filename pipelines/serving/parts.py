"""The parts that a gateway is put together from, as it sees them; absent.py has one of each that does nothing.

Order of a request: size and time limits -> key and project -> route, user, variant (counted) -> budget -> guardrails
in -> exact, then semantic cache -> one flight per equal question -> tier -> upstream (breaker, retries, fallbacks) ->
guardrails out -> cache -> ledger's spool -> last byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pipelines.serving.exchange import Action, Decision, Exchange
from pipelines.serving.splitting import Splitting

Body = dict[str, Any]
"""A parsed JSON object: a request, or an answer in OpenAI's format."""


class Answer(NamedTuple):
    """A whole answer, as the upstream gave it (or as a guardrail left it).

    Attributes:
        value: Parsed JSON. Nobody changes it in place: caches and flights share it.
        content: The same as bytes; what is sent to a client that did not ask for a stream.
        model, upstream: Who gave it; the model as it is priced.
        prompt_tokens, completion_tokens: As counted or estimated.
        decisions: Of guardrails about it, for whom else it is given to.
    """

    value: Body
    content: bytes
    model: str
    upstream: str
    prompt_tokens: int
    completion_tokens: int
    decisions: tuple[Decision, ...] = ()


class Question(NamedTuple):
    """A request as caches see it.

    Attributes:
        key: Digest of all that decides the answer: endpoint, scope, identity, and the body less what is of delivery.
        route: Name of the route.
        scope: Project or user whose answers these are; never shared beyond it.
        identity: Model digest, prompt digest and rendering of the variant or tier that would answer.
        endpoint: `chat`, `completions`, `embeddings` or `predict`.
        body: The request after guardrails in.
    """

    key: bytes
    route: str
    scope: str
    identity: str
    endpoint: str
    body: Body


class Caches(Protocol):
    """Exact, then semantic cache (memory, then Redis). Only whole answers come here, no guarded ones, no errors."""

    def question(self, exchange: Exchange, identity: str, body: Body) -> Question | None:
        """Return the question, or None if this request must neither be answered from a cache nor share a call."""

    async def get(self, exchange: Exchange, question: Question) -> Answer | None:
        """Return a remembered answer and set `exchange.cache` to its level, or to `miss`. Never raises."""

    def put(self, question: Question, answer: Answer) -> None:
        """Remember an answer, at once in memory; what takes time happens beside the request. Never raises."""

    async def close(self) -> None:
        """Give up connections."""


class Flight(Protocol):
    """One call to an upstream that several equal requests wait for."""

    is_scattered: bool  # there is no answer that could be shared: each follower asks by itself

    @property
    def n_followers(self) -> int:
        """How many wait."""

    def leave(self, cancel: Callable[[], object]) -> None:
        """Tell that the leader's client left: `cancel` ends the call when the last follower leaves too."""

    def land(self, answer: Answer | None, *, scatters: bool = False) -> None:
        """End the flight (leader, exactly once); None calls a next leader, or scatters the followers."""

    async def wait(self) -> Answer | None:
        """Wait for the leader's answer (follower); a follower that is cancelled leaves the others in peace."""


class Flights(Protocol):
    """The calls under way, by question."""

    def join(self, key: bytes) -> tuple[Flight, bool]:
        """Return the flight of this question and whether the caller leads it (and must then land it)."""


class Inspection(NamedTuple):
    """What a guardrail says.

    Attributes:
        action: `pass` and `flag` leave everything as it is; `redact` replaces it by `value`; `block` ends the request
            with the route's refusal text; `retry` (answers only) asks the model once more, at most once per request.
        value: The replacement, a new object, for `redact`.
        rule: Name of the rule that decided.
    """

    action: Action
    value: Body | None = None
    rule: str = ""


PASS = Inspection("pass")


class Blocked(Exception):
    """Raised by a `StreamGuard` when the answer must not go on; the message is the rule's name."""


class StreamGuard(Protocol):
    """Inspects the text of one choice of a streamed answer, piece by piece. Both raise `Blocked`."""

    def feed(self, text: str) -> str:
        """Take the next piece; return what may leave now: what could still become a forbidden pattern is held back."""

    def close(self) -> str:
        """Return what was held back and turned out to be harmless."""


class Guard(Protocol):
    """The guardrails of one route. They note their own decisions with `exchange.decide`.

    Attributes:
        needs_whole_answer: Streams must be collected first (JSON Schema, a remote guard model).
        has_out: There are rules for answers at all.
        refusal: What a blocked request is answered with.
    """

    needs_whole_answer: bool
    has_out: bool
    refusal: str

    async def inspect_in(self, exchange: Exchange, body: Body) -> Inspection:
        """Inspect a request; never changes `body` in place."""

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer to the request `body`; never changes `answer` in place."""

    def open_stream(self, exchange: Exchange) -> StreamGuard:
        """Return what inspects one choice of a streamed answer."""


class Guards(Protocol):
    """Guardrails by route."""

    def of(self, route: str) -> Guard | None:
        """Return the guardrails of a route, or None if it has none."""


class Rated(NamedTuple):
    """What a rating was given to; one that only repeats what stood there is not new, and not counted again."""

    route: str
    variant: str
    is_new: bool = True


class Ledger(Protocol):
    """One row per request, exactly once."""

    @property
    def is_accepting(self) -> bool:
        """False while rows cannot be written (disk full): new requests are refused (503) before they cost anything."""

    def book(self, exchange: Exchange) -> None:
        """Append the row to the local spool before the last byte leaves: a SIGKILL loses nothing. Never raises."""

    async def rate(self, request_id: str, project: str, rating: int) -> Rated | None:
        """Add a rating (1-5; thumbs are 1 and 5) to a request of this project; None if there is no such request.

        Raises:
            Refused: Nobody can say now, or it cannot be written.
        """

    async def start(self) -> None:
        """Open spool and database, replay what was left."""

    async def close(self) -> None:
        """Write out what is on the spool, as far as the database takes it."""


class OverBudget(NamedTuple):
    """Why a project may not spend now: too much is spent (429), or how much is not known yet (503)."""

    message: str
    retry_after_s: int
    is_unknown: bool = False


class Budgets(Protocol):
    """What projects may still spend; from memory, filled from the ledger at the start."""

    def check(self, project: str) -> OverBudget | None:
        """Return why a project may not spend now, or None."""

    def spend(self, exchange: Exchange) -> None:
        """Count what a finished request cost."""


class Metrics(Protocol):
    """Counters for Prometheus. All are plain increments in memory."""

    def assigned(self, route: str, variant: str) -> None:
        """Count a user's request at the door, before anything can fail on one side only."""

    def active(self, change: int) -> None:
        """Add to the number of requests under way."""

    def attempted(self, upstream: str, outcome: str) -> None:
        """Count one attempt: `ok`, `refused`, `error`, `timeout`, `garbage`, `connect`, `busy`, `open` or `gone`."""

    def health(self, upstream: str, state: str) -> None:
        """Note the breaker's state: `closed`, `half_open`, `open`."""

    def observe(self, exchange: Exchange) -> None:
        """Count a finished request."""

    def rated(self, rated: Rated, rating: int) -> None:
        """Count a rating."""

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""


@dataclass
class Parts:
    """What a gateway is put together from; a reload keeps what holds state."""

    ledger: Ledger
    budgets: Budgets
    metrics: Metrics
    guards: Guards
    caches: Caches
    flights: Flights
    splitting: Splitting | None = None
