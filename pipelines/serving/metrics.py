"""What the gateway counts for Prometheus: increments in memory, written out when it is asked. Names no user."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pipelines.serving.config import Serving
from pipelines.serving.exchange import Exchange
from pipelines.serving.exposition import Exposition, Histogram
from pipelines.serving.parts import Rated

HEALTH = {"open": 0.0, "half_open": 0.5, "closed": 1.0}
RATINGS = (1, 2, 3, 4, 5)
More = Callable[[Exposition], None]


class Side:
    """What was counted of one route and variant.

    Attributes:
        n_assigned: Requests dealt to it at the door.
        statuses: Finished requests by status.
        duration: Start to last byte of answered requests, in seconds.
        ttft: Start to first content byte of answered streams, in seconds.
        ratings: By level, 1 to 5.
    """

    __slots__ = ("duration", "n_assigned", "ratings", "statuses", "ttft")

    def __init__(self, duration_bounds: tuple[float, ...], ttft_bounds: tuple[float, ...]) -> None:
        self.n_assigned = 0
        self.statuses = {200: 0}
        self.duration = Histogram(duration_bounds)
        self.ttft = Histogram(ttft_bounds)
        self.ratings = dict.fromkeys(RATINGS, 0)


class Payer(NamedTuple):
    """Who paid for what."""

    project: str
    route: str
    model: str


class GatewayMetrics:
    """Counters of one process; they go on over a reload.

    Args:
        serving: The declared file.
    """

    def __init__(self, serving: Serving) -> None:
        self._n_active = 0
        self._sides: dict[tuple[str, str], Side] = {}
        self._spent: dict[Payer, list[float]] = {}  # prompt tokens, completion tokens, USD
        self._cached: dict[tuple[str, str], int] = {}
        self._decided: dict[tuple[str, str, str, str], int] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._health: dict[str, str] = {}
        self._more: tuple[More, ...] = ()
        self.declare(serving)

    def declare(self, serving: Serving, *more: More) -> None:
        """Take over a declared file: its bounds, and zeros for each route and variant.

        A rate can then be computed from the first event on. Other bounds than before begin new histograms, as a
        restart would.

        Args:
            serving: The declared file.
            more: Add families of other parts when metrics are written out.
        """
        self._bounds = serving.metrics.latency_bounds_s, serving.metrics.ttft_bounds_s
        for side in self._sides.values():
            if (side.duration.bounds, side.ttft.bounds) != self._bounds:
                side.duration, side.ttft = map(Histogram, self._bounds)
        for name, route in serving.routes.items():
            for variant in route.variants or ("",):
                self._side(name, variant)
        self._health = {name: state for name, state in self._health.items() if name in serving.upstreams}
        self._more = more

    def side(self, route: str, variant: str) -> Side | None:
        """Return what was counted of a route and variant: what a verdict on a release is made from."""
        return self._sides.get((route, variant))

    # --- counted while requests are answered

    def assigned(self, route: str, variant: str) -> None:
        """Count a request at the door."""
        (self._sides.get((route, variant)) or self._side(route, variant)).n_assigned += 1

    def active(self, change: int) -> None:
        """Add to the requests under way."""
        self._n_active += change

    def attempted(self, upstream: str, outcome: str) -> None:
        """Count one attempt."""
        key = (upstream, outcome)
        self._attempts[key] = self._attempts.get(key, 0) + 1

    def health(self, upstream: str, state: str) -> None:
        """Note the state of a breaker."""
        self._health[upstream] = state

    def observe(self, exchange: Exchange) -> None:
        """Count a finished request."""
        route = exchange.route
        side = self._sides.get((route, exchange.variant)) or self._side(route, exchange.variant)
        status = exchange.status
        side.statuses[status] = side.statuses.get(status, 0) + 1
        if status == 200:
            side.duration.observe(exchange.latency_ms * 0.001)
            if exchange.ttft_ms is not None:
                side.ttft.observe(exchange.ttft_ms * 0.001)
        if exchange.n_attempts:
            payer = (exchange.project, route, exchange.model)
            spent = self._spent.get(payer)  # type: ignore[call-overload]
            if spent is None:
                spent = self._spent[Payer(*payer)] = [0, 0, 0.0]
            spent[0] += exchange.prompt_tokens
            spent[1] += exchange.completion_tokens
            spent[2] += exchange.usd
        if exchange.cache != "off":
            level = (route, exchange.cache)
            self._cached[level] = self._cached.get(level, 0) + 1
        for direction, rule, action in exchange.decisions:
            decided = (route, direction, rule, action)
            self._decided[decided] = self._decided.get(decided, 0) + 1

    def rated(self, rated: Rated, rating: int) -> None:
        """Count a rating."""
        side = self._sides.get((rated.route, rated.variant)) or self._side(rated.route, rated.variant)
        side.ratings[rating] += 1

    def _side(self, route: str, variant: str) -> Side:
        return self._sides.setdefault((route, variant), Side(*self._bounds))

    # --- written out

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        out = Exposition()
        self._render_sides(out)
        self._render_rest(out)
        for more in self._more:
            more(out)
        return out.text()

    def _render_sides(self, out: Exposition) -> None:
        sides = [({"route": route, "variant": variant}, side) for (route, variant), side in self._sides.items()]
        name = "gatehouse_requests_total"
        out.family(name, "counter", "Finished requests; 499 is a client that left before the end.")
        for labels, side in sides:
            for status, count in side.statuses.items():
                out.sample(name, {**labels, "status": str(status)}, count)
        name = "gatehouse_assigned_total"
        out.family(name, "counter", "Requests dealt to a variant at the door, before anything could fail.")
        for labels, side in sides:
            out.sample(name, labels, side.n_assigned)
        name = "gatehouse_request_duration_seconds"
        out.family(name, "histogram", "Start to last byte of requests that were answered (status 200).")
        for labels, side in sides:
            out.histogram(name, labels, side.duration)
        name = "gatehouse_time_to_first_token_seconds"
        out.family(name, "histogram", "Start to first content byte of streams that were answered (status 200).")
        for labels, side in sides:
            out.histogram(name, labels, side.ttft)
        name = "gatehouse_ratings_total"
        out.family(name, "counter", "Ratings by level, 1 to 5; one that a user changes is counted again.")
        for labels, side in sides:
            for rating, count in side.ratings.items():
                out.sample(name, {**labels, "rating": str(rating)}, count)

    def _render_rest(self, out: Exposition) -> None:
        out.single("gatehouse_active_requests", "gauge", "Requests under way.", self._n_active)
        name = "gatehouse_tokens_total"
        out.family(name, "counter", "Tokens paid for, by kind: prompt, completion.")
        for payer, (prompt, completion, _) in self._spent.items():
            out.sample(name, {**payer._asdict(), "kind": "prompt"}, prompt)
            out.sample(name, {**payer._asdict(), "kind": "completion"}, completion)
        name = "gatehouse_cost_usd_total"
        out.family(name, "counter", "What upstreams were paid, in USD.")
        for payer, (_, _, usd) in self._spent.items():
            out.sample(name, payer._asdict(), usd)
        name = "gatehouse_cache_requests_total"
        out.family(name, "counter", "Requests that caches were asked for, by level: exact, semantic, shared, miss.")
        for (route, level), count in self._cached.items():
            out.sample(name, {"route": route, "level": level}, count)
        name = "gatehouse_guardrail_decisions_total"
        out.family(name, "counter", "Decisions of guardrails: flag, redact, retry, block.")
        for (route, direction, rule, action), count in self._decided.items():
            out.sample(name, {"route": route, "direction": direction, "rule": rule, "action": action}, count)
        name = "gatehouse_upstream_attempts_total"
        out.family(name, "counter", "Requests to upstreams by outcome; retries and fallbacks count each.")
        for (upstream, outcome), count in self._attempts.items():
            out.sample(name, {"upstream": upstream, "outcome": outcome}, count)
        name = "gatehouse_upstream_health"
        out.family(name, "gauge", "1: asked; 0.5: one request at a time tries; 0: left alone after failures.")
        for upstream, state in self._health.items():
            out.sample(name, {"upstream": upstream}, HEALTH.get(state, 0.0))
