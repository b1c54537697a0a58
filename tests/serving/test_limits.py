"""Places, queue, breaker and keys, each by itself."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.breaker import CircuitBreaker
from pipelines.serving.config import Key
from pipelines.serving.errors import Refused
from pipelines.serving.keys import Keys, new_key
from pipelines.serving.limits import Admission


def test_places_are_given_in_the_order_of_coming() -> None:
    async def scenario() -> None:
        admission = Admission("x", 1, 10, 10.0)
        served: list[int] = []

        async def visit(number: int) -> None:
            await admission.enter()
            served.append(number)
            await asyncio.sleep(0.001)
            admission.leave()

        await asyncio.gather(*(visit(number) for number in range(5)))
        assert served == [0, 1, 2, 3, 4]
        assert (admission.n_active, admission.n_queued) == (0, 0)

    asyncio.run(scenario())


def test_who_waits_too_long_and_who_finds_the_queue_full_is_refused() -> None:
    async def scenario() -> None:
        admission = Admission("x", 1, 1, 0.05)
        await admission.enter()
        waiting = asyncio.create_task(admission.enter())
        await asyncio.sleep(0)
        with pytest.raises(Refused) as full:
            await admission.enter()
        with pytest.raises(Refused) as late:
            await waiting
        assert [error.value.status for error in (full, late)] == [429, 429]
        assert all(error.value.retry_after_s and error.value.retry_after_s >= 1 for error in (full, late))
        admission.leave()
        assert (admission.n_active, admission.n_queued) == (0, 0)

    asyncio.run(scenario())


def test_a_larger_limit_lets_in_who_waits_and_a_smaller_one_gives_no_place_on() -> None:
    async def scenario() -> None:
        admission = Admission("x", 1, 10, 10.0)
        await admission.enter()
        waiting = [asyncio.create_task(admission.enter()) for _ in range(5)]
        await asyncio.sleep(0)
        admission.resize(4, 10, 10.0)
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True] * 3 + [False] * 2
        admission.resize(2, 10, 10.0)
        for n_inside in (3, 2):
            admission.leave()
            await asyncio.sleep(0)
            assert (admission.n_active, admission.n_queued) == (n_inside, 2)
        for _ in range(2):
            admission.leave()
            await asyncio.sleep(0)
        assert (admission.n_active, admission.n_queued) == (2, 0)
        admission.leave()
        admission.leave()
        assert admission.n_active == 0

    asyncio.run(scenario())


def test_an_hour_without_a_queue_makes_nobody_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        real, ahead_s = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + ahead_s)
        admission = Admission("x", 1, 10, 1e6)
        for _ in range(2):
            await admission.enter()
            waiting = asyncio.create_task(admission.enter())
            await asyncio.sleep(0)
            admission.leave()
            await waiting
            admission.leave()
            ahead_s += 3600
        await admission.enter()
        waiting = asyncio.create_task(admission.enter())
        await asyncio.sleep(0)
        assert admission.retry_after_s() == 1
        ahead_s += 50  # this while, somebody waits
        admission.leave()
        assert 10 <= admission.retry_after_s() <= 11
        await waiting

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel", "tick"]), st.integers(0, 9)), max_size=60))
def test_no_place_is_ever_lost_or_given_twice(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        admission = Admission("x", 2, 3, 100.0)
        inside: set[int] = set()
        tasks: dict[int, asyncio.Task[None]] = {}

        async def visit(number: int) -> None:
            await admission.enter()
            inside.add(number)

        for number, (step, which) in enumerate(steps):
            if step == "enter":
                tasks[number] = asyncio.create_task(visit(number))
            elif step == "leave" and inside:
                inside.remove(sorted(inside)[which % len(inside)])
                admission.leave()
            elif step == "cancel" and tasks:
                tasks[sorted(tasks)[which % len(tasks)]].cancel()
            elif step == "tick":
                await asyncio.sleep(0)
            assert len(inside) <= 2
        for _ in range(20):
            await asyncio.sleep(0)
            while inside:
                inside.pop()
                admission.leave()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        while inside:
            inside.pop()
            admission.leave()
        assert (admission.n_active, admission.n_queued) == (0, 0)

    asyncio.run(scenario())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_at_its_limit_and_one_request_tries_after_a_while() -> None:
    clock, states = Clock(), []
    breaker = CircuitBreaker(3, 10.0, clock=clock, on_change=states.append)
    for _ in range(2):
        breaker.fail()
    assert breaker.allows()
    breaker.succeed()
    for _ in range(3):
        assert breaker.allows()
        breaker.fail()
    clock.now = 9.9
    assert not breaker.allows()
    clock.now = 10.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.fail()
    clock.now = 19.9
    assert not breaker.allows()
    clock.now = 20.0
    assert breaker.allows()
    breaker.succeed()
    assert breaker.allows()
    assert states == ["open", "half_open", "open", "half_open", "closed"]


def test_a_trial_whose_client_left_gives_its_place_to_the_next() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 10.0, clock=clock, on_change=lambda state: None)
    breaker.fail()
    clock.now = 10.0
    assert breaker.allows()
    breaker.withdraw()
    assert breaker.allows()


def test_a_key_is_found_by_its_hash_only() -> None:
    key, hashed = new_key()
    assert hashed == sha256(key.encode()).hexdigest()
    keys = Keys([Key(name="a", project="p", sha256=hashed), Key(name="b", project="q", sha256=new_key()[1])])
    known = keys.find(b"Bearer " + key.encode())
    assert known is not None
    assert known == ("a", "p")
    for wrong in (key, f"Bearer {hashed}", f"Bearer {key}x", f"Basic {key}", "Bearer ", ""):
        assert keys.find(wrong.encode()) is None


def test_two_keys_whose_hashes_begin_alike_are_two_keys() -> None:
    hashed = sha256(b"mine").hexdigest()
    twin = hashed[:8] + "0" * 56
    keys = Keys([Key(name="twin", project="p", sha256=twin), Key(name="mine", project="p", sha256=hashed)])
    found = keys.find(b"Bearer mine")
    assert found is not None
    assert found.name == "mine"
