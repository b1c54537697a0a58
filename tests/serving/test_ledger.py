"""The ledger in this process: what it does with records that no database takes, torn ones, and ratings out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving import ledger as ledger_module
from pipelines.serving.budgets import Spending
from pipelines.serving.config import LedgerSettings
from pipelines.serving.errors import Refused
from pipelines.serving.exchange import Exchange
from pipelines.serving.ledger import SpoolLedger
from pipelines.serving.ledger_rows import ROW, Days
from pipelines.serving.ledger_sqlite import SqliteLedger
from pipelines.serving.logs import Log
from tests.serving.ledgers import exchange, rows_of


@asynccontextmanager
async def opened(folder: Path, *, path: str = "ledger.db", **settings: Any) -> AsyncIterator[SpoolLedger]:
    declared = LedgerSettings(spool="spool", path=path, flush_s=0.02, segment_bytes=65_536, **settings)
    made = SpoolLedger(declared, folder, SqliteLedger(folder / path), Spending(), Log(requests=False))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def ids(folder: Path) -> list[str]:
    return [row["id"] for row in rows_of(folder / "ledger.db")]


def test_one_record_that_the_database_refuses_keeps_no_other_back(tmp_path: Path) -> None:
    good = [exchange() for _ in range(20)]
    bad = [ROW + b'{"id": null}', ROW + b"no json"]

    async def work() -> None:
        async with opened(tmp_path) as ledger:
            for number, one in enumerate(good):
                ledger.book(one)
                if number in (3, 11):
                    ledger._spool.append(bad.pop())
                    ledger._n_records += 1
            await ledger.rate(good[7].id, "first", 4)
            await until(lambda: ledger.n_waiting == 0)
            assert ledger.writer is not None
            assert (ledger.writer.n_aside, ledger.writer.n_failures) == (2, 0)

    asyncio.run(work())
    assert sorted(ids(tmp_path)) == sorted(one.id for one in good)
    assert {row["rating"] for row in rows_of(tmp_path / "ledger.db") if row["id"] == good[7].id} == {4}
    assert (tmp_path / "spool/put-aside.jsonl").read_bytes() == b'no json\n{"id": null}\n'


def test_everything_booked_before_the_end_is_in_the_database_after_it(tmp_path: Path) -> None:
    booked: list[str] = []

    async def work() -> None:
        async with opened(tmp_path, batch_rows=7) as ledger:
            for _ in range(100):
                one = exchange()
                ledger.book(one)
                booked.append(one.id)
                await asyncio.sleep(0)

    for _ in range(3):
        asyncio.run(work())
    assert ids(tmp_path) == booked


def test_a_row_that_is_booked_again_by_a_lost_position_counts_once(tmp_path: Path) -> None:
    one, other = exchange(usd=1.0), exchange(usd=2.0)

    today = Days().name(one.time_s)

    async def book(usd: float, *rows: Exchange) -> None:
        async with opened(tmp_path) as ledger:
            assert ledger.writer is not None
            for row in rows:
                ledger.book(row)
            await until(lambda: ledger.n_waiting == 0)
            ledger.writer._refresh_at = 0.0
            await until(lambda: ledger.spending.total("first", today) == usd)

    asyncio.run(book(1.0, one))
    (tmp_path / "spool/position").unlink()
    asyncio.run(book(3.0, other, other, one))
    assert ids(tmp_path) == [one.id, other.id]


def test_ratings_of_requests_long_ago_are_looked_up_and_refused_while_nobody_can_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_RECENT", 3)
    asked = [exchange() for _ in range(10)]

    async def work() -> None:
        async with opened(tmp_path) as ledger:
            for one in asked:
                ledger.book(one)
            ledger.writer.is_connected = False  # type: ignore[union-attr]
            with pytest.raises(Refused) as refused:
                await ledger.rate(asked[0].id, "first", 5)
            assert (refused.value.status, refused.value.retry_after_s) == (503, 5)
            assert (await ledger.rate(asked[9].id, "first", 3)) == ("desk", "stable", True)
            await until(lambda: ledger.n_waiting == 0)
            assert (await ledger.rate(asked[0].id, "first", 5)) == ("desk", "stable", True)
            assert (await ledger.rate(asked[0].id, "first", 5)) == ("desk", "stable", False)
            assert await ledger.rate(asked[0].id, "second", 1) is None
            assert await ledger.rate("req_" + "0" * 24, "first", 1) is None

    asyncio.run(work())
    ratings = {row["id"]: row["rating"] for row in rows_of(tmp_path / "ledger.db")}
    assert (ratings[asked[0].id], ratings[asked[9].id], ratings[asked[5].id]) == (5, 3, None)


def test_a_folder_in_the_place_of_the_database_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    async def work() -> None:
        async with opened(tmp_path, path="taken") as ledger:
            ledger.book(exchange())
            await asyncio.sleep(0.1)
            assert ledger.is_accepting
            assert ledger.n_waiting == 1
            assert not ledger.spending.is_known

    asyncio.run(work())
