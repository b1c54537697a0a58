"""Log lines reach a reader whole, and a reader that does not read stops nobody."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading

import pytest

from pipelines.serving import logs
from pipelines.serving.logs import Log


@pytest.fixture
def pipe() -> tuple[int, int]:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 65_536)
    return reads, writes


def rest_of(reads: int) -> list[dict[str, object]]:
    data = b""
    while piece := os.read(reads, 1 << 16):
        data += piece
    return [json.loads(line) for line in data.splitlines() if line]


def test_a_full_pipe_stops_nobody_and_what_did_not_fit_is_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = pipe
    monkeypatch.setattr(logs, "MOST_WAITING", 500)
    guard = threading.Timer(10.0, os.close, [reads])  # a writer that waits is let go, and fails below
    guard.start()

    async def scenario() -> None:
        log = Log(writes)
        for number in range(5_000):
            log.event("one", number=number, text="x" * 200)
            if number % 100 == 0:
                log.flush()
        assert guard.is_alive(), "the log waited for its reader"
        guard.cancel()
        found: list[dict[str, object]] = []
        reader = threading.Thread(target=lambda: found.extend(rest_of(reads)))
        reader.start()
        log.finish()
        os.close(writes)
        await asyncio.to_thread(reader.join)
        numbers = [line["number"] for line in found if line["event"] == "one"]
        lost = sum(int(str(line["n"])) for line in found if line["event"] == "log_lines_lost")
        assert numbers == sorted(numbers, key=lambda number: int(str(number)))
        assert lost > 1_000
        assert len(numbers) + lost == 5_000

    asyncio.run(scenario())
    os.close(reads)


def test_lines_that_had_to_wait_are_written_whole_when_the_reader_goes_on(pipe: tuple[int, int]) -> None:
    reads, writes = pipe

    async def scenario() -> None:
        log = Log(writes)
        for number in range(2_000):
            log.event("one", number=number, text="x" * 200)
        reader = asyncio.create_task(asyncio.to_thread(rest_of, reads))
        while log.n_waiting:
            await asyncio.sleep(0.01)
        os.close(writes)
        assert [line["number"] for line in await reader] == list(range(2_000))

    asyncio.run(asyncio.wait_for(scenario(), 20))
    os.close(reads)


def test_a_reader_that_is_gone_stops_nobody(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.close(reads)
    log = Log(writes)
    log.event("one")
    log.finish()
    assert log.n_waiting == 0
    os.close(writes)
