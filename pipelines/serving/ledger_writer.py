"""The thread that brings records from the spool into the database, in batches, and again after every failure."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from pipelines.core.errors import GatehouseError
from pipelines.serving.budgets import Spending, first_day
from pipelines.serving.config import LedgerSettings
from pipelines.serving.ledger_database import Away, Database, Unfit
from pipelines.serving.ledger_rows import Rating, split
from pipelines.serving.logs import Log
from pipelines.serving.spool import Spool
from pipelines.serving.spool_files import Position

REFRESH_S = 5.0
MOST_PAUSE_S = 5.0
LOOP_PATIENCE_S = 2.0
Result = TypeVar("Result")


class LedgerWriter(threading.Thread):
    """Writes while the gateway answers; nothing here is waited for by a request.

    Args:
        spool: Where records come from.
        start: The first that the database may not have.
        database: Where they go.
        settings: `ledger` of serving.yaml.
        spending: Is told what the database knows.
        log: Is told when the database is away and when it is back.

    Attributes:
        n_taken: Records that are not waiting any more.
        n_damaged: Records that were torn or changed on the disk.
        n_aside: Records that were put aside.
        n_failures: How often the database was lost.
        is_connected: It answers.
    """

    def __init__(
        self, spool: Spool, start: Position, database: Database, settings: LedgerSettings, spending: Spending, log: Log
    ) -> None:
        super().__init__(name="ledger", daemon=True)
        self._spool = spool
        self._position = self._synced = start
        self._database = database
        self._settings = settings
        self._spending = spending
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self._is_stopping = False
        self._questions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pause_s = settings.flush_s
        self._try_at = self._refresh_at = self._sync_at = 0.0
        self._is_away = False
        self.n_taken = self.n_damaged = self.n_aside = self.n_failures = 0
        self.is_connected = False

    # --- called by others

    def begin(self) -> None:
        """Connect once, before the gateway listens: what was spent is then known from the first request on.

        Raises:
            ConfigError: The tables are of a newer version.
        """
        try:
            self._connect()
            self._spending.settle(self._database.spent(first_day(time.time())), has_all=False)
        except Away as away:
            self._lost(str(away))

    async def ask(self, function: Callable[[Database], Result], timeout_s: float) -> Result:
        """Let the thread ask the database.

        Raises:
            Away: It does not answer.
        """
        answer: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(function(self._database))
            except Away as away:
                answer.set_exception(away)
                raise
            except Exception as error:
                answer.set_exception(error)

        if not self.is_connected:
            raise Away("the database is away")
        self._questions.put(work)
        self._wake.set()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), timeout_s)
        except TimeoutError:
            raise Away("the database takes too long") from None

    def stop(self, timeout_s: float) -> None:
        """Bring over what is there, as far as the database takes it, and end."""
        self._is_stopping = True
        self._wake.set()
        self.join(timeout_s)

    # --- the thread

    def run(self) -> None:
        """Work until told to stop, and once more then."""
        _give_way()
        is_last = False
        while not is_last:
            is_last = self._is_stopping
            if is_last:
                self._try_at = 0.0
            else:
                self._wake.wait(self._settings.flush_s)
                self._wake.clear()
            try:
                self._cycle()
            except (Away, GatehouseError, OSError) as error:
                self._lost(str(error))
            except Exception as error:  # rows wait on the spool, whatever happens here
                self._lost(f"a bug: {type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}")
        self._database.close()

    def _cycle(self) -> None:
        now = time.monotonic()
        if self._settings.sync_s is not None and now >= self._sync_at:
            self._synced, self._sync_at = self._spool.sync(self._synced), now + self._settings.sync_s
        if not self.is_connected and now < self._try_at:
            return
        self._connect()
        self._book(self._spool.end)
        if time.monotonic() >= self._refresh_at and not self._is_stopping:
            self._refresh()

    def _connect(self) -> None:
        if self.is_connected:
            return
        self._database.open()
        self.is_connected, self._pause_s = True, self._settings.flush_s
        if self._is_away:
            self._is_away = False
            self._note("ledger_back")

    def _book(self, end: Position) -> None:
        while True:
            self._answer()
            if self._position >= end:
                return
            piece = self._spool.read(self._position, end, self._settings.batch_rows)
            if piece.records:
                self._take(*split(piece.records))
            if piece.n_damaged:
                self.n_damaged += piece.n_damaged
                self._note("ledger_damaged", records=piece.n_damaged)
            self._spool.save(piece.end)
            self._position = piece.end
            self.n_taken += len(piece.records)

    def _take(self, rows: Sequence[bytes], ratings: Sequence[Rating]) -> None:
        """Book a batch; where the database refuses it for good, find the record that is to blame."""
        try:
            self._database.book(rows, ratings)
        except Unfit as unfit:
            if len(rows) + len(ratings) == 1:
                self._put_aside(rows[0] if rows else repr(ratings[0]).encode(), str(unfit))
            elif len(rows) > 1:
                middle = len(rows) // 2
                self._take(rows[:middle], [])
                self._take(rows[middle:], ratings)
            elif rows:
                self._take(rows, [])
                self._take([], ratings)
            else:
                middle = len(ratings) // 2
                self._take([], ratings[:middle])
                self._take([], ratings[middle:])

    def _put_aside(self, record: bytes, why: str) -> None:
        try:
            path = self._spool.put_aside(record)
        except OSError as error:
            raise Away(f"{error.filename}: {error.strerror}") from None
        self.n_aside += 1
        self._note("ledger_put_aside", file=str(path), why=why)

    def _refresh(self) -> None:
        """Learn what all gateways together spent; see `Spending`."""

        def mark() -> Position | None:
            if self._spool.n_pending:
                return None
            self._spending.mark()
            return self._spool.end

        done: concurrent.futures.Future[Position | None] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(lambda: done.set_result(mark()))
            end = done.result(LOOP_PATIENCE_S)
        except (RuntimeError, TimeoutError):  # the loop has ended, or is busy: next time
            return
        if end is not None:
            self._book(end)
            rows = self._database.spent(first_day(time.time()))
            self._on_loop(partial(self._spending.settle, rows))
        self._refresh_at = time.monotonic() + REFRESH_S

    def _answer(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._questions.get_nowait()()

    def _lost(self, problem: str) -> None:
        self._database.close()
        self.is_connected = False
        self.n_failures += 1
        self._try_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, MOST_PAUSE_S)
        if not self._is_away:
            self._is_away = True
            self._note("ledger_away", problem=problem)

    def _note(self, event: str, **fields: Any) -> None:
        self._on_loop(partial(self._log.event, event, **fields))

    def _on_loop(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function)


def _give_way() -> None:
    """Let whoever answers requests go first where both want the same processor: a batch may wait, they may not."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
