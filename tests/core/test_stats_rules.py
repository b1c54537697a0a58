import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.stats.halves import half_rates
from pipelines.core.stats.intervals import clopper_pearson, wilson
from pipelines.core.stats.judges import Agreement
from pipelines.core.stats.limits import decide_limit
from pipelines.core.stats.paired import paired_rates
from pipelines.core.stats.regressions import decide_regression
from pipelines.core.stats.rules import Scale

RATE = Scale("higher", "binary", 0.0, 1.0)
HARM = Scale("lower", "binary", 0.0, 1.0, is_exact=True)
SCORE = Scale("higher", "continuous", 0.0, 1.0)
COST = Scale("lower", "continuous", 0.0, None)
P95 = Scale("lower", "quantile", 0.0, None, 0.95)


def rows(successes: int, n: int, missing: int = 0) -> np.ndarray:
    return np.array([1.0] * successes + [0.0] * (n - successes) + [math.nan] * missing)


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "pass"), (-1e-9, "pass"), (1e-9, "manual_review")])
def test_a_floor_just_met_passes(shift: float, verdict: str) -> None:
    limit = wilson(30, 50).lower + shift
    assert decide_limit(rows(30, 50), limit, is_floor=True, scale=RATE).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(1e-9, "fail"), (-1e-9, "manual_review")])
def test_a_floor_fails_only_beyond_the_exact_bound(shift: float, verdict: str) -> None:
    limit = clopper_pearson(30, 50).upper + shift
    assert decide_limit(rows(30, 50), limit, is_floor=True, scale=RATE).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "pass"), (1e-9, "pass"), (-1e-9, "manual_review")])
def test_a_safety_ceiling_just_met_passes(shift: float, verdict: str) -> None:
    limit = clopper_pearson(1, 100).upper + shift
    assert decide_limit(rows(1, 100), limit, is_floor=False, scale=HARM).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(-1e-9, "fail"), (1e-9, "manual_review")])
def test_a_ceiling_fails_only_beyond_the_exact_bound(shift: float, verdict: str) -> None:
    limit = clopper_pearson(20, 100).lower + shift
    assert decide_limit(rows(20, 100), limit, is_floor=False, scale=HARM).verdict == verdict


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0.01, 0.99))
def test_a_ceiling_is_the_mirror_image_of_a_floor(successes: int, failures: int, limit: float) -> None:
    if successes + failures == 0:
        return
    values = rows(successes, successes + failures)
    ceiling = decide_limit(values, limit, is_floor=False, scale=RATE)
    floor = decide_limit(1 - values, 1 - limit, is_floor=True, scale=RATE)
    if abs(ceiling.upper - limit) > 1e-9 and abs(ceiling.p_value - 0.05) > 1e-9:
        assert ceiling.verdict == floor.verdict


def test_a_review_says_how_many_rows_would_decide() -> None:
    # none of 40 flagged under a ceiling of 5 %: (1 - 0.05)^59 <= 0.05, so 59 - 40 = 19 more
    assert decide_limit(rows(0, 40), 0.05, is_floor=False, scale=HARM).n_to_decide == 19
    # 0.6 of 50 against 0.5: factor 1 + 0.841621 / 1.644854 = 1.511670, 50 * (1.51167 * half-width / 0.1)^2
    ruling = decide_limit(rows(30, 50), 0.5, is_floor=True, scale=RATE)
    assert ruling.verdict == "manual_review"
    assert ruling.n_to_decide == math.ceil(50 * (1.511670 * (0.6 - wilson(30, 50).lower) / 0.1) ** 2 - 50)


def test_a_value_on_its_limit_is_decided_by_no_number_of_rows() -> None:
    assert decide_limit(rows(25, 50), 0.5, is_floor=True, scale=RATE).n_to_decide is None


def test_missing_rows_that_do_not_matter_leave_a_pass_standing() -> None:
    ruling = decide_limit(rows(160, 165, missing=5), 0.9, is_floor=True, scale=RATE)
    assert (ruling.verdict, ruling.n, ruling.n_missing) == ("pass", 170, 5)
    assert ruling.lower == wilson(160, 170).lower
    assert ruling.upper == wilson(165, 170).upper


def test_missing_rows_that_could_turn_a_verdict_ask_for_review() -> None:
    assert decide_limit(rows(158, 165), 0.92, is_floor=True, scale=RATE).verdict == "pass"
    ruling = decide_limit(rows(158, 165, missing=8), 0.92, is_floor=True, scale=RATE)
    assert (ruling.verdict, ruling.is_split) == ("manual_review", True)


def test_a_missing_row_of_a_metric_without_a_range_asks_for_review() -> None:
    cost = np.append(np.full(50, 1e-5), math.nan)
    assert decide_limit(cost[:-1], 1.0, is_floor=False, scale=COST).verdict == "pass"
    assert decide_limit(cost, 1.0, is_floor=False, scale=COST).verdict == "manual_review"


@pytest.mark.parametrize(("n", "verdict"), [(19, "manual_review"), (20, "pass")])
def test_a_mean_score_is_not_decided_below_twenty_rows(n: int, verdict: str) -> None:
    ruling = decide_limit(np.full(n, 0.9), 0.5, is_floor=True, scale=SCORE)
    assert ruling.verdict == verdict
    assert ruling.n_to_decide == (1 if n == 19 else None)


@pytest.mark.parametrize(("n", "verdict", "more"), [(58, "manual_review", 1), (59, "pass", None)])
def test_a_95th_percentile_needs_59_rows(n: int, verdict: str, more: int | None) -> None:
    ruling = decide_limit(np.full(n, 100.0), 200.0, is_floor=False, scale=P95)
    assert (ruling.verdict, ruling.n_to_decide) == (verdict, more)


def test_slow_requests_fail_a_latency_ceiling() -> None:
    # 10 of 60 above the limit where 5 % may be: P(Binomial(60, 0.05) >= 10) = 0.0006
    ruling = decide_limit(np.array([100.0] * 50 + [900.0] * 10), 500.0, is_floor=False, scale=P95)
    assert ruling.verdict == "fail"
    assert ruling.p_value == pytest.approx(0.0006, abs=2e-4)


def test_a_missing_latency_keeps_the_bound_of_sixty_rows_open() -> None:
    latencies = np.array([100.0] * 59 + [math.nan])
    assert decide_limit(latencies, 500.0, is_floor=False, scale=P95).verdict == "manual_review"


@pytest.mark.parametrize(("shift", "verdict"), [(1e-9, "pass"), (-1e-9, "manual_review")])
def test_a_margin_just_kept_passes(shift: float, verdict: str) -> None:
    candidate, baseline = rows(80, 100), rows(83, 100)
    margin = -paired_rates(0, 3, 100).lower + shift
    assert decide_regression(candidate, baseline, margin, scale=RATE).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(-1e-6, "fail"), (1e-6, "manual_review")])
def test_a_margin_fails_only_if_the_whole_interval_is_beyond_it(shift: float, verdict: str) -> None:
    candidate, baseline = rows(60, 100), rows(90, 100)
    margin = -paired_rates(0, 30, 100).upper + shift
    assert decide_regression(candidate, baseline, margin, scale=RATE).verdict == verdict


def test_missing_answers_are_worst_for_the_candidate_and_best_for_the_baseline() -> None:
    candidate, baseline = rows(90, 96, missing=4), rows(90, 96, missing=4)
    candidate[:4], baseline[96:] = math.nan, 0.0
    ruling = decide_regression(candidate, baseline, 0.3, scale=RATE)
    # candidate: rows 0-3 and 96-99 missing; the former were right before, the latter wrong
    assert ruling.n_missing == 8
    assert ruling.lower == paired_rates(0, 4, 100).lower
    assert ruling.upper == paired_rates(4, 0, 100).upper


def test_slower_medians_fail_a_margin_and_equal_ones_pass() -> None:
    median = Scale("lower", "quantile", 0.0, None, 0.5)
    before = np.linspace(90, 110, 60)
    assert decide_regression(before * 3, before, 50.0, scale=median).verdict == "fail"
    assert decide_regression(before, before, 50.0, scale=median).verdict == "pass"
    assert decide_regression(before, before, 1.0, scale=median).verdict == "manual_review"


def test_a_judged_rate_is_decided_on_what_people_would_have_said() -> None:
    # the judge calls 80 of 100 good; q0 = q1 = 0.9: theta = (0.8 + 0.9 - 1) / 0.8 = 0.875
    judged = RATE._replace(agreement=Agreement(50, 50, 45, 45))
    ruling = decide_limit(rows(80, 100), 0.7, is_floor=True, scale=judged)
    assert ruling.value == pytest.approx(0.875)
    assert ruling.lower == pytest.approx(0.767763, abs=1e-6)
    assert ruling.verdict == "pass"


scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), min_size=2, max_size=60)


@given(scores, st.floats(0.05, 0.95), st.data(), st.sampled_from([RATE, SCORE]), st.booleans())
def test_losing_a_row_never_turns_another_verdict_into_a_pass(
    values: list[float], limit: float, data: st.DataObject, scale: Scale, is_floor: bool
) -> None:
    before = np.array(values)
    if scale is RATE:
        before = np.where(np.isnan(before), before, np.round(before))
    lost = data.draw(st.lists(st.integers(0, len(before) - 1), max_size=5))
    after = before.copy()
    after[lost] = math.nan
    if np.isnan(after).all():
        return
    was = decide_limit(before, limit, is_floor=is_floor, scale=scale).verdict
    now = decide_limit(after, limit, is_floor=is_floor, scale=scale).verdict
    assert now != "pass" or was == "pass"
    assert now != "fail" or was == "fail"


@given(scores, st.integers(0, 2**32 - 1), st.floats(0, 0.5), st.data(), st.sampled_from([RATE, SCORE]))
def test_losing_a_row_on_either_side_never_turns_another_verdict_into_a_pass(
    values: list[float], seed: int, margin: float, data: st.DataObject, scale: Scale
) -> None:
    candidate = np.array(values)
    baseline = np.random.default_rng(seed).permutation(candidate)
    if scale is RATE:
        candidate, baseline = np.round(candidate), np.round(baseline)
    lost = [data.draw(st.lists(st.integers(0, len(values) - 1), max_size=4)) for _ in range(2)]
    fewer = candidate.copy(), baseline.copy()
    fewer[0][lost[0]], fewer[1][lost[1]] = math.nan, math.nan
    if np.isnan(fewer[0] + fewer[1]).all():
        return
    was = decide_regression(candidate, baseline, margin, scale=scale).verdict
    now = decide_regression(*fewer, margin, scale=scale).verdict
    assert now != "pass" or was == "pass"


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), min_size=4, max_size=60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.7]),
    st.data(),
    st.sampled_from([RATE, SCORE]),
)
def test_losing_a_row_of_a_conversation_never_makes_the_others_look_surer(
    members: list[tuple[int, float]], seed: int, limit: float, data: st.DataObject, scale: Scale
) -> None:
    clusters = np.array([cluster for cluster, _ in members], dtype=np.int64)
    values = np.array([value for _, value in members])
    if scale is RATE:
        values = np.ceil(values)
    baseline = np.random.default_rng(seed).permutation(values)
    fewer = values.copy()
    fewer[data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=3))] = math.nan
    for is_floor in (True, False):
        was, now = (
            decide_limit(side, limit, is_floor=is_floor, scale=scale, clusters=clusters).verdict
            for side in (values, fewer)
        )
        assert now == was or now == "manual_review"
    was, now = (
        decide_regression(side, baseline, limit, scale=scale, clusters=clusters).verdict for side in (values, fewer)
    )
    assert now == was or now == "manual_review"


@given(st.integers(1, 100), st.integers(0, 100), st.floats(0.01, 0.99))
def test_a_better_row_never_makes_a_verdict_worse(n: int, successes: int, limit: float) -> None:
    successes = min(successes, n - 1)
    order = ["fail", "manual_review", "pass"]
    less = decide_limit(rows(successes, n), limit, is_floor=True, scale=RATE).verdict
    more = decide_limit(rows(successes + 1, n), limit, is_floor=True, scale=RATE).verdict
    assert order.index(more) >= order.index(less)


def test_halves_of_the_same_rows_hardly_ever_fail() -> None:
    rng = np.random.default_rng(5)
    values = (rng.random(300) < 0.6).astype(float)
    rates = half_rates(values, 0.08, scale=RATE, rng=rng)
    assert rates.passes + rates.reviews + rates.fails == pytest.approx(1)
    assert rates.fails < 0.05
    assert rates.reviews > 0.2


def test_halves_of_scores_are_decided_like_scores() -> None:
    rng = np.random.default_rng(5)
    assert half_rates(rng.random(2_000), 0.1, scale=SCORE, rng=rng, n_rounds=20).passes == 1
