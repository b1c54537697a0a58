"""The ledger: one row per request, on the spool before the answer's last byte, in the database soon after."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from pathlib import Path

from pipelines.serving.budgets import Spending
from pipelines.serving.config import LedgerSettings
from pipelines.serving.errors import unavailable
from pipelines.serving.exchange import Exchange
from pipelines.serving.ledger_database import Away, Database, Found
from pipelines.serving.ledger_rows import Days, Rating, costs, rating_record, row_record
from pipelines.serving.ledger_writer import LedgerWriter
from pipelines.serving.logs import Log
from pipelines.serving.parts import Rated
from pipelines.serving.spool import Spool
from pipelines.serving.spool_files import Position

MOST_RECENT = 5000
"""Requests that can be rated without asking the database."""
Side = tuple[str, str, str]
"""Project, route, variant."""
MOST_READ = 1000
TICK_S = 0.5
ASK_S = 3.0
CLOSE_S = 10.0
TIME_STEP_S = 1e-6
REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")


class SpoolLedger:
    """The ledger of one gateway.

    Args:
        settings: `ledger` of serving.yaml.
        root: Folder of the repository.
        database: Where rows go in the end.
        spending: Counts what rows cost.
        log: Is told what goes wrong.

    Attributes:
        settings: What it was opened with.
        spending: As given.
        writer: The thread, once it is started.
    """

    def __init__(self, settings: LedgerSettings, root: Path, database: Database, spending: Spending, log: Log) -> None:
        self.settings = settings
        self._folder = root / settings.spool
        self._database = database
        self.spending = spending
        self._log = log
        self._spool = Spool(self._folder, settings.segment_bytes)
        self._days = Days()
        self._recent: OrderedDict[str, Side] = OrderedDict()  # whose first is found at once, however many went before
        self._sides: dict[Side, Side] = {}  # one of each, so that many requests share it
        self._rated: dict[str, tuple[int, float]] = {}  # rating, time
        self._last_rated_s = 0.0
        self._n_records = 0
        self._had_room = True
        self._preparing: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.writer: LedgerWriter | None = None

    @property
    def is_accepting(self) -> bool:
        """Tell whether there is room on the disk for one more request and all that are under way."""
        return self._spool.has_room

    @property
    def n_waiting(self) -> int:
        """How many records the database does not have yet."""
        return self._n_records - (self.writer.n_taken if self.writer is not None else 0)

    def book(self, exchange: Exchange) -> None:
        """Append the row of a finished request."""
        self._spool.append(row_record(exchange, self._days.name(exchange.time_s)))
        self._n_records += 1
        self._remember(exchange.id, exchange.project, exchange.route, exchange.variant)
        if not self._spool.is_prepared and self._had_room:
            self._prepare()

    async def rate(self, request_id: str, project: str, rating: int) -> Rated | None:
        """Add a rating; see `parts.Ledger`. Whatever the clock says, the later one wins."""
        if not REQUEST_ID.fullmatch(request_id):
            return None
        found, in_database = self._recent.get(request_id), None
        if found is None:
            in_database = await self._find(request_id)
            if in_database is None:
                if self.n_waiting > MOST_RECENT:
                    raise unavailable("the ledger is behind; rate again later", "ledger_unavailable")
                return None
            found = in_database.project, in_database.route, in_database.variant
        if found[0] != project:
            return None
        if not self._spool.has_room:
            raise unavailable("the ledger cannot be written", "ledger_unavailable")
        return Rated(found[1], found[2], is_new=self._rate(request_id, project, rating, in_database))

    async def start(self) -> None:
        """Open the spool, read what is left on it, connect, and begin to bring it over.

        Raises:
            GatehouseError: The spool cannot be used, or the tables are of a newer version.
        """
        start = self._spool.open()
        await asyncio.to_thread(self._read_leftover, start)
        self.spending.mark()
        self.writer = LedgerWriter(self._spool, start, self._database, self.settings, self.spending, self._log)
        await asyncio.to_thread(self.writer.begin)
        self.writer.start()
        self._tick()

    async def close(self) -> None:
        """Bring over what the database takes; the rest stays on the spool for the next start."""
        if self._timer is not None:
            self._timer.cancel()
        if self._preparing is not None:
            await self._preparing
        if self.writer is not None:
            self._spool.retry()
            await asyncio.to_thread(self.writer.stop, CLOSE_S)
            self._spool.close()
            if self.n_waiting:
                self._log.event("ledger_left", records=self.n_waiting)

    async def _find(self, request_id: str) -> Found | None:
        assert self.writer is not None
        try:
            return await self.writer.ask(lambda database: database.find(request_id), ASK_S)
        except Away:
            message = "the ledger's database does not answer; rate again later"
            raise unavailable(message, "ledger_unavailable") from None

    def _rate(self, request_id: str, project: str, rating: int, in_database: Found | None) -> bool:
        """Append a rating, if it is another one than before; tell whether it is."""
        before, before_s = self._rated.get(request_id, (None, 0.0))
        if in_database is not None and (in_database.rated_s or 0.0) > before_s:
            before, before_s = in_database.rating, in_database.rated_s or 0.0
        if before == rating:
            return False
        rated_s = max(time.time(), self._last_rated_s + TIME_STEP_S, before_s + TIME_STEP_S)
        self._last_rated_s = rated_s
        self._spool.append(rating_record(Rating(request_id, project, rating, rated_s)))
        self._n_records += 1
        if len(self._rated) >= MOST_RECENT:
            del self._rated[next(iter(self._rated))]
        self._rated[request_id] = rating, rated_s
        return True

    def _remember(self, request_id: str, project: str, route: str, variant: str) -> None:
        recent = self._recent
        if len(recent) >= MOST_RECENT:
            recent.popitem(last=False)
        side = project, route, variant
        recent[request_id] = self._sides.setdefault(side, side)

    def _read_leftover(self, start: Position) -> None:
        """Count what an earlier process left on the spool."""
        days, end = Days(), self._spool.end
        while start < end:
            piece = self._spool.read(start, end, MOST_READ)
            start = piece.end
            self._n_records += len(piece.records)
            for cost in costs(piece.records):
                self.spending.add(cost.project, days.name(cost.time_s), cost.usd)
                self._remember(cost.id, cost.project, cost.route, cost.variant)

    def _prepare(self) -> None:
        """Allocate the spool's next file, beside the loop."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.get_running_loop().run_in_executor(None, self._spool.prepare)

    def _tick(self) -> None:
        """Write what could not be written, and say so when that changes."""
        self._spool.retry()
        if not self._spool.is_prepared:
            self._prepare()
        has_room = self._spool.has_room
        if has_room != self._had_room:
            self._had_room = has_room
            self._log.event("ledger_writable" if has_room else "ledger_full", problem=self._spool.problem)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
