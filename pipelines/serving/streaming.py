"""A streamed answer on its way through: each event as it comes, booked before the last one leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import orjson

from pipelines.serving.answering import Ask
from pipelines.serving.connections import Broken, Connection
from pipelines.serving.errors import Refused, upstream_failed
from pipelines.serving.failures import CAUSES, Failed
from pipelines.serving.outbox import Outbox, Write
from pipelines.serving.parts import Answer, Blocked, Body
from pipelines.serving.replies import guess_tokens, usage_of
from pipelines.serving.screen import Screen
from pipelines.serving.streams import DONE, BrokenStream, Collector, EventReader, event, parse_event
from pipelines.serving.upstream import Upstream

MOST_AT_ONCE = 64
"""Events of a burst that are inspected before others have their turn; the first ones leave alone, then 2, 4, ..."""
LINGER_S = 0.2
"""How long the end of a stream may come after its [DONE], for its connection to be used again."""


class Relay:
    """Passes one stream on.

    Args:
        ask: The request.
        write: To the client; the first call sends the answer's head.
        finish: Called exactly once, before the last byte, with the whole answer if there is one.
    """

    def __init__(self, ask: Ask, write: Write, finish: Callable[[Answer | None], None]) -> None:
        self._ask = ask
        self._write = write
        self._finish = finish
        self._has_written = False
        self._is_settled = self._has_said = False
        self._outbox: Outbox | None = None

    async def run(self) -> Answer | None:
        """Pass the stream of the first step on that has one; return the whole answer if it was left as it was.

        Raises:
            Refused: Nobody answered, and nothing has been sent to the client.
        """
        try:
            return await self._relay_first()
        finally:
            if self._outbox is not None:
                self._outbox.stop()

    async def _relay_first(self) -> Answer | None:
        failure: Refused | None = None
        for step in self._ask.steps:
            try:
                return await self._relay(step.upstream)
            except Failed as failed:
                if failed.is_clients_fault:
                    raise failed.refused from None
                failure = failure or failed.refused
        raise failure or upstream_failed("no upstream answered", "upstream_error")

    async def _relay(self, upstream: Upstream) -> Answer | None:
        ask = self._ask
        self._reader, self._collector = EventReader(), Collector(ask.endpoint)
        has_rules = ask.guard is not None and ask.guard.has_out
        self._screen = Screen(ask.guard, ask.exchange) if has_rules and ask.guard else None
        self._is_settled = self._has_said = False
        connection, self._n_request_bytes = await upstream.open(ask.exchange, ask.endpoint, ask.body)
        try:
            return await self._pump(connection, upstream)
        except (Broken, BrokenStream) as error:
            return await self._broken(upstream, error)
        except Blocked:
            return await self._blocked(upstream)
        except BaseException:
            self._settle(upstream, "gone")
            raise
        finally:
            upstream.release(connection)

    async def _pump(self, connection: Connection, upstream: Upstream) -> Answer | None:
        collector, held = self._collector, b""
        is_done = False
        while not is_done and (piece := await connection.piece()):
            events, is_done = self._collect(piece)
            most = 1 if self._screen is not None else len(events)
            while events:
                held += b"".join([self._pass(*events.popleft()) for _ in range(min(most, len(events)))])
                # Until there is text, nothing leaves, so that another upstream can still take over.
                if not held or not self._has_said or (is_done and not events):
                    continue
                self._note_first_text()
                await self._send(held, is_last=False)
                held = b""
                if events:
                    await asyncio.sleep(0)  # what was sent leaves now, and others have their turn
                    most = min(2 * most, MOST_AT_ONCE)
        if not is_done and not collector.is_finished:
            raise BrokenStream("the stream ended before the answer did")
        if self._screen is not None:
            held += self._screen.close()
            self._has_said |= self._screen.has_said
        if self._has_said:
            self._note_first_text()
        self._settle(upstream, "ok")
        if (admitted := self._ask.exchange.admitted) is not None:
            admitted.is_truncated = collector.is_truncated
        answer = self._whole(upstream)
        self._ask.exchange.status = self._ask.status()
        self._finish(answer)
        await self._send(held + DONE, is_last=True)
        if not connection.is_done:
            await _linger(connection)
        return answer

    def _collect(self, piece: bytes) -> tuple[deque[tuple[bytes, Body, bool]], bool]:
        """Return the events of a piece, each with its object and whether it holds text, and whether the end was there.

        All of them are counted before the first is passed on: a client that leaves meanwhile pays for what came.
        """
        events: deque[tuple[bytes, Body, bool]] = deque()
        for data in self._reader.feed(piece):
            if data == b"[DONE]":
                return events, True
            value = parse_event(data)
            has_text = self._collector.take(value)
            if not value.get("choices") and value.get("usage") and not self._ask.wants_usage:
                continue  # we asked for the counts, the client did not
            events.append((data, value, has_text))
        return events, False

    def _pass(self, data: bytes, value: Body, has_text: bool) -> bytes:
        """Return what may leave of an event."""
        if self._screen is None:
            self._has_said |= has_text
            return b"data: %b\n\n" % data
        passed = self._screen.take(value)
        self._has_said |= self._screen.has_said
        return passed

    def _note_first_text(self) -> None:
        exchange = self._ask.exchange
        if exchange.ttft_ms is None:
            exchange.ttft_ms = exchange.elapsed_ms()

    async def _broken(self, upstream: Upstream, error: Broken | BrokenStream) -> Answer | None:
        outcome, code, status = CAUSES[error.cause if isinstance(error, Broken) else "garbage"]
        if isinstance(error, BrokenStream) and self._collector.n_pieces:
            code = "upstream_broke_off"
        self._settle(upstream, outcome)
        self._ask.exchange.fail(upstream.name)
        refused = upstream_failed(f"upstream {upstream.name}: {error}", code, status=status)
        if not self._has_written:
            raise Failed(refused, outcome) from None
        self._ask.exchange.status, self._ask.exchange.error = status, code
        self._finish(None)
        await self._send(event(orjson.loads(refused.content())), is_last=True)
        return None

    async def _blocked(self, upstream: Upstream) -> Answer | None:
        assert self._screen is not None
        self._settle(upstream, "ok")
        self._ask.exchange.status = 200
        self._finish(None)
        await self._send(self._screen.refusal() + DONE, is_last=True)
        return None

    async def _send(self, data: bytes, *, is_last: bool) -> None:
        self._has_written = True
        if self._ask.is_gone:
            return
        if self._ask.question is None:
            await self._write(data, is_last)
            return
        if self._outbox is None:  # others may wait for this answer: a client that does not read must not hold them
            self._outbox = Outbox(self._write)
        await self._outbox.put(data, is_last=is_last)

    def _settle(self, upstream: Upstream, outcome: str) -> None:
        """Pay for what was generated, exactly once: by the upstream's count, or by what came.

        A count that came before the end is of what had been said by then: the larger of both is paid.
        """
        if self._is_settled:
            return
        self._is_settled = True
        upstream.ended(outcome)
        collector = self._collector
        counts = usage_of({"usage": collector.usage}, has_text=collector.n_bytes > 0)
        is_counted = counts is not None and outcome == "ok" and collector.is_finished
        prompt, completion = counts or (guess_tokens(self._n_request_bytes), 0)
        self._counts = prompt, completion if is_counted else max(completion, collector.n_tokens)
        upstream.charge(self._ask.exchange, *self._counts, is_estimated=not is_counted)

    def _whole(self, upstream: Upstream) -> Answer | None:
        """Return the answer as it can be shared: None where a guardrail or we left something out."""
        if self._ask.question is None or not self._collector.is_whole or not self._collector.is_finished:
            return None
        if self._ask.exchange.guardrail not in ("pass", "flag"):
            return None
        value = self._collector.value()
        if value["usage"] is None:
            prompt, completion = self._counts
            value["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
        return Answer(value, orjson.dumps(value), upstream.model, upstream.name, *self._counts)


async def _linger(connection: Connection) -> None:
    try:
        async with asyncio.timeout(LINGER_S):
            await connection.piece()
    except (TimeoutError, Broken):
        pass
