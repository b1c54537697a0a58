import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.core.rollout import AbTest
from pipelines.core.stats.multiple import holm
from pipelines.release.abtest import AbVerdict, Comparison, Pair, adjusted, cohens_d, verdict, welch
from pipelines.release.sample_ratio import Split
from pipelines.release.sequences import Moments, difference, half_width, moments, p_value, tuning

RUN = {"n_opt": 1000, "window_s": 60, "max_duration_s": 600}


def declared(**more: Any) -> AbTest:
    value = {"primary": {"metric": "rating", "margin": 0.1}, "local": RUN, **more}
    return AbTest.model_validate_json(json.dumps(value))


TEST = declared()


def decided(pair: Pair, test: AbTest = TEST, more: dict[str, Pair] | None = None, **given: Any) -> AbVerdict:
    assert test.local is not None
    users = given.pop("users", Split(pair.candidate.n, pair.stable.n, 0.5))
    return verdict({test.primary.metric: pair, **(more or {})}, users, test, test.local)


def rates(n: int, candidate: float, stable: float) -> Pair:
    return Pair(Moments(n, n * candidate, n * candidate), Moments(n, n * stable, n * stable))


# --- confidence sequences -------------------------------------------------------------------------------------


def test_bounds_agree_with_a_calculation_by_hand() -> None:
    # a = 0.1, n_opt = 1000: r^2 = (4.605170 + ln 4.605170 + 1) / 1000 = (4.605170 + 1.527179 + 1) / 1000
    r2 = tuning(0.1, 1000)
    assert r2 == pytest.approx(0.007132349, abs=1e-8)
    # n = 1000: n r^2 + 1 = 8.132349; sqrt(2 * 8.132349 / 7132.349 * ln(1 + 2.851727 / 0.1)), the log is 3.384959
    assert half_width(1.0, 1000, r2, 0.05) == pytest.approx(math.sqrt(2 * 8.132349 / 7132.349 * 3.384959), rel=1e-5)


@given(st.floats(1.0, 1e4), st.floats(1e-6, 0.3))
def test_at_the_bound_the_one_sided_mixture_has_reached_one_over_alpha(k: float, alpha: float) -> None:
    x = math.log1p(k / (2 * alpha))
    assert 2 * math.exp(x) * stats.norm.cdf(math.sqrt(2 * x)) / k >= 1 / alpha


def test_two_arms_are_one_mean_of_all_outcomes() -> None:
    # shares 1/4 and 3/4: variance 4 * 0.2 + 4/3 * 0.3 per outcome
    joint = difference(Moments(25, 10, 4 + 0.2 * 24), Moments(75, 15, 3 + 0.3 * 74))
    assert joint.value == pytest.approx(0.2)
    assert joint.deviation == pytest.approx(math.sqrt(4 * 0.2 + 4 / 3 * 0.3))
    assert joint.n == 100


@given(st.floats(0.01, 2), st.floats(0.1, 3), st.integers(100, 5000), st.floats(0.001, 0.2))
def test_a_p_value_is_the_level_whose_bound_just_reaches(gap: float, s: float, n: int, alpha: float) -> None:
    r2 = tuning(0.1, 1000)
    half = half_width(s, n, r2, alpha)
    assert p_value(half, s, n, r2) == pytest.approx(alpha, rel=1e-6)
    assert (p_value(gap, s, n, r2) <= alpha) == (gap >= half) or math.isclose(gap, half, rel_tol=1e-6)


def test_moments_are_those_of_the_values() -> None:
    values = [0.5, 1.0, 4.0, 0.0]
    found = moments(values)
    assert (found.mean, found.variance) == (pytest.approx(np.mean(values)), pytest.approx(np.var(values, ddof=1)))


def test_peeking_every_hundred_users_false_alarms_at_most_at_its_level() -> None:
    # A/A, one-sided at 5 % on each side, 300 runs of 20 looks
    rng = np.random.default_rng(8)
    r2, alarms = tuning(0.1, 1000), 0
    for _ in range(300):
        sums = (rng.random((2, 2000)) < 0.3).cumsum(axis=1).astype(float)
        for n in range(100, 2001, 100):
            joint = difference(*(Moments(n, row[n - 1], row[n - 1]) for row in sums))
            if abs(joint.value) > half_width(joint.deviation, joint.n, r2, 0.05):
                alarms += 1
                break
    assert alarms / 300 <= 0.10


# --- verdicts -------------------------------------------------------------------------------------------------


def test_a_candidate_that_is_as_good_advances_once_the_margin_is_excluded() -> None:
    assert decided(rates(100, 0.8, 0.8)).verdict == "hold"
    found = decided(rates(2000, 0.8, 0.8))
    assert found.verdict == "advance"
    assert found.comparisons[0].lower > -0.1
    assert found.comparisons[0].p_safe < 0.05


def test_a_candidate_beyond_the_margin_is_rolled_back() -> None:
    found = decided(rates(2000, 0.55, 0.8))
    assert found.verdict == "rollback"
    assert found.comparisons[0].gain == pytest.approx(-0.25)
    assert found.comparisons[0].p_harm < 0.05


def test_fewer_than_a_hundred_outcomes_on_a_side_decide_nothing() -> None:
    assert decided(rates(99, 0.0, 1.0)).verdict == "hold"
    assert decided(rates(100, 0.0, 1.0)).verdict == "rollback"


def test_lower_is_better_for_every_metric_but_ratings() -> None:
    test = declared(primary={"metric": "error_rate", "margin": 0.05})
    found = decided(rates(2000, 0.2, 0.02), test)
    assert (found.verdict, found.comparisons[0].gain) == ("rollback", pytest.approx(-0.18))


def test_outcomes_that_all_agree_still_have_bounds_of_some_width() -> None:
    found = decided(rates(150, 1.0, 1.0)).comparisons[0]
    assert found.lower < 0 < found.upper


def test_an_unbounded_metric_that_never_varied_decides_nothing() -> None:
    test = declared(primary={"metric": "latency_ms", "margin": 100})
    same = Moments(500, 500 * 20.0, 500 * 400.0)
    assert decided(Pair(same, same), test).verdict == "hold"


def test_secondaries_can_only_harm_and_are_adjusted_for_their_number() -> None:
    names = ("error_rate", "refusal_rate", "truncation_rate")
    test = declared(secondaries=[{"metric": name, "margin": 0.05} for name in names])
    fine, bad = rates(2000, 0.02, 0.02), rates(2000, 0.3, 0.02)
    assert decided(rates(2000, 0.8, 0.8), test, dict.fromkeys(names, fine)).verdict == "advance"
    found = decided(rates(2000, 0.8, 0.8), test, {**dict.fromkeys(names, fine), "refusal_rate": bad})
    assert found.verdict == "rollback"
    assert [reason.split(":")[1].strip() for reason in found.reasons] == ["refusal_rate"]
    harmed = next(one for one in found.comparisons if one.metric == "refusal_rate")
    assert harmed.adjusted_p_harm == pytest.approx(3 * harmed.p_harm)


@given(st.lists(st.sampled_from([0.0, 0.004, 0.02, 0.2, 1.0]), min_size=1, max_size=6))
def test_secondaries_are_adjusted_as_holm_says(p_values: list[float]) -> None:
    one = Comparison("", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    given_ = [one._replace(metric=str(index), p_harm=p) for index, p in enumerate(p_values)]
    assert [found.adjusted_p_harm for found in adjusted(given_, len(given_))] == pytest.approx(list(holm(p_values)))


def test_secondaries_without_enough_outcomes_yet_count_among_those_that_are_tested() -> None:
    names = ("error_rate", "refusal_rate", "truncation_rate")
    test = declared(secondaries=[{"metric": name, "margin": 0.05} for name in names])
    found = decided(rates(2000, 0.8, 0.8), test, {"refusal_rate": rates(2000, 0.12, 0.02)})
    (first,) = [one for one in found.comparisons if one.metric == "refusal_rate"]
    assert first.adjusted_p_harm == pytest.approx(min(1.0, 3 * first.p_harm))


def test_a_wrong_split_is_invalid_whatever_was_measured() -> None:
    found = decided(rates(2000, 0.9, 0.8), users=Split(3000, 2000, 0.5))
    assert found.verdict == "invalid"


odd = st.one_of(st.floats(), st.integers(-5, 10**9), st.just(1e200))
odd_moments = st.builds(Moments, odd, odd, odd)


@settings(max_examples=80)
@given(st.builds(Pair, odd_moments, odd_moments), st.builds(Split, odd, odd, st.just(0.5)))
def test_odd_sums_never_raise_and_never_advance(pair: Pair, users: Split) -> None:
    found = decided(pair, users=users)
    if any(not math.isfinite(value) for arm in pair for value in arm):
        assert found.verdict == "invalid"


# --- what readers expect --------------------------------------------------------------------------------------


def test_welch_and_cohen_agree_with_scipy_and_a_calculation_by_hand() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(0.5, 1, 120), rng.normal(0.2, 2, 300)
    pair = Pair(moments(a.tolist()), moments(b.tolist()))
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert welch(pair) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert welch(pair, -1.0) == (pytest.approx(-expected.statistic), pytest.approx(expected.pvalue))
    pooled = math.sqrt((119 * a.var(ddof=1) + 299 * b.var(ddof=1)) / 418)
    assert cohens_d(pair) == pytest.approx((a.mean() - b.mean()) / pooled)


def test_sides_that_never_varied_have_neither() -> None:
    assert all(math.isnan(value) for value in (*welch(rates(100, 1.0, 1.0)), cohens_d(rates(100, 1.0, 1.0))))
