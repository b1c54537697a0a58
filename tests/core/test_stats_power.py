import numpy as np
import pytest

from pipelines.core.stats.intervals import wilson
from pipelines.core.stats.judges import Agreement, corrected_estimate, corrected_gain, corrected_rate
from pipelines.core.stats.multiple import benjamini_hochberg, holm
from pipelines.core.stats.paired import paired_gain
from pipelines.core.stats.power import (
    can_pass,
    rows_to_bound_zero,
    rows_to_decide,
    rows_to_detect,
    smallest_detectable,
)


@pytest.mark.parametrize(("effect", "n"), [(0.10, 62), (0.05, 248), (0.03, 687), (0.02, 1546)])
def test_rows_to_detect_agree_with_the_published_table(effect: float, n: int) -> None:
    # (1.644854 + 0.841621)^2 * 0.1 / 0.05^2 = 6.182557 * 40 = 247.3
    assert rows_to_detect(effect, 0.1) == n


def test_the_smallest_detectable_effect_is_two_and_a_half_standard_errors() -> None:
    assert smallest_detectable(0.02) == pytest.approx(0.02 * 2.486475, abs=1e-6)


def test_four_times_the_distance_needs_a_sixteenth_of_the_rows() -> None:
    assert rows_to_decide(100, 0.1, 0.05) == 815  # 100 * (1.511670 * 2)^2 = 914.06, less the 100 there are
    assert rows_to_decide(100, 0.1, 0.0) is None
    assert rows_to_decide(100, 0.1, 1e-6) is None
    assert rows_to_decide(100, 0.1, 2.3e-308) is None


@pytest.mark.parametrize(("limit", "exact", "n"), [(0.05, True, 59), (0.05, False, 52), (0.01, True, 299)])
def test_rows_without_a_flaw_that_bound_a_rate(limit: float, exact: bool, n: int) -> None:
    assert rows_to_bound_zero(limit, is_exact=exact) == n
    assert can_pass(limit, n, is_floor=False, is_exact=exact)
    assert not can_pass(limit, n - 1, is_floor=False, is_exact=exact)


def test_no_number_of_rows_shows_a_rate_of_zero() -> None:
    assert rows_to_bound_zero(0.0) is None
    assert rows_to_bound_zero(1.0) == 1
    assert not can_pass(0.9, 0, is_floor=True)


def test_a_floor_can_pass_from_the_number_on_where_flawless_rows_reach_it() -> None:
    assert wilson(52, 52).lower >= 0.95 > wilson(51, 51).lower
    assert (can_pass(0.95, 51, is_floor=True), can_pass(0.95, 52, is_floor=True)) == (False, True)


def test_holm_multiplies_the_smallest_by_all_and_the_next_by_one_less() -> None:
    # 0.01 * 3, 0.03 * 2, 0.04 * 1 raised to 0.06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_benjamini_hochberg_multiplies_by_all_over_the_rank() -> None:
    # 0.01 * 3 / 1, 0.03 * 3 / 2 lowered to 0.04, 0.04 * 3 / 3
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


def test_no_test_at_all_has_no_p_values() -> None:
    assert len(holm([])) == len(benjamini_hochberg([])) == 0


def test_adjusted_p_values_are_at_most_one_and_never_smaller() -> None:
    p = np.random.default_rng(0).random(40)
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert (adjusted >= p).all()
        assert (adjusted <= 1).all()


def test_a_judged_rate_is_corrected_for_both_kinds_of_errors() -> None:
    # (0.8 + 0.9 - 1) / (0.9 + 0.9 - 1) = 0.875; by the authors' own code: theta~ 0.879726 + 0.008066, se 0.072973
    agreement = Agreement(m0=50, m1=50, correct0=45, correct1=45)
    found = corrected_rate(80, 100, agreement)
    assert found.value == pytest.approx(0.875)
    assert found.bell.centre == pytest.approx(0.879726 + 0.008066, abs=1e-6)
    assert found.bell.standard_error == pytest.approx(0.072973, abs=1e-6)
    assert corrected_estimate(80, 100, agreement).upper == 1.0


def test_a_judge_that_is_always_right_corrects_nothing() -> None:
    assert corrected_rate(80, 100, Agreement(50, 50, 50, 50)).value == pytest.approx(0.8)


def test_a_judge_that_knows_no_more_than_a_coin_cannot_be_corrected() -> None:
    coin = Agreement(50, 50, 25, 25)
    assert not coin.is_informative
    with pytest.raises(ValueError, match="no more than a coin"):
        corrected_rate(80, 100, coin)
    assert not Agreement(0, 50, 0, 50).is_informative


def test_a_judged_gain_is_larger_and_less_certain_than_it_looks() -> None:
    rng = np.random.default_rng(2)
    candidate, baseline = (rng.random(200) < 0.8).astype(float), (rng.random(200) < 0.6).astype(float)
    plain = paired_gain(candidate, baseline, direction="higher", kind="binary", low=0, high=1)
    corrected = corrected_gain(plain, Agreement(100, 100, 90, 90))
    assert corrected.value == pytest.approx(plain.value / (91 / 102 * 2 - 1))
    assert corrected.upper - corrected.lower > plain.upper - plain.lower
