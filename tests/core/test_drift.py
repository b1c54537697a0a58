"""Drift: a test and an effect floor together; every figure by hand or from simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.core.drift import (
    MIN_ROWS,
    Drift,
    categorical_drift,
    decided,
    numeric_drift,
    population_stability_index,
    psi_floor,
)


def verdict(drift: Drift) -> str:
    return decided({"column": drift})["column"].verdict


def categories(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


def test_the_stability_index_is_the_sum_worked_out_by_hand() -> None:
    # half a row per bin: p = (60.5, 40.5) / 101, q = (30.5, 70.5) / 101
    p, q = (60.5 / 101, 40.5 / 101), (30.5 / 101, 70.5 / 101)
    by_hand = (q[0] - p[0]) * math.log(q[0] / p[0]) + (q[1] - p[1]) * math.log(q[1] / p[1])
    assert population_stability_index([60, 40], [30, 70]) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.3681, abs=1e-4)


def test_the_stability_index_of_an_empty_bin_is_finite() -> None:
    assert math.isfinite(population_stability_index([10, 0], [0, 10]))


def test_the_floor_is_what_noise_reaches_in_small_samples_and_the_tolerance_in_large_ones() -> None:
    # chi-square with 9 degrees of freedom exceeds 16.919 at 5 %: (1/100 + 1/100) * 16.919
    assert psi_floor(100, 100, 10) == pytest.approx(0.3384, abs=1e-4)
    assert psi_floor(100_000, 100_000, 10) == 0.1


def test_the_floor_without_bins_to_compare_is_the_tolerance() -> None:
    assert psi_floor(100, 100, 1) == 0.1
    assert psi_floor(0, 100, 10) == 0.1


def test_the_distance_is_the_largest_gap_between_the_two_curves() -> None:
    # a quarter of the current values lies above all of the reference
    found = numeric_drift(np.arange(400), np.concatenate([np.arange(300), np.arange(1000, 1100)]))
    assert found.statistic == pytest.approx(0.25)
    assert verdict(found) == "shifted"


def test_the_chi_square_statistic_is_the_one_of_the_textbook() -> None:
    # 2 x 2 table (60, 40; 30, 70): 200 (60 * 70 - 40 * 30)^2 / (100 * 100 * 90 * 110)
    found = categorical_drift(categories(a=60, b=40), categories(a=30, b=70))
    assert found.statistic == pytest.approx(200 * (60 * 70 - 40 * 30) ** 2 / (100 * 100 * 90 * 110))


def test_fewer_than_200_rows_on_one_side_are_insufficient_however_far_apart() -> None:
    far = numeric_drift(np.zeros(1000), np.arange(MIN_ROWS - 1) + 50.0)
    assert verdict(far) == "insufficient"
    assert verdict(numeric_drift(np.zeros(1000), np.arange(MIN_ROWS) + 50.0)) == "shifted"


def test_a_column_without_values_is_insufficient() -> None:
    assert verdict(numeric_drift([], [])) == "insufficient"
    assert verdict(categorical_drift([], ["a"])) == "insufficient"


def test_a_constant_column_that_stays_has_not_moved() -> None:
    same = decided({"n": numeric_drift(np.ones(300), np.ones(300)), "c": categorical_drift(["a"] * 300, ["a"] * 300)})
    assert [drift.verdict for drift in same.values()] == ["unchanged", "unchanged"]


def test_a_constant_column_that_takes_another_value_has_moved() -> None:
    assert verdict(numeric_drift(np.ones(300), np.zeros(300))) == "shifted"
    assert verdict(categorical_drift(["a"] * 300, ["b"] * 300)) == "shifted"


def shifted_by(distance_in_thousandths: int) -> Drift:
    """Two uniform samples of 20,000 whose largest gap is exactly so many thousandths."""
    n = 20_000
    before = np.arange(n, dtype=float)
    return numeric_drift(before, np.concatenate([before[: n - moved], before[:moved] + n])
                         if (moved := n * distance_in_thousandths // 1000) else before)  # fmt: skip


@pytest.mark.parametrize(("thousandths", "expected"), [(99, "unchanged"), (100, "shifted"), (101, "shifted")])
def test_a_distance_counts_from_one_tenth_on(thousandths: int, expected: str) -> None:
    # The tail of the reference moves beyond it; with a tolerance out of reach only the distance can decide.
    found = shifted_by(thousandths)
    assert found.statistic == pytest.approx(thousandths / 1000)
    assert verdict(found._replace(psi_floor=9.0)) == expected


@pytest.mark.parametrize(("gap", "expected"), [(-1e-9, "unchanged"), (0.0, "shifted"), (1e-9, "shifted")])
def test_a_stability_index_counts_from_its_floor_on(gap: float, expected: str) -> None:
    found = categorical_drift(categories(a=600, b=400), categories(a=400, b=600))
    assert found.p_value < 1e-10
    assert verdict(found._replace(psi_floor=found.psi - gap)) == expected


def test_a_large_effect_that_the_test_cannot_tell_from_noise_is_unchanged() -> None:
    found = numeric_drift(np.arange(300), np.arange(300))._replace(statistic=0.5, psi=1.0)
    assert verdict(found) == "unchanged"


def test_a_new_category_is_seen() -> None:
    assert verdict(categorical_drift(categories(a=500, b=500), categories(a=400, b=400, c=200))) == "shifted"


def test_categories_too_rare_for_the_test_are_taken_together() -> None:
    # 300 categories of one row each would make chi-square meaningless; pooled they are one that did not move.
    before = [f"rare {i}" for i in range(300)] + ["a"] * 700
    after = [f"other {i}" for i in range(300)] + ["a"] * 700
    assert verdict(categorical_drift(before, after)) == "unchanged"


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        numeric_drift([1.0, float("nan")], [1.0, 2.0])


def test_a_column_with_too_few_rows_does_not_weaken_the_others() -> None:
    clear = numeric_drift(np.arange(400), np.arange(400) + 60.0)
    alone = decided({"x": clear})["x"].adjusted_p
    noise = {f"small {i}": numeric_drift(np.arange(50), np.arange(50)) for i in range(20)}
    assert decided({"x": clear, **noise})["x"].adjusted_p == alone


def test_dependent_columns_pay_the_harmonic_sum() -> None:
    columns = {name: numeric_drift(np.arange(400), np.arange(400) + 30.0) for name in "abc"}
    independent, dependent = decided(columns)["a"].adjusted_p, decided(columns, dependent=True)["a"].adjusted_p
    assert dependent == pytest.approx(min(1.0, independent * (1 + 1 / 2 + 1 / 3)))


def test_a_shift_of_a_fiftieth_of_a_deviation_alarms_the_test_alone_but_not_the_floor() -> None:
    rng = np.random.default_rng(0)
    pairs = [numeric_drift(rng.normal(size=100_000), rng.normal(0.02, size=100_000)) for _ in range(20)]
    assert sum(pair.p_value < 0.05 for pair in pairs) >= 17  # 98 % in simulation
    assert all(verdict(pair) == "unchanged" for pair in pairs)


def test_twenty_columns_together_alarm_falsely_as_rarely_as_one() -> None:
    rng = np.random.default_rng(1)
    uncorrected = together = 0
    for _ in range(150):
        columns = {str(i): numeric_drift(rng.normal(size=300), rng.normal(size=300)) for i in range(20)}
        uncorrected += any(drift.p_value < 0.05 for drift in columns.values())
        together += any(drift.verdict == "shifted" for drift in decided(columns).values())
    assert uncorrected / 150 > 0.5  # 64 % in simulation
    assert together / 150 < 0.12  # nominal 5 %


def test_half_a_deviation_is_found_in_500_rows() -> None:
    rng = np.random.default_rng(2)
    found = [verdict(numeric_drift(rng.normal(size=500), rng.normal(0.5, size=500))) for _ in range(50)]
    assert found == ["shifted"] * 50
