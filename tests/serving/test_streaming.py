"""Streams on their way through: who reads slowly keeps nobody else waiting, and memory has an end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving import outbox
from pipelines.serving.app import Gateway
from pipelines.serving.config import Serving
from pipelines.serving.exchange import Exchange
from pipelines.serving.flights import SharedFlights
from pipelines.serving.outbox import Outbox
from pipelines.serving.protocol import Line
from tests.serving.gateway import declared, upstream
from tests.serving.inside import ask, make, pose, texts
from tests.serving.rules import caches
from tests.serving.test_passage import Words, WordStream
from tests.serving.upstreams import Upstreams

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


class Reader:
    """A client that notes how much of a burst was inspected when its first words came; it may leave then."""

    def __init__(self, guard: Counted, *, leaves: bool = False) -> None:
        self.guard, self.leaves = guard, leaves
        self.line = Line()
        self.n_inspected = 0
        self.got = b""

    async def ask(self, gateway: Gateway, body: dict[str, Any]) -> None:
        await pose(gateway, body, self._send, line=self.line)

    async def _send(self, message: Any) -> None:
        self.got += message.get("body", b"")
        if texts(self.got) and not self.n_inspected:
            self.n_inspected = self.guard.n_inspected
            if self.leaves:
                assert self.line.on_gone is not None
                self.line.on_gone()


class Counted(Words):
    """A guardrail that holds the last character back, in case the next one makes a word of it."""

    def __init__(self) -> None:
        super().__init__("zz", "redact")
        self.n_inspected = 0

    def open_stream(self, exchange: Exchange) -> WordStream:
        guard = self

        class Stream(WordStream):
            def feed(self, text: str) -> str:
                guard.n_inspected += 1
                return super().feed(text)

        return Stream(self, exchange)


def burst(pieces: list[str]) -> str:
    """Return a whole stream that an upstream sends at once."""
    choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [{"id": "1", "choices": [choice]} for choice in choices]
    events.append({"id": "1", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 400}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


class SlowReader:
    """A client that takes the head and one piece of a stream, and nothing more until it is told to."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.reads = asyncio.Event()
        self.got = b""

    async def ask(self, gateway: Gateway, body: dict[str, Any]) -> None:
        await pose(gateway, body, self._send)

    async def _send(self, message: Any) -> None:
        if self.has_begun.is_set():
            await self.reads.wait()
        self.got += message.get("body", b"")
        if self.got:
            self.has_begun.set()


@pytest.mark.parametrize("streams", [False, True])
def test_who_asked_first_and_does_not_read_holds_nobody(upstreams: Upstreams, tmp_path: Path, streams: bool) -> None:
    async def scenario() -> None:
        route = {"tiers": [{"upstream": "one"}], "cache": {}}
        serving = declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}})
        kept = caches(Serving.model_validate(serving))
        gateway, ledger = make(tmp_path, serving, flights=SharedFlights(), caches=kept)
        words = [f"word{number} " for number in range(20)]
        upstreams.script({"pieces": words, "piece_delay_s": 0.01, "counts": (10, 20)})
        slow = SlowReader()
        leading = asyncio.create_task(slow.ask(gateway, BODY | {"stream": True}))
        await asyncio.wait_for(slow.has_begun.wait(), 10)
        async with asyncio.timeout(10):
            _, headers, content = await ask(gateway, BODY | {"stream": streams})
        said = texts(content) if streams else json.loads(content)["choices"][0]["message"]["content"]
        assert (said, headers["x-gatehouse-cache"]) == ("".join(words), "shared")
        assert not leading.done()
        slow.reads.set()
        async with asyncio.timeout(10):
            await leading
        assert texts(slow.got) == "".join(words)
        assert slow.got.endswith(b"data: [DONE]\n\n")
        assert sorted(row.usd > 0 for row in ledger.rows) == [False, True]

    asyncio.run(scenario())


@pytest.mark.parametrize("remembers", [False, True])
def test_the_first_words_of_a_burst_leave_before_the_rest_is_inspected(
    upstreams: Upstreams, tmp_path: Path, remembers: bool
) -> None:
    async def scenario() -> None:
        route = {"tiers": [{"upstream": "one"}]} | ({"cache": {}} if remembers else {})
        serving = declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}})
        kept = {"caches": caches(Serving.model_validate(serving)), "flights": SharedFlights()} if remembers else {}
        guard = Counted()
        gateway, ledger = make(tmp_path, serving, guards=guard, **kept)
        pieces = ["a", *(f" word{number}" for number in range(29))]
        upstreams.script({"raw": burst(pieces)})
        reader = Reader(guard)
        async with asyncio.timeout(10):
            await reader.ask(gateway, BODY | {"stream": True})
        # The first letter alone could become a word with the next: it waits for one event, not for all.
        assert (reader.n_inspected, guard.n_inspected) == (2, 30)
        assert texts(reader.got) == "".join(pieces)
        assert reader.got.endswith(b"data: [DONE]\n\n")
        assert [(row.status, row.completion_tokens) for row in ledger.rows] == [(200, 400)]

    asyncio.run(scenario())


def test_who_leaves_in_the_middle_of_a_burst_pays_for_all_of_it(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        serving = declared({"one": upstream(upstreams.url)}, {"desk": {"tiers": [{"upstream": "one"}]}})
        guard = Counted()
        gateway, ledger = make(tmp_path, serving, guards=guard)
        upstreams.script({"raw": burst([f"word{number} " for number in range(30)])})
        async with asyncio.timeout(10):
            await Reader(guard, leaves=True).ask(gateway, BODY | {"stream": True})
        assert guard.n_inspected < 30
        assert [(row.status, row.prompt_tokens, row.completion_tokens) for row in ledger.rows] == [(499, 10, 400)]

    asyncio.run(scenario())


def test_a_client_that_is_too_far_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 10)

    async def scenario() -> None:
        reads, got = asyncio.Event(), b""

        async def write(data: bytes, is_last: bool) -> None:
            nonlocal got
            await reads.wait()
            got += data + b"." * is_last

        box = Outbox(write)
        await box.put(b"1", is_last=False)
        await asyncio.sleep(0)  # it is being written, and does not end
        await box.put(b"234567890", is_last=False)
        full = asyncio.create_task(box.put(b"abc", is_last=False))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not full.done()
        reads.set()
        async with asyncio.timeout(10):
            await full
            await box.put(b"d", is_last=True)
        assert got == b"1234567890abcd."

    asyncio.run(scenario())


def test_a_client_whose_connection_breaks_is_an_error_and_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 0)

    async def scenario() -> None:
        async def write(data: bytes, is_last: bool) -> None:
            if data == b"2":
                raise ConnectionError("gone")

        box = Outbox(write)
        async with asyncio.timeout(10):
            await box.put(b"1", is_last=False)
            await box.put(b"2", is_last=False)
            await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                await box.put(b"3", is_last=False)

    asyncio.run(scenario())
