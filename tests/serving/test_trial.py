"""The A/B test's outcomes: one mean per unit, entered when its window is over and all its requests have ended."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.serving.trial import METRICS, Trial

NOTHING = [None] * len(METRICS)


def values(**known: float) -> list[float | None]:
    return [known.get(metric) for metric in METRICS]


def of(trial: Trial, metric: str, side: str = "candidate") -> Any:
    return trial.as_json()["outcomes"][metric][side]


def test_the_mean_of_a_units_requests_enters_once_after_its_window() -> None:
    trial = Trial(50.0)
    unit = trial.begin("u", "candidate", now=0.0, window_s=10.0)
    assert unit is not None
    unit.add(values(latency_ms=100.0, error_rate=1.0))
    trial.end("u", unit)
    assert trial.find("u", 9.9) is unit
    unit.add(values(latency_ms=300.0, error_rate=0.0))
    trial.end("u", unit)
    assert of(trial, "latency_ms") == [0, 0.0, 0.0]
    trial.close_due(10.0)
    assert of(trial, "latency_ms") == [1, 200.0, 40_000.0]
    assert of(trial, "error_rate") == [1, 0.5, 0.25]
    assert of(trial, "rating") == [0, 0.0, 0.0]  # nobody rated
    assert of(trial, "latency_ms", "stable") == [0, 0.0, 0.0]
    assert len(trial) == 0
    trial.close_due(1000.0)
    assert of(trial, "latency_ms")[0] == 1


def test_what_is_under_way_at_the_end_of_the_window_is_waited_for() -> None:
    trial = Trial(50.0)
    unit = trial.begin("u", "stable", now=0.0, window_s=10.0)
    assert unit is not None
    trial.close_due(50.0)
    assert len(trial) == 1
    assert trial.find("u", 50.0) is None  # but nothing more is taken in
    unit.add(values(latency_ms=60_000.0))
    trial.end("u", unit)
    assert of(trial, "latency_ms", "stable") == [1, 60_000.0, 3.6e9]


def test_a_changed_rating_takes_the_place_of_the_one_before() -> None:
    trial = Trial(50.0)
    unit = trial.begin("u", "candidate", now=0.0, window_s=10.0)
    assert unit is not None
    unit.rate(1.0, None)
    unit.rate(0.25, 1.0)
    unit.rate(0.75, None)  # of another request
    trial.end("u", unit)
    trial.close_due(10.0)
    assert of(trial, "rating") == [1, 0.5, 0.25]


def test_who_comes_while_too_many_windows_are_open_takes_no_part() -> None:
    trial = Trial(50.0, most_open=2)
    units = [trial.begin(name, "candidate", now=0.0, window_s=1.0) for name in "abc"]
    assert units[2] is None
    assert trial.as_json()["admitted"] == {"candidate": 2, "stable": 0}
    for name, unit in zip("ab", units, strict=False):
        assert unit is not None
        trial.end(name, unit)
    trial.close_due(1.0)
    assert trial.begin("d", "stable", now=1.0, window_s=1.0) is not None
    assert trial.as_json()["admitted"] == {"candidate": 2, "stable": 1}


def test_a_unit_of_which_nothing_was_counted_enters_nothing() -> None:
    trial = Trial(50.0)
    unit = trial.begin("u", "candidate", now=0.0, window_s=1.0)
    assert unit is not None
    trial.end("u", unit)
    trial.close_due(1.0)
    assert all(of(trial, metric)[0] == 0 for metric in METRICS)


@pytest.mark.parametrize("late_s", [0.0, 5.0])
def test_asking_for_a_unit_closes_the_windows_that_are_over(late_s: float) -> None:
    trial = Trial(50.0)
    first = trial.begin("a", "candidate", now=0.0, window_s=1.0)
    assert first is not None
    first.add(values(cost_usd=0.5))
    trial.end("a", first)
    assert trial.find("b", 1.0 + late_s) is None
    assert of(trial, "cost_usd") == [1, 0.5, 0.25]
