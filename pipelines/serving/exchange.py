"""Everything that is known of one request, read once at its end by ledger, budgets and metrics."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pipelines.serving.tally import Admitted

CacheLevel = Literal["off", "miss", "exact", "semantic", "shared"]
Action = Literal["pass", "flag", "redact", "retry", "block"]
GONE = 499
"""Status of a request whose client left before the end (nginx's number); never sent, only booked."""

LEFT = "client_gone"
"""Error of a request whose client left before there was an answer."""


class Decision(NamedTuple):
    """What one guardrail decided; holds no content.

    Attributes:
        direction: `in` or `out`.
        rule: Name of the rule as declared.
        action: What was done.
    """

    direction: Literal["in", "out"]
    rule: str
    action: Action


class Exchange:
    """One request and its answer. The gateway finishes each exactly once, however it ends.

    Attributes:
        id: `req_` and 24 hex digits: milliseconds, so that the ledger's index grows at its end, and 48 random bits. The
            answer's header `x-request-id`, and what feedback refers to.
        time_s: Wall clock at the start, seconds since 1970: a label, never subtracted (clocks go backwards).
        endpoint: `chat`, `completions`, `embeddings` or `predict`.
        project: Whose key it came with, or "".
        key: Name of that key, never the key.
        user: As the client names them, or "".
        route: Name of the route, or "" before it is known.
        variant: Name of the variant that the user has, or "" on a route without variants.
        model: Model that answered (or was asked last), as it is priced; "" where none was asked.
        upstream: Upstream that answered (or was asked last).
        prompt_tokens: Of all charged attempts together; of a cached answer, what it once took.
        completion_tokens: Likewise.
        is_estimated: A count or a price was guessed, because the upstream did not say.
        usd: What all attempts cost; 0.0 is only ever set on purpose (nothing was asked, or the cache answered).
        n_attempts: Requests sent to upstreams: retries, fallbacks and larger tiers included.
        is_stream: The client asked for a stream.
        ttft_ms: Start to the first content byte sent to the client, or None.
        latency_ms: Start to the last byte; set when it is finished.
        cache: Which level answered.
        decisions: Every decision of a guardrail but `pass`.
        guardrail: The strongest action among them.
        status: HTTP status that the client got; 499 if it left, 502 or 504 if a stream broke off after its 200.
        error: Code of the error that it got (`budget_exceeded`), or "".
        is_finished: Ledger, budgets and metrics have it.
        admitted: What a rollout counts of it, or None where it is part of none.
    """

    __slots__ = (
        "admitted",
        "cache",
        "completion_tokens",
        "decisions",
        "endpoint",
        "error",
        "guardrail",
        "id",
        "is_estimated",
        "is_finished",
        "is_stream",
        "key",
        "latency_ms",
        "model",
        "n_attempts",
        "project",
        "prompt_tokens",
        "route",
        "started",
        "status",
        "time_s",
        "ttft_ms",
        "upstream",
        "usd",
        "user",
        "variant",
    )

    def __init__(self, endpoint: str) -> None:
        self.time_s = time.time()
        self.id = f"req_{int(self.time_s * 1000):012x}{os.urandom(6).hex()}"
        self.started = time.perf_counter()
        self.endpoint = endpoint
        self.project = self.key = self.user = self.route = self.variant = self.model = self.upstream = ""
        self.prompt_tokens = self.completion_tokens = self.n_attempts = self.status = 0
        self.is_estimated = self.is_stream = self.is_finished = False
        self.usd = 0.0
        self.ttft_ms: float | None = None
        self.latency_ms = 0.0
        self.cache: CacheLevel = "off"
        self.decisions: list[Decision] = []
        self.guardrail: Action = "pass"
        self.error = ""
        self.admitted: Admitted | None = None

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the request began."""
        return (time.perf_counter() - self.started) * 1000.0

    def charge(self, model: str, usd: float, prompt_tokens: int, completion_tokens: int, *, is_estimated: bool) -> None:
        """Add what one attempt took: retries, fallbacks and tiers all count."""
        self.model = model
        self.usd += usd
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.is_estimated = self.is_estimated or is_estimated

    def fail(self, upstream: str) -> None:
        """Note that an upstream failed, whoever answers then."""
        if self.admitted is not None and self.admitted.upstream == upstream:
            self.admitted.has_failed = True

    def reject(self, upstream: str) -> None:
        """Note that an upstream called the request wrong."""
        if self.admitted is not None and self.admitted.upstream == upstream:
            self.admitted.is_rejected = True

    def decide(self, direction: Literal["in", "out"], rule: str, action: Action) -> None:
        """Note a guardrail's decision; the strongest action so far is the request's."""
        if action != "pass":
            self.decisions.append(Decision(direction, rule, action))
            if STRENGTH[action] > STRENGTH[self.guardrail]:
                self.guardrail = action

    def decided_out(self) -> tuple[Decision, ...]:
        """Return what was decided about the answer."""
        return tuple(decision for decision in self.decisions if decision.direction == "out")


STRENGTH: dict[Action, int] = {"pass": 0, "flag": 1, "redact": 2, "retry": 3, "block": 4}
