import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.release.ratings import BETS, Ratings, bounds, log_e_high, log_e_low, scaled

counts = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 500)), max_size=5)


def test_one_rating_agrees_with_a_calculation_by_hand() -> None:
    # floor 0.6, one rating of 1: bets of share / 0.6 gain share * 0.4 / 0.6. Mean share:
    # 0.05 * 0.15 + 0.1 * 0.2 + 0.2 * 0.25 + 0.4 * 0.2 + 0.6 * 0.1 + 0.9 * 0.1 = 0.3075
    assert math.exp(log_e_high(Ratings(((1.0, 1),)), 0.6)) == pytest.approx(1 + 0.3075 * 0.4 / 0.6)
    assert math.exp(log_e_low(Ratings(((0.0, 1),)), 0.6)) == pytest.approx(1 + 0.3075 * 0.6 / 0.4)


def test_bets_start_with_one_and_cannot_ruin() -> None:
    assert sum(weight for _, weight in BETS) == pytest.approx(1)
    assert all(0 < share < 1 for share, _ in BETS)
    assert log_e_low(Ratings(()), 0.5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("floor", [0.2, 0.5, 0.75])
def test_ratings_with_exactly_the_floor_as_mean_win_nothing_on_average(floor: float) -> None:
    # ratings of 0 and 1 only, 12 of them: the sum over all outcomes
    n = 12
    for log_e in (log_e_low, log_e_high):
        mean = sum(
            math.comb(n, k) * floor**k * (1 - floor) ** (n - k) * math.exp(log_e(Ratings(((0, n - k), (1, k))), floor))
            for k in range(n + 1)
        )
        assert mean == pytest.approx(1)


def test_scaling_puts_stars_on_zero_to_one() -> None:
    found = scaled([(5, 3), (1, 1), (3, 2)], 1, 5)
    assert found == Ratings(((0.0, 1.0), (0.5, 2.0), (1.0, 3.0)))
    assert (found.n, found.mean, found.below(0.5), found.below(0.51)) == (6, pytest.approx(4 / 6), 1, 3)


def test_a_rating_outside_the_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match="a rating of 6 lies outside the scale, 1 to 5"):
        scaled([(6, 1)], 1, 5)


@given(counts, st.floats(0.05, 0.95))
def test_bounds_and_bets_say_the_same(pairs: list[tuple[float, int]], floor: float) -> None:
    ratings = Ratings(tuple(dict(pairs).items()))
    found = bounds(ratings, fail_bar=math.log(60), pass_bar=math.log(20))
    assert 0 <= found.lower <= found.upper <= 1
    if abs(found.upper - floor) > 1e-3:
        assert (found.upper < floor) == (log_e_low(ratings, floor) >= math.log(60))
    if abs(found.lower - floor) > 1e-3:
        assert (found.lower > floor) == (log_e_high(ratings, floor) >= math.log(20))


def test_looking_after_every_rating_false_alarms_at_most_at_its_level() -> None:
    # stars with a mean of exactly 3.6 of 5; 300 runs of 400 ratings, every one looked at
    rng = np.random.default_rng(5)
    drawn = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], p=[0.15, 0.05, 0.1, 0.45, 0.25], size=(300, 400))
    floor = 0.15 * 0 + 0.05 * 0.25 + 0.1 * 0.5 + 0.45 * 0.75 + 0.25
    bets = np.array([share for share, _ in BETS]) / (1 - floor)
    logs = np.log1p(-bets[:, None, None] * (drawn - floor)).cumsum(axis=2)
    alarms = (np.log((np.exp(logs) * np.array([w for _, w in BETS])[:, None, None]).sum(axis=0)) >= math.log(20)).any(1)
    last = [np.unique(row, return_counts=True) for row in drawn[:3]]
    for index, (levels, n) in enumerate(last):  # the function that decides sees the same
        found = log_e_low(Ratings(tuple(zip(levels.tolist(), n.tolist(), strict=True))), floor)
        weights = np.log([w for _, w in BETS])
        assert found == pytest.approx(float(np.logaddexp.reduce(weights + logs[:, index, -1])))
    assert alarms.mean() <= 0.05
