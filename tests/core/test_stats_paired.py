import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pipelines.core.stats.intervals import Interval, z_score
from pipelines.core.stats.paired import bonett_price, paired_gain, paired_rates, quantile_gain, tango, tango_z

pairs = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200)).filter(lambda c: sum(c) > 0)


def test_bonett_price_agrees_with_a_calculation_by_hand() -> None:
    # p1 = 11 / 102 = 0.107843, p2 = 5 / 102 = 0.049020, D = 0.058824,
    # variance (0.156863 - 0.003460) / 102 = 0.00150395, standard error 0.038781
    bell = bonett_price(10, 4, 100)
    assert bell.centre == pytest.approx(0.058824, abs=1e-6)
    assert bell.standard_error == pytest.approx(0.038781, abs=1e-6)
    assert bell.bounds(0.05).lower == pytest.approx(-0.004965, abs=1e-6)


def test_tangos_score_at_no_difference_is_mcnemars() -> None:
    assert tango_z(10, 4, 100, 0.0) == pytest.approx((10 - 4) / math.sqrt(10 + 4))


def test_tangos_bound_without_any_flip_is_the_one_of_wilson() -> None:
    # with b = c = 0 the score is n D / sqrt(n |D| (1 - |D|)), which reaches z at z^2 / (n + z^2)
    z2 = 2.705543
    assert tango(0, 0, 52).lower == pytest.approx(-z2 / (52 + z2), abs=1e-6)


@given(pairs)
def test_a_score_is_rejected_exactly_outside_of_its_interval(counts: tuple[int, int, int]) -> None:
    gains, losses, ties = counts
    n = gains + losses + ties
    lower, upper = tango(gains, losses, n)
    for bound, sign in ((lower, 1), (upper, -1)):
        if abs(bound) < 0.999:
            assert tango_z(gains, losses, n, bound) == pytest.approx(sign * z_score(0.05), abs=1e-4)


@given(pairs)
def test_swapping_the_sides_mirrors_the_interval(counts: tuple[int, int, int]) -> None:
    gains, losses, ties = counts
    n = gains + losses + ties
    forth, back = paired_rates(gains, losses, n), paired_rates(losses, gains, n)
    assert forth.lower == pytest.approx(-back.upper, abs=1e-9)
    assert forth.upper == pytest.approx(-back.lower, abs=1e-9)
    assert forth.upper - forth.lower > 0


@given(pairs)
def test_a_gain_that_becomes_a_tie_and_a_tie_that_becomes_a_loss_never_help(counts: tuple[int, int, int]) -> None:
    gains, losses, ties = counts
    n = gains + losses + ties
    bounds = paired_rates(gains, losses, n)
    if gains:
        assert paired_rates(gains - 1, losses, n).lower <= bounds.lower + 1e-12
    if ties:
        assert paired_rates(gains, losses + 1, n).lower <= bounds.lower + 1e-12


def exact_rate(n: int, margin: float, flip_rate: float, *, passing: bool) -> float:
    """Return how often a candidate that lies on the margin passes or fails, by summing over all (gains, losses)."""
    better, worse = (flip_rate - margin) / 2, (flip_rate + margin) / 2
    total = 0.0
    for gains in range(n + 1):
        for losses in range(n + 1 - gains):
            log_p = (
                special.gammaln(n + 1)
                - special.gammaln(gains + 1)
                - special.gammaln(losses + 1)
                - special.gammaln(n - gains - losses + 1)
                + special.xlogy(gains, better)
                + special.xlogy(losses, worse)
                + special.xlogy(n - gains - losses, 1 - flip_rate)
            )
            if log_p < -25:
                continue
            score, bell = tango_z(gains, losses, n, -margin), bonett_price(gains, losses, n).bounds(0.05)
            if (
                score > z_score(0.05) and bell.lower > -margin
                if passing
                else score < -z_score(0.05) and bell.upper < -margin
            ):
                total += math.exp(log_p)
    return total


@pytest.mark.parametrize(("n", "margin"), [(30, 0.03), (75, 0.05), (100, 0.08)])
@pytest.mark.parametrize("excess", [1e-9, 0.05, 0.2])
def test_a_candidate_on_the_margin_seldom_passes_and_seldom_fails(n: int, margin: float, excess: float) -> None:
    assert exact_rate(n, margin, margin + excess, passing=True) < 0.072
    assert exact_rate(n, margin, margin + excess, passing=False) < 0.075


def test_the_decision_by_scores_is_the_decision_by_the_interval() -> None:
    for gains, losses in ((0, 0), (0, 2), (1, 5), (3, 3), (9, 1)):
        lower, upper = paired_rates(gains, losses, 75)
        score, bell = tango_z(gains, losses, 75, -0.05), bonett_price(gains, losses, 75).bounds(0.05)
        assert (lower > -0.05) == (score > z_score(0.05) and bell.lower > -0.05)
        assert (upper < -0.05) == (score < -z_score(0.05) and bell.upper < -0.05)


def test_rates_are_compared_by_their_flips() -> None:
    candidate = np.array([1.0] * 10 + [0.0] * 4 + [1.0] * 86)
    baseline = np.array([0.0] * 10 + [1.0] * 4 + [1.0] * 86)
    found = paired_gain(candidate, baseline, direction="higher", kind="binary", low=0, high=1)
    assert (found.value, found.n, found.flip_rate) == (pytest.approx(0.06), 100, 0.14)
    assert (found.lower, found.upper) == paired_rates(10, 4, 100)


def test_less_of_what_should_be_low_is_a_gain() -> None:
    found = paired_gain(np.zeros(50), np.ones(50), direction="lower", kind="binary", low=0, high=1)
    assert found.value == 1.0
    assert 0.89 < found.lower < 0.9


def test_scores_are_compared_with_a_pseudo_row_at_each_end() -> None:
    # 20 differences of 0 and the rows -1 and 1: mean 0, squares 2, standard error sqrt(2 / 21 / 22) = 0.065795
    scores = np.full(20, 0.7)
    found = paired_gain(scores, scores, direction="higher", kind="continuous", low=0, high=1)
    assert found.value == 0
    assert found.upper == pytest.approx(1.644854 * math.sqrt(2 / (21 * 22)), abs=1e-6)
    # with the row 1 alone mean 1 / 21, squares 20 / 21, standard error sqrt(20 / 21 / 20 / 21) = 1 / 21
    tail = paired_gain(scores, scores, direction="higher", kind="continuous", low=0, high=1, has_tail=True)
    assert tail.upper == pytest.approx((1 + 1.644854) / 21, abs=1e-6)
    assert found.lower == -found.upper


def test_averaged_repeats_of_a_rate_are_compared_as_scores() -> None:
    found = paired_gain(np.full(30, 2 / 3), np.full(30, 1 / 3), direction="higher", kind="binary", low=0, high=1)
    assert found.method == "paired-pseudo-rows"


def test_clusters_never_narrow_a_gain() -> None:
    rng = np.random.default_rng(1)
    candidate, baseline = (rng.random(60) < 0.7).astype(float), (rng.random(60) < 0.7).astype(float)
    options = {"direction": "higher", "kind": "binary", "low": 0, "high": 1}
    plain = paired_gain(candidate, baseline, **options)
    clustered = paired_gain(candidate, baseline, clusters=np.arange(60) // 3, **options)
    assert clustered.lower <= plain.lower
    assert clustered.upper >= plain.upper
    assert clustered.method.startswith("clustered-")


def test_a_cost_that_did_not_change_has_an_interval_around_no_gain() -> None:
    cost = np.full(100, 2e-5)
    found = paired_gain(cost, cost, direction="lower", kind="continuous", low=0)
    assert -1e-6 < found.lower < 0 < found.upper < 1e-6


def test_a_quantile_fell_at_most_by_what_its_bounds_allow() -> None:
    assert quantile_gain(Interval(90, 110), Interval(100, 130)) == Interval(-10, 40)


def test_twenty_pseudo_rowed_scores_with_ties_seldom_pass_on_the_margin() -> None:
    # BCa passes 16 % of these: 6 % of the rows lose everything, so that 0.94^30 of the samples show no loss at all
    rng = np.random.default_rng(3)
    n_rounds = 2_000
    passes = sum(
        paired_gain(
            np.where(rng.random(30) < 0.06, 0.0, 1.0), np.ones(30), direction="higher", kind="continuous", low=0, high=1
        ).lower
        > -0.06
        for _ in range(n_rounds)
    )
    assert passes / n_rounds < 0.02
