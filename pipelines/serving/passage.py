"""The way of one request through the gateway: the door, the answer, and the end, which comes exactly once."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from pipelines.serving.answering import Ask, answer_whole, inspect_in, may_be_cached, refusal, rendered
from pipelines.serving.delivery import EVENTS, JSON, Delivery, Send
from pipelines.serving.errors import Refused, busy, invalid, over_budget, unauthorized, unavailable, unknown_model
from pipelines.serving.exchange import GONE, LEFT, Exchange
from pipelines.serving.parts import Answer, Body, Flight
from pipelines.serving.prompting import from_inputs, with_prompt
from pipelines.serving.requests import parse
from pipelines.serving.routing import ReadyRoute, Side
from pipelines.serving.streaming import Relay

if TYPE_CHECKING:
    from pipelines.serving.app import Gateway

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PREDICT = "/v1/predict/"
MOST_USER_CHARACTERS = 256


class Passage:
    """The way of one request through the gateway."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send, endpoint: str) -> None:
        self.gateway = gateway
        self.state = gateway.state
        self.parts = gateway.state.parts
        self.scope = scope
        self.receive = receive
        self.exchange = Exchange(endpoint)
        self.ask: Ask | None = None
        self.flight: Flight | None = None
        self.is_gone = False
        self.delivery = Delivery(self.exchange, send, closes=gateway.is_draining)

    async def run(self) -> None:
        """Answer, whatever happens."""
        line = self.scope.get("gatehouse.line")
        if line is not None:
            task = asyncio.current_task()
            line.on_gone = lambda: self._gone(task)
        self.parts.metrics.active(1)
        try:
            await self._enter()
        except Refused as refused:
            await self._refuse(refused)
        except asyncio.CancelledError:
            await self._cancelled(line)
        except Exception as error:
            # The traceback without its last line, which may quote content.
            frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
            where = "".join(frames)[-2000:]
            self.gateway.log.event("bug", id=self.exchange.id, error=type(error).__name__, where=where)
            await self._refuse(Refused(500, "the gateway failed; please report it", "api_error", "internal_error"))
        finally:
            self.parts.metrics.active(-1)
            if line is not None:
                line.on_gone = None

    # --- the door

    async def _enter(self) -> None:
        state, exchange = self.state, self.exchange
        authorization, length, user = b"", None, b""
        for name, value in self.scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = int(value)
            elif name == b"x-gatehouse-user":
                user = value
        known = state.keys.find(authorization)
        if known is None:
            refused = unauthorized()
            refused.closes = bool(length and length > 65_536)
            raise refused
        exchange.key, exchange.project = known
        content = await state.bodies.read(self.receive, length)
        try:
            await self._admit(content, user)
        finally:
            state.bodies.release(len(content))

    async def _admit(self, content: bytes, user: bytes) -> None:
        state, project = self.state, self.exchange.project
        limit = state.serving.projects[project].max_active
        active = state.project_active
        if limit is not None and active.get(project, 0) >= limit:
            raise busy(f"project {project}", 1)
        active[project] = active.get(project, 0) + 1  # who waits for a place counts too
        try:
            await state.admission.enter()
            try:
                await self._question(parse(content, self.exchange.endpoint), user)
            finally:
                state.admission.leave()
        finally:
            active[project] -= 1

    async def _question(self, body: Body, user: bytes) -> None:
        route, side = self._route(body, user)
        if not self.parts.ledger.is_accepting:
            raise unavailable("the ledger cannot be written; nothing is answered unbooked", "ledger_unavailable")
        if over := self.parts.budgets.check(self.exchange.project):
            raise over_budget(over.message, over.retry_after_s, is_unknown=over.is_unknown)
        await self._converse(self._ask(route, side, body))

    def _route(self, body: Body, user: bytes) -> tuple[ReadyRoute, Side]:
        exchange, state = self.exchange, self.state
        name = self.scope["path"][len(PREDICT) :] if exchange.endpoint == "predict" else body.get("model")
        if not isinstance(name, str):
            raise invalid("`model` must be the name of a route", param="model")
        allowed = state.serving.projects[exchange.project].routes
        route = state.routes.get(name)
        if route is None or (allowed is not None and name not in allowed):
            raise unknown_model(name, [known for known in state.routes if allowed is None or known in allowed])
        named = user.decode("utf-8", "replace") if user else body.get("user")
        if named is not None and not isinstance(named, str):
            raise invalid("`user` must be text", param="user")
        exchange.user, exchange.route = (named or "")[:MOST_USER_CHARACTERS], name
        side = route.side(exchange.project, exchange.user, exchange.id)
        exchange.variant = side.name
        self.parts.metrics.assigned(name, side.name)
        if route.splitting is not None:
            is_pinned = route.is_pinned(exchange.user)
            route.splitting.admit(exchange, side.steps[0].upstream.name, is_pinned=is_pinned)
        return route, side

    def _ask(self, route: ReadyRoute, side: Side, body: Body) -> Ask:
        endpoint = self.exchange.endpoint
        if endpoint == "predict" and not side.is_classic:
            if side.prompt is None:
                raise invalid(f"route {route.name} declares no prompt; use /v1/chat/completions", status=404)
            endpoint, body = "chat", from_inputs(side.prompt, body)
        elif endpoint == "chat" and side.prompt is not None:
            body = with_prompt(side.prompt, body)
        ask = self.ask = Ask(self.exchange, route, side, endpoint, body)
        self.exchange.is_stream = ask.wants_stream
        return ask

    async def _converse(self, ask: Ask) -> None:
        if not await inspect_in(ask):
            await self._deliver(ask, refusal(ask))
            return
        if ask.route.declared.cache is not None:
            ask.question = self.parts.caches.question(self.exchange, ask.side.identity, ask.body)
        if ask.question is None:
            await self._lead(ask)
            return
        answer = await self.parts.caches.get(self.exchange, ask.question)
        while answer is None:
            flight, leads = self.parts.flights.join(ask.question.key)
            if leads:
                self.flight = flight
            elif (answer := await flight.wait()) is not None:
                self.exchange.cache = "shared"
            if leads or flight.is_scattered:
                try:
                    await self._lead(ask)
                finally:
                    self._land(None)
                return
        for decision in answer.decisions:
            self.exchange.decide(*decision)
        self.exchange.model, self.exchange.upstream = answer.model, answer.upstream
        self.exchange.prompt_tokens, self.exchange.completion_tokens = answer.prompt_tokens, answer.completion_tokens
        await self._deliver(ask, answer)

    async def _lead(self, ask: Ask) -> None:
        if ask.wants_stream and ask.is_passed_through:
            await Relay(ask, self.delivery.write, self._book_stream).run()
        else:
            answer = await answer_whole(ask)
            self._land(answer)
            await self._deliver(ask, answer)

    def _land(self, answer: Answer | None, *, scatters: bool = False) -> None:
        """Remember an answer, then give it to who waits for it: who comes in between finds one or the other."""
        ask, flight, self.flight = self.ask, self.flight, None
        if answer is not None and ask is not None and ask.question is not None and may_be_cached(ask, answer):
            self.parts.caches.put(ask.question, answer)
        if flight is not None:
            if answer is not None and self.exchange.decisions:
                answer = answer._replace(decisions=self.exchange.decided_out())
            flight.land(answer, scatters=scatters)

    def _book_stream(self, answer: Answer | None) -> None:
        self._land(answer, scatters=answer is None and not self.exchange.error)
        self._finish()

    async def _deliver(self, ask: Ask, answer: Answer) -> None:
        exchange = self.exchange
        exchange.status = ask.status()
        content = rendered(ask, answer)
        self._finish()
        if not ask.is_gone:
            await self.delivery.answer(EVENTS if ask.wants_stream else JSON, content)

    def _finish(self) -> None:
        exchange = self.exchange
        if exchange.is_finished:
            return
        exchange.is_finished = True
        exchange.latency_ms = exchange.elapsed_ms()
        if exchange.project:  # a stranger's request costs nothing and must not fill the ledger
            self.parts.ledger.book(exchange)
            self.parts.budgets.spend(exchange)
        self.parts.metrics.observe(exchange)
        if exchange.admitted is not None:
            exchange.admitted.tally.finish(exchange)
        self.gateway.log.request(exchange)

    def _gone(self, task: asyncio.Task[None] | None) -> None:
        """The client's connection ended before its answer did."""
        self.is_gone = True
        if self.exchange.is_finished or task is None:
            return
        if self.ask is not None and self.flight is not None and self.flight.n_followers > 0:
            self.ask.is_gone = True  # others wait for what this one asked for
            self.flight.leave(task.cancel)
        else:
            task.cancel()

    async def _cancelled(self, line: Any) -> None:
        if line is not None and line.why == 408:
            refused = invalid("the request did not arrive in time", code="request_timeout", status=408)
            refused.closes = True
            await self._refuse(refused)
            return
        if not self.is_gone and self.gateway.is_draining:
            await self._refuse(unavailable("the gateway is stopping", "draining", retry_after_s=1))
            return
        self.exchange.status, self.exchange.error = GONE, LEFT
        self._finish()

    async def _refuse(self, refused: Refused) -> None:
        exchange = self.exchange
        if not exchange.is_finished:
            exchange.status, exchange.error = refused.status, refused.code
        self._finish()
        await self.delivery.refuse(refused)
