"""A/A: equals fail rarely, a comparison that cannot fail is none, and every figure can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.gates import Evaluation
from pipelines.evaluation.catalogue import METRICS
from pipelines.evaluation.noise import as_markdown, compare, each_against_each, halves, measure
from pipelines.evaluation.results import Column, Results, Run
from scripts.noise import parse_seeds

METRIC = {"triage": {"exact_match": METRICS["exact_match"]}}


def rules(**limits: float) -> Evaluation:
    gate = {"name": "quality", "stage": "quality", "suite": "triage", "metrics": {"exact_match": limits}}
    return Evaluation.model_validate({"gates": [gate]})


def side(values: list[float]) -> dict[str, Results]:
    n = len(values)
    run = Run.model_validate({"model": {"digest": "m", "family": "f"}, "dataset": {"digest": "d", "n": n}})
    column = Column(np.array(values, dtype=np.float64), np.ones(n, dtype=bool))
    ids = np.array([f"{at:04d}" for at in range(n)])
    return {"triage": Results(ids, np.full(n, ""), None, {"exact_match": column}, run)}


def draws(n: int, rate: float, seed: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).random(n) < rate]


def test_halves_of_one_model_fail_at_most_at_the_declared_level() -> None:
    found = measure(
        "halves",
        halves(side(draws(400, 0.7, seed=1)), n_rounds=300, rng=np.random.default_rng(2)),
        METRIC,
        rules(max_regression=0.08),
    )
    assert found is not None
    assert found.n == 300
    assert found.verdicts["fail"] <= 0.02  # a margin of 8 points below no difference: far inside 5 %
    assert sum(found.verdicts.values()) == pytest.approx(1)
    (check,) = found.checks
    assert check["n_rows"] == 200
    assert check["largest_difference"] > 0  # halves do differ: otherwise this would show nothing


def test_a_margin_of_nothing_fails_by_chance_and_is_shown_to() -> None:
    found = measure(
        "halves",
        halves(side(draws(400, 0.5, seed=3)), n_rounds=300, rng=np.random.default_rng(4)),
        METRIC,
        rules(max_regression=0.0),
    )
    assert found is not None
    assert 0.0 < found.verdicts["fail"] < 0.12


def test_a_worse_model_is_told_so_the_comparison_can_fail() -> None:
    good, bad = side([1.0] * 200), side([0.0] * 200)
    assert compare(bad, good, METRIC, rules(max_regression=0.05)).verdict == "fail"
    assert compare(good, bad, METRIC, rules(max_regression=0.05)).verdict == "pass"


def test_both_directions_of_each_pair_are_counted() -> None:
    found = measure(
        "seeds", each_against_each([side([1.0] * 200), side([0.0] * 200)]), METRIC, rules(max_regression=0.05)
    )
    assert found is not None
    assert (found.n, found.verdicts) == (2, {"pass": 0.5, "manual_review": 0.0, "fail": 0.5})


def test_floors_compare_nothing() -> None:
    pairs = halves(side(draws(100, 0.1, seed=5)), n_rounds=5, rng=np.random.default_rng(6))
    assert measure("halves", pairs, METRIC, rules(floor=0.99)) is None
    assert measure("seeds", each_against_each([]), METRIC, rules(max_regression=0.1)) is None
    assert "there is nothing to compare" in as_markdown([])


def test_the_same_seed_gives_the_same_figures() -> None:
    def once() -> object:
        pairs = halves(side(draws(60, 0.6, seed=7)), n_rounds=20, rng=np.random.default_rng(8))
        return measure("halves", pairs, METRIC, rules(max_regression=0.1))

    assert once() == once()


def test_every_row_is_in_one_half_at_most() -> None:
    values = [float(at) / 100 for at in range(101)]
    for first, second in halves(side(values), n_rounds=3, rng=np.random.default_rng(9)):
        drawn = [*first["triage"].columns["exact_match"].values, *second["triage"].columns["exact_match"].values]
        assert len(set(drawn)) == len(drawn) == 100
        assert first["triage"].ids.tolist() == second["triage"].ids.tolist()


@pytest.mark.parametrize("text", ["7", "7,7", "7,", "a,b", "-1,2", "1.5,2", "7 8"])
def test_seeds_that_compare_nothing_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match="at least two different numbers"):
        parse_seeds(text)
    assert parse_seeds(" 7, 8,9 ") == [7, 8, 9]
    assert parse_seeds(" ") == []
