"""What projects have spent and may still spend, from memory; days and months are UTC.

Sums are kept by the day that stands in the ledger's row and are never set to zero by a clock: one that goes back finds
what was spent on that day, and a new day begins with nothing because nothing was booked on it yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pipelines.serving.config import Serving
from pipelines.serving.exchange import Exchange
from pipelines.serving.ledger_rows import DAY_S, Days
from pipelines.serving.parts import OverBudget

MONTH = 7
"""Characters of a day that are its month."""
Sums = dict[tuple[str, str], float]
UNKNOWN_RETRY_S = 5
ALMOST = 1 - 1e-9
"""A sum of many prices may miss a budget by its rounding errors."""


class Spending:
    """What projects spent, by day and by month. Belongs to the gateway's loop.

    What the database says replaces what was counted here before it was asked, so that other gateways' spending comes
    in and nothing counts twice: `mark`, then book everything up to now, then ask, then `settle`.

    Attributes:
        is_known: The database has been asked since the start.
    """

    def __init__(self) -> None:
        self._known: Sums = {}
        self._older: Sums = {}
        self._since: Sums = {}
        self.is_known = False

    def add(self, project: str, day: str, usd: float) -> None:
        """Count what a request cost."""
        _add(self._since, project, day, usd)

    def total(self, project: str, period: str) -> float:
        """Return what a project spent on a day (2026-01-31) or in a month (2026-01), in USD."""
        key = (project, period)
        return self._known.get(key, 0.0) + self._older.get(key, 0.0) + self._since.get(key, 0.0)

    def mark(self) -> None:
        """Begin a new count: what was counted so far will be in the database when it is asked."""
        for key, usd in self._since.items():
            self._older[key] = self._older.get(key, 0.0) + usd
        self._since = {}

    def settle(self, rows: Iterable[tuple[str, str, float]], *, has_all: bool = True) -> None:
        """Take over what the database says.

        Args:
            rows: Project, day, USD.
            has_all: Everything counted before the last `mark` is among it.
        """
        known: Sums = {}
        for row in rows:
            _add(known, *row)
        self._known = known
        if has_all:
            self._older = {}
        self.is_known = True


class Budget(NamedTuple):
    """What a project may spend, in USD."""

    per_day: float | None
    per_month: float | None


class ProjectBudgets:
    """The declared budgets.

    Args:
        serving: The declared file.
        spending: What was spent; goes on over a reload.
        clock: Seconds since 1970.
    """

    def __init__(self, serving: Serving, spending: Spending, *, clock: Callable[[], float] = time.time) -> None:
        self._spending = spending
        self._clock = clock
        self._days = Days()
        self._refuses_unknown = serving.ledger.when_unknown == "refuse"
        self._budgets = {
            name: Budget(project.budget_usd_per_day, project.budget_usd_per_month)
            for name, project in serving.projects.items()
            if project.budget_usd_per_day is not None or project.budget_usd_per_month is not None
        }
        self._booked = Days()

    def check(self, project: str) -> OverBudget | None:
        """Return why a project may not spend now, or None."""
        budget = self._budgets.get(project)
        if budget is None:
            return None
        spending = self._spending
        if not spending.is_known and self._refuses_unknown:
            message = f"what project {project} has spent is not known yet: the ledger's database does not answer"
            return OverBudget(message, UNKNOWN_RETRY_S, is_unknown=True)
        now = self._clock()
        day = self._days.name(now)
        month = day[:MONTH]
        if budget.per_month is not None and (spent := spending.total(project, month)) >= budget.per_month * ALMOST:
            return _over(project, spent, budget.per_month, "month", _until_next_month(now))
        if budget.per_day is not None and (spent := spending.total(project, day)) >= budget.per_day * ALMOST:
            return _over(project, spent, budget.per_day, "day", DAY_S - now % DAY_S)
        return None

    def spend(self, exchange: Exchange) -> None:
        """Count what a finished request cost, on the day of its row."""
        if exchange.usd:
            self._spending.add(exchange.project, self._booked.name(exchange.time_s), exchange.usd)

    def used(self) -> Iterable[tuple[str, str, float]]:
        """Return (project, `day` or `month`, share of the budget that is used); a budget of nothing is used up."""
        day = self._days.name(self._clock())
        for project, budget in self._budgets.items():
            for name, limit, period in (("day", budget.per_day, day), ("month", budget.per_month, day[:MONTH])):
                if limit is not None:
                    yield project, name, self._spending.total(project, period) / limit if limit else 1.0


def first_day(now: float) -> str:
    """Return the first day of last month: what budgets may still ask for, also when a clock goes back a little."""
    days = Days()
    month = days.name(now)[:MONTH]
    while days.name(now)[:MONTH] == month:
        now -= DAY_S
    return days.name(now)[:MONTH] + "-01"


def _add(sums: Sums, project: str, day: str, usd: float) -> None:
    for key in ((project, day), (project, day[:MONTH])):
        sums[key] = sums.get(key, 0.0) + usd


def _over(project: str, spent: float, limit: float, period: str, left_s: float) -> OverBudget:
    message = f"project {project} has spent {spent:.4g} USD of its {limit:.4g} USD per {period} (UTC)"
    return OverBudget(message, max(1, round(left_s)))


def _until_next_month(now: float) -> float:
    days = Days()
    month = days.name(now)[:MONTH]
    end = now - now % DAY_S + DAY_S
    while days.name(end)[:MONTH] == month:
        end += DAY_S
    return end - now
