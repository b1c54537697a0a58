import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.stats.clusters import effective_clusters, spread
from pipelines.core.stats.estimate import estimate
from pipelines.core.stats.intervals import (
    clopper_pearson,
    p_rate_at_least,
    p_rate_at_most,
    shrunken,
    student,
    wilson,
    z_score,
)
from pipelines.core.stats.quantiles import (
    order_bounds,
    order_statistic,
    p_quantile_at_least,
    p_quantile_at_most,
    rows_needed,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_agrees_with_a_calculation_by_hand() -> None:
    # 30 of 50, z^2 = 2.7055: centre (0.6 + 0.027055) / 1.054111 = 0.594868,
    # half 1.644854 / 1.054111 * sqrt(0.24 / 50 + 2.7055 / 10000) = 1.560419 * 0.071208 = 0.111114
    lower, upper = wilson(30, 50)
    assert lower == pytest.approx(0.594868 - 0.111114, abs=2e-6)
    assert upper == pytest.approx(0.594868 + 0.111114, abs=2e-6)


def test_a_flawless_rate_is_bounded_below_by_n_over_n_plus_z_squared() -> None:
    assert wilson(50, 50) == (pytest.approx(50 / (50 + 2.705543)), 1.0)


@pytest.mark.parametrize(("n", "upper"), [(30, 0.0950), (100, 0.0295), (300, 0.0099)])
def test_no_flagged_row_bounds_a_rate_by_the_nth_root_of_alpha(n: int, upper: float) -> None:
    assert clopper_pearson(0, n).upper == pytest.approx(1 - 0.05 ** (1 / n))
    assert clopper_pearson(0, n).upper == pytest.approx(upper, abs=5e-5)


def test_clopper_pearson_bounds_are_where_the_binomial_tail_is_alpha() -> None:
    # P(X <= 1) = (1 - p)^4 + 4 p (1 - p)^3 for n = 4
    upper = clopper_pearson(1, 4).upper
    assert (1 - upper) ** 4 + 4 * upper * (1 - upper) ** 3 == pytest.approx(0.05)


@given(counts, st.floats(0.01, 0.99))
def test_a_rate_is_below_a_floor_by_its_p_value_exactly_if_by_its_bound(count: tuple[int, int], limit: float) -> None:
    successes, n = count
    p_below, p_above = p_rate_at_least(limit, successes, n), p_rate_at_most(limit, successes, n)
    bounds = clopper_pearson(successes, n)
    if abs(p_below - 0.05) > 1e-9:
        assert (p_below < 0.05) == (bounds.upper < limit)
    if abs(p_above - 0.05) > 1e-9:
        assert (p_above < 0.05) == (bounds.lower > limit)


@given(counts)
def test_no_rate_has_an_interval_of_zero_width_and_all_lie_inside(count: tuple[int, int]) -> None:
    successes, n = count
    for bounds in (wilson(successes, n), clopper_pearson(successes, n)):
        assert 0 <= bounds.lower <= successes / n <= bounds.upper <= 1
        assert bounds.upper - bounds.lower > 0


def test_a_mean_in_a_range_gets_one_pseudo_row_at_each_end() -> None:
    # rows 0.5, 0.5 become 0.5, 0.5, 0, 1: mean 0.5, squares 0.5, standard error sqrt(0.5 / 3 / 4) = 0.204124
    bell = shrunken(0.5, 0.0, 2, 0.0, 1.0)
    assert bell == (0.5, pytest.approx(0.204124, abs=1e-6), math.inf)
    assert bell.bounds(0.05).upper == pytest.approx(0.5 + 1.644854 * 0.204124, abs=1e-5)


def test_a_mean_without_a_range_is_students_t() -> None:
    # 1, 2, 4, 5: mean 3, squares 10, standard error sqrt(10 / 4 / 3) = 0.912871, t(3, 95 %) = 2.353363
    found = estimate(np.array([1.0, 2.0, 4.0, 5.0]), kind="continuous", low=0.0)
    assert found.value == 3.0
    assert found.lower == pytest.approx(3 - 2.353363 * 0.912871, abs=1e-5)
    assert found.upper == pytest.approx(3 + 2.353363 * 0.912871, abs=1e-5)


def test_token_counts_that_never_vary_still_have_an_interval() -> None:
    # two pseudo-rows at 0 and 100: sqrt(2 * 50^2 / 101 / 102) = 0.6966
    bell = student(50.0, 0.0, 100, scale=50.0)
    assert bell.standard_error == pytest.approx(50 * math.sqrt(2 / (101 * 102)))
    free = estimate(np.zeros(100), kind="continuous", low=0.0)
    assert 0 == free.lower < free.upper < 1e-6


def test_a_single_row_without_a_range_bounds_nothing() -> None:
    found = estimate(np.array([3.0]), kind="continuous")
    assert (found.lower, found.upper) == (-math.inf, math.inf)


def test_rows_of_one_conversation_count_as_one() -> None:
    # deviations 0.5, 0.5, -0.5, -0.5 in two clusters: sums 1, -1; sqrt((1 + 1) * 2 / 1) / 4 = 0.5
    found = spread(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
    assert found.bell == pytest.approx((0.5, 0.5, 1))
    # as independent rows 0.25 / 4 = 0.25^2, which is a quarter of 0.5^2
    assert found.n_effective == pytest.approx(1.0)


def test_missing_rows_leave_a_conversation_as_doubtful_as_can_be() -> None:
    # two clusters of two: doubt 1 adds (1 + sqrt(2^2 + 2^2) / 4) * sqrt(2 / 1) / 4 = 0.603553; rows 4 * 1 / (2 * 2)
    found = spread(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1]), doubt=1.0)
    assert found.bell.standard_error == pytest.approx(0.603553, abs=1e-6)
    assert found.n_effective == 1.0


def test_one_single_cluster_bounds_nothing() -> None:
    found = estimate(np.array([1.0, 0.0, 1.0]), kind="binary", low=0.0, high=1.0, clusters=np.zeros(3, dtype=np.int64))
    assert (found.lower, found.upper) == (0.0, 1.0)


def test_clustered_rows_that_all_agree_count_once_per_cluster() -> None:
    clusters = np.repeat(np.arange(15), 2)
    found = estimate(np.ones(30), kind="binary", low=0.0, high=1.0, clusters=clusters)
    # 15 clusters of 1 and pseudo-clusters 0 and 1: mean 16 / 17, squares 16 / 17, standard error
    # sqrt(16 / 17 / 16 / 17) = 1 / 17, t(14, 95 %) = 1.761310; Wilson's 15 / (15 + 2.705543) = 0.8472 is narrower
    assert found.lower == pytest.approx((16 - 1.761310) / 17, abs=1e-6)


def test_single_rows_have_the_pseudo_rows_that_they_would_have_without_clusters() -> None:
    values = np.array([0.2, 0.4, 0.4, 0.9, 1.0, 0.1, 0.3, 0.3, 0.5, 0.6])
    alone = spread(values, np.arange(10), ends=(0.0, 1.0)).bell
    assert alone[:2] == pytest.approx(shrunken(float(values.mean()), float(values.var()), 10, 0.0, 1.0)[:2])
    assert alone.degrees == pytest.approx(9)


def test_one_long_conversation_among_single_rows_counts_for_most_of_them() -> None:
    # sizes 100 and 20 times 1: 120^2 / (100^2 + 20) = 1.437
    clusters = np.append(np.zeros(100, dtype=np.int64), np.arange(1, 21))
    assert effective_clusters(clusters) == pytest.approx(1.437126)
    assert effective_clusters(np.repeat(np.arange(6), 50)) == pytest.approx(6)


def test_a_geometric_mean_is_bounded_on_the_scale_of_logarithms() -> None:
    values = np.exp(np.array([1.0, 2.0, 4.0, 5.0]))
    found = estimate(values, kind="continuous", low=1.0, is_log=True)
    assert found.value == pytest.approx(math.exp(3))
    assert found.upper == pytest.approx(math.exp(3 + 2.353363 * 0.912871), rel=1e-5)
    assert found.lower == pytest.approx(math.exp(3 - 2.353363 * 0.912871), rel=1e-5)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=60), st.integers(1, 5))
def test_clusters_never_narrow_a_rate(values: list[float], size: int) -> None:
    rows = np.array(values)
    clusters = np.arange(len(rows), dtype=np.int64) // size
    plain = estimate(rows, kind="binary", low=0.0, high=1.0)
    clustered = estimate(rows, kind="binary", low=0.0, high=1.0, clusters=clusters)
    assert clustered.lower <= plain.lower + 1e-12
    assert clustered.upper >= plain.upper - 1e-12


@pytest.mark.parametrize(("quantile", "n"), [(0.95, 59), (0.99, 299), (0.5, 5)])
def test_the_largest_row_bounds_a_quantile_from_a_certain_number_on(quantile: float, n: int) -> None:
    assert rows_needed(quantile) == n
    assert order_bounds(np.arange(1.0, n + 1), quantile).upper == n
    assert order_bounds(np.arange(1.0, n), quantile).upper == math.inf


def test_a_median_of_ten_is_bounded_by_the_second_and_the_ninth_row() -> None:
    # P(Binomial(10, 1/2) < 2) = 11 / 1024 = 0.0107 and P(< 3) = 56 / 1024 = 0.0547
    assert order_bounds(np.arange(1.0, 11), 0.5) == (2.0, 9.0)


def test_a_missing_latency_counts_as_endless() -> None:
    values = np.append(np.arange(1.0, 59), math.inf)
    assert order_bounds(values, 0.95).upper == math.inf
    assert order_statistic(values, 0.95) == 57


@given(st.lists(st.integers(0, 50), min_size=5, max_size=150), st.integers(0, 50), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_beyond_a_limit_by_its_p_value_exactly_if_by_its_bound(
    rows: list[int], limit: int, quantile: float
) -> None:
    values = np.array(rows, dtype=float)
    bounds = order_bounds(values, quantile)
    assert (p_quantile_at_most(values, quantile, limit) <= 0.05) == (bounds.lower > limit)
    assert (p_quantile_at_least(values, quantile, limit) <= 0.05) == (bounds.upper < limit)


def test_the_normal_quantile_is_the_one_in_the_tables() -> None:
    assert z_score(0.05) == pytest.approx(1.644854, abs=1e-6)
