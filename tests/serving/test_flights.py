"""Equal questions share one call: whoever leaves, fails or comes late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.config import Serving
from pipelines.serving.flights import SharedFlights
from pipelines.serving.parts import Answer
from pipelines.serving.protocol import Line
from tests.serving.gateway import declared, upstream
from tests.serving.inside import ask, make, texts
from tests.serving.rules import caches
from tests.serving.test_passage import Words
from tests.serving.upstreams import Upstreams

ANSWER = Answer({}, b"{}", "small", "one", 1, 1)
BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def serving_of(upstreams: Upstreams) -> dict[str, Any]:
    route = {"tiers": [{"upstream": "one"}], "cache": {}}
    return declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}})


async def turn(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def test_10_000_followers_get_the_leaders_answer_and_nothing_is_left_behind() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        leader, leads = flights.join(b"q")
        assert leads
        waits = []
        for _ in range(10_000):
            flight, leads = flights.join(b"q")
            assert not leads
            waits.append(asyncio.create_task(flight.wait()))
        await turn()
        assert leader.n_followers == 10_000
        leader.land(ANSWER)
        assert await asyncio.gather(*waits) == [ANSWER] * 10_000
        assert len(flights) == 0

    asyncio.run(scenario())


def test_where_every_leader_fails_each_is_followed_by_exactly_one() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        n_leading = most_leading = n_led = 0

        async def one() -> Answer | None:
            nonlocal n_leading, most_leading, n_led
            answer = None
            while answer is None:
                flight, leads = flights.join(b"q")
                if not leads:
                    answer = await flight.wait()
                    continue
                n_leading, n_led = n_leading + 1, n_led + 1
                most_leading = max(most_leading, n_leading)
                await asyncio.sleep(0)
                n_leading -= 1
                is_good = n_led == 5
                flight.land(ANSWER if is_good else None)
                return ANSWER if is_good else None
            return answer

        got = await asyncio.gather(*(one() for _ in range(100)))
        assert (n_led, most_leading) == (5, 1)
        assert got.count(None) == 4
        assert len(flights) == 0

    asyncio.run(scenario())


def test_followers_that_leave_are_not_waited_for_and_take_nobody_with_them() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        leader, _ = flights.join(b"q")
        tasks = [asyncio.create_task(flights.join(b"q")[0].wait()) for _ in range(10)]
        await turn()
        for task in tasks[:9]:
            task.cancel()
        await turn()
        assert leader.n_followers == 1
        leader.land(ANSWER)
        assert await tasks[9] is ANSWER

    asyncio.run(scenario())


def test_a_follower_that_leaves_when_its_turn_to_lead_has_come_passes_it_on() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        leader, _ = flights.join(b"q")
        first, second = (asyncio.create_task(leader.wait()) for _ in range(2))
        await turn()
        leader.land(None)
        first.cancel()  # it has been called, and did not run yet
        assert await asyncio.wait_for(second, 1) is None
        flight, leads = flights.join(b"q")
        assert leads
        flight.land(ANSWER)
        assert len(flights) == 0

    asyncio.run(scenario())


def test_when_all_followers_have_left_the_next_question_leads_its_own_flight() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        leader, _ = flights.join(b"q")
        task = asyncio.create_task(leader.wait())
        await turn()
        leader.land(None)
        task.cancel()
        await turn()
        assert len(flights) == 0
        assert flights.join(b"q")[1]

    asyncio.run(scenario())


def test_who_comes_while_the_next_leader_is_called_leads_and_the_called_one_follows() -> None:
    async def scenario() -> None:
        flights = SharedFlights()
        leader, _ = flights.join(b"q")
        task = asyncio.create_task(leader.wait())
        await turn()
        leader.land(None)
        newcomer, leads = flights.join(b"q")
        assert leads
        assert await task is None
        flight, leads = flights.join(b"q")
        assert not leads
        waiting = asyncio.create_task(flight.wait())
        await turn()
        newcomer.land(ANSWER)
        assert await waiting is ANSWER

    asyncio.run(scenario())


def test_followers_of_an_answer_that_cannot_be_shared_ask_all_at_once(upstreams: Upstreams, tmp_path: Path) -> None:
    async def scenario() -> None:
        serving = serving_of(upstreams)
        gateway, ledger = make(
            tmp_path,
            serving,
            flights=SharedFlights(),
            caches=caches(Serving.model_validate(serving)),
            guards=Words("secret", "redact"),
        )
        upstreams.script({"pieces": ["a ", "secret", " b"], "delay_s": 0.5, "times": 6})
        asking = [asyncio.create_task(ask(gateway, BODY | {"stream": True})) for _ in range(6)]
        await asyncio.wait(asking, return_when="FIRST_COMPLETED")
        n_open = 0
        while n_open < 5 and not all(task.done() for task in asking):
            n_open = max(n_open, (await asyncio.to_thread(upstreams.seen))["n_open"])
        assert n_open == 5
        got = await asyncio.gather(*asking)
        assert {texts(content) for _, _, content in got} == {"a *** b"}
        assert {row.guardrail for row in ledger.rows} == {"redact"}

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ["flag", "redact", "block"])
def test_what_guardrails_said_of_an_answer_is_booked_for_all_who_get_it(
    upstreams: Upstreams, tmp_path: Path, action: str
) -> None:
    async def scenario() -> None:
        serving = serving_of(upstreams)
        gateway, ledger = make(
            tmp_path,
            serving,
            flights=SharedFlights(),
            caches=caches(Serving.model_validate(serving)),
            guards=Words("secret", action),
        )
        upstreams.script({"text": "a secret", "delay_s": 0.3})
        got = await asyncio.gather(*(ask(gateway, BODY) for _ in range(3)))
        assert len({content for _, _, content in got}) == 1
        assert [(row.guardrail, len(row.decisions)) for row in ledger.rows] == [(action, 1)] * 3
        assert sorted(row.cache for row in ledger.rows) == ["miss", "shared", "shared"]

    asyncio.run(scenario())


@pytest.mark.parametrize("streams", [False, True])
def test_when_a_leader_and_then_its_last_follower_left_the_call_ends(
    upstreams: Upstreams, tmp_path: Path, streams: bool
) -> None:
    async def scenario() -> None:
        serving = serving_of(upstreams)
        flights = SharedFlights()
        gateway, ledger = make(tmp_path, serving, flights=flights, caches=caches(Serving.model_validate(serving)))
        upstreams.script({"delay_s": 8})
        lines = [Line() for _ in range(3)]
        asking = []
        for line in lines:
            asking.append(asyncio.create_task(ask(gateway, BODY | {"stream": streams}, line=line)))
            await asyncio.sleep(0.1)
        for line in lines[:2]:
            assert line.on_gone is not None
            line.on_gone()
        await asyncio.sleep(0.1)
        assert (await asyncio.to_thread(upstreams.seen))["n_open"] == 1  # one still waits
        assert lines[2].on_gone is not None
        lines[2].on_gone()
        await asyncio.wait_for(asyncio.gather(*asking), 3)
        assert sorted((row.status, row.usd > 0) for row in ledger.rows) == [(499, False), (499, False), (499, True)]
        assert len(flights) == 0
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(upstreams.seen))["n_open"] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("streams", [False, True])
def test_2_000_equal_requests_at_once_and_after_make_one_call(
    upstreams: Upstreams, tmp_path: Path, streams: bool
) -> None:
    async def scenario() -> None:
        route = {"tiers": [{"upstream": "one"}], "cache": {}}
        limits = {"max_active": 20_000}
        serving = declared({"one": upstream(upstreams.url)}, {"desk": route}, caches={"exact": {}}, limits=limits)
        gateway, ledger = make(
            tmp_path, serving, flights=SharedFlights(), caches=caches(Serving.model_validate(serving))
        )
        upstreams.script({"text": "for all of you", "delay_s": 0.2})
        n_before = upstreams.seen()["n_asked"]
        body = BODY | {"stream": streams}

        async def late(number: int) -> Any:
            await asyncio.sleep(number / 4000)  # some come before, some in, some after the answer
            return await ask(gateway, body)

        got = await asyncio.gather(*(late(number) for number in range(2_000)))
        assert {status for status, _, _ in got} == {200}
        assert all(b"for" in content and b"you" in content for _, _, content in got)
        assert upstreams.seen()["n_asked"] == n_before + 1
        assert sum(row.usd > 0 for row in ledger.rows) <= 1

    asyncio.run(scenario())
