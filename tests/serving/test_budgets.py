"""Budgets: reached exactly, by day and by month, from memory, and never reopened by a clock or by the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.budgets import ProjectBudgets, Spending, first_day
from pipelines.serving.config import Serving
from tests.serving.gateway import declared, upstream
from tests.serving.ledgers import exchange

DAY = 86_400.0
NEW_YEAR = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def budgets(
    clock: Clock, spending: Spending | None = None, ledger: dict[str, Any] | None = None, **project: float
) -> ProjectBudgets:
    routes = {"desk": {"tiers": [{"upstream": "one"}]}}
    file = declared({"one": upstream("http://127.0.0.1:1/v1")}, routes, projects={"first": project, "second": {}})
    file["ledger"] = ledger or {}
    if spending is None:
        spending = Spending()
        spending.settle([])
    return ProjectBudgets(Serving.model_validate_json(json.dumps(file)), spending, clock=clock)


def spend(made: ProjectBudgets, clock: Clock, usd: float) -> None:
    made.spend(exchange(time_s=clock.now, usd=usd))


def test_a_budget_is_open_just_below_and_shut_at_and_above() -> None:
    clock = Clock(NEW_YEAR + 3600.4)
    made = budgets(clock, budget_usd_per_day=1.0)
    assert made.check("first") is None
    spend(made, clock, 0.5)
    spend(made, clock, 0.499)
    assert made.check("first") is None
    spend(made, clock, 0.001)
    over = made.check("first")
    assert over is not None
    assert over.message == "project first has spent 1 USD of its 1 USD per day (UTC)"
    assert (over.retry_after_s, over.is_unknown) == (DAY - 3600, False)
    assert made.check("second") is None


def test_a_budget_of_nothing_is_shut_from_the_start() -> None:
    made = budgets(Clock(NEW_YEAR), budget_usd_per_day=0.0)
    assert made.check("first") is not None
    assert list(made.used()) == [("first", "day", 1.0)]


def test_a_new_day_and_a_new_month_open_their_budgets() -> None:
    clock = Clock(NEW_YEAR + 30 * DAY + 80_000)  # the 31st
    made = budgets(clock, budget_usd_per_day=1.0, budget_usd_per_month=2.0)
    spend(made, clock, 1.0)
    assert "per day" in str(made.check("first"))
    clock.now = NEW_YEAR + 31 * DAY - 0.5
    assert made.check("first").retry_after_s == 1  # type: ignore[union-attr]
    clock.now = NEW_YEAR + 31 * DAY
    assert made.check("first") is None
    spend(made, clock, 0.9)
    clock.now += DAY
    spend(made, clock, 1.1)
    over = made.check("first")
    assert over is not None
    assert "per month" in over.message
    assert over.retry_after_s == 27 * DAY  # February has 28 days
    clock.now = NEW_YEAR + 59 * DAY
    assert made.check("first") is None


def test_a_clock_that_goes_back_finds_what_was_spent_on_that_day() -> None:
    clock = Clock(NEW_YEAR + DAY - 60)
    made = budgets(clock, budget_usd_per_day=1.0)
    spend(made, clock, 1.0)
    clock.now += 120
    spend(made, clock, 0.25)
    clock.now -= 120
    assert made.check("first") is not None
    clock.now += 120
    assert made.check("first") is None
    assert list(made.used()) == [("first", "day", 0.25)]


def test_a_request_counts_on_the_day_on_which_it_began() -> None:
    clock = Clock(NEW_YEAR - 1)
    made = budgets(clock, budget_usd_per_day=1.0)
    began = exchange(time_s=clock.now, usd=1.0)
    clock.now += 2
    made.spend(began)
    assert made.check("first") is None
    clock.now -= 2
    assert made.check("first") is not None


def test_while_spending_is_unknown_the_declared_thing_is_done() -> None:
    refusing = budgets(Clock(NEW_YEAR), Spending(), budget_usd_per_day=1.0)
    over = refusing.check("first")
    assert over is not None
    assert over.is_unknown
    assert refusing.check("second") is None
    clock = Clock(NEW_YEAR)
    allowing = budgets(clock, Spending(), {"when_unknown": "allow"}, budget_usd_per_day=1.0)
    assert allowing.check("first") is None
    spend(allowing, clock, 1.0)
    assert not allowing.check("first").is_unknown  # type: ignore[union-attr]


def test_nothing_counts_twice_and_nothing_is_lost_while_rows_go_to_the_database() -> None:
    spending = Spending()
    spending.add("first", "2026-01-01", 1.0)  # left on the spool
    spending.mark()
    spending.settle([("first", "2026-01-01", 10.0)], has_all=False)
    assert spending.total("first", "2026-01-01") == 11.0
    spending.add("first", "2026-01-01", 2.0)
    spending.mark()  # the database fails here; these two stay counted
    spending.add("first", "2026-01-01", 4.0)
    assert spending.total("first", "2026-01-01") == 17.0
    spending.mark()
    spending.add("first", "2026-01-01", 8.0)  # booked after the question
    spending.settle([("first", "2026-01-01", 117.0)])  # another gateway spent 100
    assert spending.total("first", "2026-01-01") == 125.0
    assert spending.total("first", "2026-01") == 125.0
    assert spending.total("second", "2026-01-01") == 0.0


@pytest.mark.parametrize(
    ("now", "day"), [(NEW_YEAR, "2025-12-01"), (NEW_YEAR - 1, "2025-11-01"), (NEW_YEAR + 60 * DAY, "2026-02-01")]
)
def test_the_database_is_asked_from_the_first_of_last_month_on(now: float, day: str) -> None:
    assert first_day(now) == day


def test_the_shipped_file_has_a_budget_for_its_project() -> None:
    from pipelines.serving.config import load_serving

    root = Path(__file__).parents[2]
    assert load_serving(root / "serving.yaml").projects["support-desk"].budget_usd_per_day
