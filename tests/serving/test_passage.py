"""The order of things: guardrails, caches, flights, budgets, the ledger; with small parts of known behaviour."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.absent import NoBudgets, NoLedger
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import PASS, Answer, Blocked, Body, Flight, Inspection, OverBudget, Question
from pipelines.serving.protocol import Line
from tests.serving.gateway import declared, upstream
from tests.serving.inside import ask, make, texts
from tests.serving.upstreams import Upstreams

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello"}]}
STREAM = BODY | {"stream": True}


def serving(upstreams: Upstreams, **more: Any) -> dict[str, Any]:
    route = {"tiers": [{"upstream": "one"}], "cache": {}}
    return declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}}, **more)


class Memory:
    """A cache that remembers for ever."""

    def __init__(self) -> None:
        self.known: dict[bytes, Answer] = {}

    def question(self, exchange: Exchange, identity: str, body: Body) -> Question | None:
        key = json.dumps([exchange.project, identity, body["messages"]]).encode()
        return Question(key, exchange.route, exchange.project, identity, exchange.endpoint, body)

    async def get(self, exchange: Exchange, question: Question) -> Answer | None:
        exchange.cache = "exact" if question.key in self.known else "miss"
        return self.known.get(question.key)

    def put(self, question: Question, answer: Answer) -> None:
        self.known[question.key] = answer

    async def close(self) -> None:
        pass


class Shared:
    """Flights as they should be."""

    def __init__(self) -> None:
        self.flights: dict[bytes, OneFlight] = {}

    def join(self, key: bytes) -> tuple[Flight, bool]:
        if key in self.flights:
            self.flights[key].n_followers += 1
            return self.flights[key], False
        self.flights[key] = OneFlight(self, key)
        return self.flights[key], True


class OneFlight:
    def __init__(self, shared: Shared, key: bytes) -> None:
        self.shared, self.key, self.n_followers = shared, key, 0
        self.landed: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    is_scattered = False

    def leave(self, cancel: Callable[[], object]) -> None:
        pass

    def land(self, answer: Answer | None, *, scatters: bool = False) -> None:
        assert not self.landed.done(), "landed twice"
        del self.shared.flights[self.key]
        self.landed.set_result(answer)

    async def wait(self) -> Answer | None:
        return await asyncio.shield(self.landed)


class Words:
    """A guardrail against one word, on the way in and out, across pieces."""

    refusal = "I must not say."
    has_out = True

    def __init__(self, word: str, action: Any, *, needs_whole_answer: bool = False) -> None:
        self.word, self.action, self.needs_whole_answer = word, action, needs_whole_answer

    def of(self, route: str) -> Words:
        return self

    def look(self, exchange: Exchange, direction: Any, value: Body) -> Inspection:
        text = json.dumps(value)
        if self.word not in text:
            return PASS
        exchange.decide(direction, "words", self.action)
        changed = json.loads(text.replace(self.word, "***")) if self.action == "redact" else None
        return Inspection(self.action, changed, "words")

    async def inspect_in(self, exchange: Exchange, body: Body) -> Inspection:
        return self.look(exchange, "in", body)

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        return self.look(exchange, "out", answer)

    def open_stream(self, exchange: Exchange) -> WordStream:
        return WordStream(self, exchange)


class WordStream:
    def __init__(self, words: Words, exchange: Exchange) -> None:
        self.words, self.exchange, self.held = words, exchange, ""

    def feed(self, text: str) -> str:
        self.held += text
        self.check()
        keep = len(self.words.word) - 1
        out, self.held = self.held[: max(0, len(self.held) - keep)], self.held[-keep:]
        return out

    def close(self) -> str:
        self.check()
        return self.held

    def check(self) -> None:
        if self.words.word in self.held:
            self.exchange.decide("out", "words", self.words.action)
            if self.words.action == "block":
                raise Blocked("words")
            self.held = self.held.replace(self.words.word, "***")


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_remembered_answer_costs_nothing_and_says_where_it_is_from(
    upstreams: Upstreams, tmp_path: Path, body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), caches=Memory())
        upstreams.script({"text": "first one"}, {"text": "second one"})
        first, second = await ask(gateway, body), await ask(gateway, BODY)
        assert [got[1]["x-gatehouse-cache"] for got in (first, second)] == ["miss", "exact"]
        assert json.loads(second[2])["choices"][0]["message"]["content"] == "first one"
        third = await ask(gateway, STREAM | {"stream_options": {"include_usage": True}})
        assert texts(third[2]) == "first one"
        assert b'"usage":{"prompt_tokens":10' in third[2]
        assert [row.usd > 0 for row in ledger.rows] == [True, False, False]
        assert [row.prompt_tokens for row in ledger.rows] == [10, 10, 10]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "reply",
    [{"finish_reason": "length"}, {"status": 400}, {"raw": "garbage"}, {"text": "a secret"}, {"reset_after": 0}],
)
@pytest.mark.parametrize("body", [BODY, STREAM])
def test_nothing_is_remembered_that_is_cut_off_guarded_or_an_error(
    upstreams: Upstreams, tmp_path: Path, reply: dict[str, Any], body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        memory = Memory()
        gateway, ledger = make(tmp_path, serving(upstreams), caches=memory, guards=Words("secret", "redact"))
        upstreams.script(reply)
        await ask(gateway, body)
        assert memory.known == {}
        assert len(ledger.rows) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_fallbacks_answer_is_not_remembered_as_the_variants(
    upstreams: Upstreams, second: Upstreams, tmp_path: Path, body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        ones = {"one": upstream(upstreams.url, retries={"attempts": 1}), "two": upstream(second.url, "large")}
        route = {"variants": {"new": {"upstream": "one", "weight": 1}}, "fallbacks": ["two"], "cache": {}, "salt": "s"}
        memory = Memory()
        gateway, ledger = make(tmp_path, declared(ones, {"desk": route}, caches={"exact": {}}), caches=memory)
        upstreams.script({"status": 500}, {"text": "its own"})
        second.script({"text": "in its place"})
        for _ in range(3):
            await ask(gateway, body)
        assert [(row.upstream, row.cache) for row in ledger.rows] == [
            ("two", "miss"),
            ("one", "miss"),
            ("one", "exact"),
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_200_equal_requests_share_one_call(upstreams: Upstreams, tmp_path: Path, body: dict[str, Any]) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), flights=Shared(), caches=Memory())
        upstreams.script({"text": "for all of you", "delay_s": 0.3})
        n_before = upstreams.seen()["n_asked"]
        got = await asyncio.gather(*(ask(gateway, body if number % 2 else BODY) for number in range(200)))
        assert {status for status, _, _ in got} == {200}
        assert all(b"for" in content and b"you" in content for _, _, content in got)
        assert upstreams.seen()["n_asked"] == n_before + 1
        assert sum(row.usd > 0 for row in ledger.rows) == 1
        assert sum(row.cache == "shared" for row in ledger.rows) == 199

    asyncio.run(scenario())


def test_a_leader_that_fails_leaves_the_question_to_the_next(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway, _ = make(tmp_path, serving(upstreams), flights=Shared(), caches=Memory())
        upstreams.script({"status": 400, "delay_s": 0.2}, {"text": "at last"})
        got = await asyncio.gather(*(ask(gateway, BODY) for _ in range(10)))
        assert sorted(status for status, _, _ in got) == [200] * 9 + [400]

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_leader_that_leaves_does_not_take_the_answer_with_it(
    upstreams: Upstreams, tmp_path: Path, body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), flights=Shared(), caches=Memory())
        upstreams.script({"text": "for who stayed", "delay_s": 0.3})
        n_before, line = upstreams.seen()["n_asked"], Line()
        leader = asyncio.create_task(ask(gateway, body, line=line))
        await asyncio.sleep(0.1)
        follower = asyncio.create_task(ask(gateway, BODY))
        await asyncio.sleep(0.1)
        assert line.on_gone is not None
        line.on_gone()
        assert (await leader)[0] == 0
        assert b"for who stayed" in (await follower)[2]
        assert upstreams.seen()["n_asked"] == n_before + 1
        assert sorted((row.status, row.usd > 0) for row in ledger.rows) == [(200, False), (499, True)]

    asyncio.run(scenario())


def test_a_leader_whom_nobody_follows_cancels_its_call(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), flights=Shared(), caches=Memory())
        upstreams.script({"delay_s": 5})
        line = Line()
        leader = asyncio.create_task(ask(gateway, BODY, line=line))
        await asyncio.sleep(0.1)
        assert line.on_gone is not None
        line.on_gone()
        assert (await asyncio.wait_for(leader, 1))[0] == 0
        assert [(row.status, row.usd > 0) for row in ledger.rows] == [(499, True)]
        await asyncio.sleep(0.1)
        assert upstreams.seen()["n_open"] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [BODY, STREAM])
@pytest.mark.parametrize("whole", [False, True])
def test_no_blocked_word_leaves_even_in_pieces(
    upstreams: Upstreams, tmp_path: Path, body: dict[str, Any], whole: bool
) -> None:
    async def scenario() -> None:
        pieces = ["it is s", "ec", "r", "et, truly"]
        for action, said in (("block", "I must not say."), ("redact", "***, truly")):
            guard = Words("secret", action, needs_whole_answer=whole)
            gateway, ledger = make(tmp_path, serving(upstreams), guards=guard)
            upstreams.script({"text": "".join(pieces), "pieces": pieces})
            status, _, content = await ask(gateway, body)
            assert status == 200
            text = texts(content) if body is STREAM else json.loads(content)["choices"][0]["message"]["content"]
            assert text.endswith(said)
            assert "secret" not in text
            assert ledger.rows[0].guardrail == action
            assert ledger.rows[0].usd > 0

    asyncio.run(scenario())


def test_an_innocent_stream_leaves_whole_and_in_order(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), guards=Words("secret", "block"))
        upstreams.script({"pieces": list("all is well, no secre")})
        _, _, content = await ask(gateway, STREAM)
        assert texts(content) == "all is well, no secre"
        assert content.endswith(b"data: [DONE]\n\n")
        assert ledger.rows[0].guardrail == "pass"

    asyncio.run(scenario())


def test_a_blocked_question_reaches_nobody_and_a_redacted_one_redacted(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        n_before = upstreams.seen()["n_asked"]
        gateway, ledger = make(tmp_path, serving(upstreams), guards=Words("hello", "block"))
        status, _, content = await ask(gateway, BODY)
        choice = json.loads(content)["choices"][0]
        assert (status, choice["message"]["content"]) == (200, "I must not say.")
        assert choice["finish_reason"] == "content_filter"
        assert upstreams.seen()["n_asked"] == n_before
        assert (ledger.rows[0].usd, ledger.rows[0].n_attempts) == (0, 0)
        gateway, _ = make(tmp_path, serving(upstreams), guards=Words("hello", "redact"))
        await ask(gateway, BODY)
        assert upstreams.seen()["seen"][-1]["body"]["messages"][0]["content"] == "***"

    asyncio.run(scenario())


def test_an_answer_to_be_retried_is_asked_for_once_more_and_both_are_paid(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), guards=Words("bad", "retry", needs_whole_answer=True))
        upstreams.script({"text": "bad"}, {"text": "good"}, {"text": "bad"}, {"text": "bad"}, {"text": "never asked"})
        got = [json.loads((await ask(gateway, BODY))[2])["choices"][0]["message"]["content"] for _ in range(2)]
        assert got == ["good", "I must not say."]
        assert [row.n_attempts for row in ledger.rows] == [2, 2]
        assert [row.prompt_tokens for row in ledger.rows] == [20, 20]

    asyncio.run(scenario())


def test_a_project_over_its_budget_is_refused_before_it_costs(upstreams: Upstreams, tmp_path: Path) -> None:
    class Spent(NoBudgets):
        def check(self, project: str) -> OverBudget | None:
            return OverBudget(f"project {project} has spent its 1.00 USD of today", 3600)

    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams), budgets=Spent())
        status, headers, content = await ask(gateway, BODY)
        assert (status, json.loads(content)["error"]["code"]) == (429, "budget_exceeded")
        assert (headers["retry-after"], headers["x-should-retry"]) == ("3600", "false")
        assert ledger.rows[0].usd == 0

    asyncio.run(scenario())


def test_nothing_is_asked_while_the_ledger_cannot_be_written(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        ledger = NoLedger()
        gateway, _ = make(tmp_path, serving(upstreams), ledger=ledger)
        ledger.is_accepting = False
        n_before = upstreams.seen()["n_asked"]
        assert (await ask(gateway, BODY))[0] == 503
        assert upstreams.seen()["n_asked"] == n_before

    asyncio.run(scenario())


def test_the_row_is_booked_before_the_last_byte(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams))
        for body in (BODY, STREAM):
            content = json.dumps(body).encode()
            n_rows_at_end = []

            async def send(message: Any, seen: list[int] = n_rows_at_end) -> None:
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    seen.append(len(ledger.rows))

            async def receive(content: bytes = content) -> Any:
                return {"type": "http.request", "body": content, "more_body": False}

            n_before = len(ledger.rows)
            headers = [(b"authorization", b"Bearer gh-test-key-of-the-first-project")]
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
            await gateway(scope, receive, send)
            assert n_rows_at_end == [n_before + 1]

    asyncio.run(scenario())


def test_a_clock_that_goes_backwards_changes_no_duration(
    upstreams: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        gateway, ledger = make(tmp_path, serving(upstreams))
        times = iter(range(10**9, 0, -1000))
        monkeypatch.setattr("pipelines.serving.exchange.time.time", lambda: float(next(times)))
        for _ in range(3):
            assert (await ask(gateway, BODY))[0] == 200
        assert all(0 < row.latency_ms < 10_000 for row in ledger.rows)

    asyncio.run(scenario())
