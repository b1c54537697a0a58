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
    ruling = decide_limit(cost, 1.0, is_floor=False, scale=COST)
    assert (ruling.verdict, ruling.is_split) == ("manual_review", True)


# --- amounts without a largest value, and few clusters --------------------------------------------------------------


def test_rows_without_a_largest_value_never_pass_a_ceiling_but_can_fail_it() -> None:
    cost = np.random.default_rng(0).uniform(0.9, 1.1, 100)
    ruling = decide_limit(cost, 2.0, is_floor=False, scale=COST)
    assert (ruling.verdict, ruling.hindrance, ruling.n_to_decide) == ("manual_review", "no-range", None)
    assert decide_limit(cost, 0.5, is_floor=False, scale=COST).verdict == "fail"
    assert decide_limit(cost, 2.0, is_floor=False, scale=COST._replace(high=10.0)).verdict == "pass"


def test_a_row_beyond_the_declared_largest_value_leaves_the_ceiling_to_a_person() -> None:
    scale = COST._replace(high=10.0)
    cost = np.append(np.full(199, 0.1), 10.0)
    assert decide_limit(cost, 2.0, is_floor=False, scale=scale).verdict == "pass"
    ruling = decide_limit(np.append(cost[:-1], 10.1), 2.0, is_floor=False, scale=scale)
    assert (ruling.verdict, ruling.hindrance) == ("manual_review", "beyond-range")


def test_a_regression_of_rows_without_a_largest_value_is_left_to_a_person() -> None:
    before = np.random.default_rng(0).uniform(0.9, 1.1, 100)
    for after in (before, before * 9):
        ruling = decide_regression(after, before, 0.5, scale=COST)
        assert (ruling.verdict, ruling.hindrance) == ("manual_review", "no-range")
    bounded = COST._replace(high=10.0)
    assert decide_regression(before, before, 0.5, scale=bounded).verdict == "pass"
    assert decide_regression(before * 9, before, 0.5, scale=bounded).verdict == "fail"


@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.0])
def test_a_heavy_tail_on_its_ceiling_seldom_passes(sigma: float) -> None:
    # Student's t passes 8 to 28 % of these
    rng, high = np.random.default_rng(1), math.exp(sigma * 3.09)  # 99.9 % of the rows are below
    truth = float(np.minimum(rng.lognormal(0, sigma, 1_000_000), high).mean())
    scale = COST._replace(high=high)
    draws = np.minimum(rng.lognormal(0, sigma, (600, 100)), high)
    verdicts = [decide_limit(draw, truth, is_floor=False, scale=scale).verdict for draw in draws]
    assert verdicts.count("pass") / 600 < 0.05
    assert verdicts.count("fail") / 600 < 0.1


def test_rare_explosions_of_a_cost_seldom_pass_on_the_margin() -> None:
    # 3 % of the rows cost 100 times as much: 0.97^50 of the samples hold none, Student's t passes 23 %
    rng, scale = np.random.default_rng(2), COST._replace(high=100.0, has_tail=True)
    for n in (50, 224):
        before = rng.uniform(0.5, 1.5, (600, n))
        after = np.where(rng.random((600, n)) < 0.03, 100.0, before)
        margin = 0.03 * 99
        verdicts = [
            decide_regression(now, then, margin, scale=scale).verdict for now, then in zip(after, before, strict=True)
        ]
        assert verdicts.count("pass") / 600 < 0.09


PERPLEXITY = Scale("lower", "continuous", 1.0, 1e4, is_log=True)


def test_a_perplexity_is_held_to_its_ceiling_by_its_geometric_mean() -> None:
    values = np.exp(np.random.default_rng(3).normal(2.0, 1.5, 400).clip(0, 9))
    ruling = decide_limit(values, 20.0, is_floor=False, scale=PERPLEXITY)
    assert ruling.verdict == "pass"
    assert ruling.value == pytest.approx(float(np.exp(np.log(values).mean())))
    assert values.mean() > 17  # the mean says something else
    assert decide_limit(values, 4.0, is_floor=False, scale=PERPLEXITY).verdict == "fail"
    open_end = PERPLEXITY._replace(high=None)
    assert decide_limit(values, 20.0, is_floor=False, scale=open_end).hindrance == "no-range"


def test_a_loss_of_perplexity_is_the_difference_of_the_geometric_means() -> None:
    rng = np.random.default_rng(4)
    before = np.exp(rng.normal(2.0, 1.0, 400).clip(0, 9))
    after = before * 1.5
    ruling = decide_regression(after, before, 1.0, scale=PERPLEXITY)
    geometric = float(np.exp(np.log(before).mean()))
    assert ruling.value == pytest.approx(-0.5 * geometric)
    assert ruling.verdict == "fail"
    assert decide_regression(before, before, 1.0, scale=PERPLEXITY).verdict == "pass"


@pytest.mark.parametrize(
    ("n_clusters", "size"), [(2, 50), (6, 50), (10, 20), (20, 20), (30, 5)], ids=lambda value: str(value)
)
@pytest.mark.parametrize(("rate", "correlation"), [(0.9, 0.33), (0.95, 0.6), (0.8, 0.99)])
def test_a_few_conversations_on_the_floor_seldom_pass(
    n_clusters: int, size: int, rate: float, correlation: float
) -> None:
    rng, weight = np.random.default_rng(5), 1 / correlation - 1
    clusters = np.repeat(np.arange(n_clusters), size)
    passes = 0
    for _ in range(300):
        rates = np.repeat(rng.beta(rate * weight, (1 - rate) * weight, n_clusters), size)
        values = (rng.random(len(rates)) < rates).astype(float)
        passes += decide_limit(values, rate, is_floor=True, scale=RATE, clusters=clusters).verdict == "pass"
    assert passes / 300 < 0.09


@pytest.mark.parametrize(("n_clusters", "verdict"), [(9, "manual_review"), (10, "pass")])
def test_fewer_than_ten_conversations_are_left_to_a_person(n_clusters: int, verdict: str) -> None:
    clusters = np.repeat(np.arange(n_clusters), 20)
    values = np.ones(len(clusters))
    ruling = decide_limit(values, 0.5, is_floor=True, scale=RATE, clusters=clusters)
    assert (ruling.verdict, ruling.hindrance) == (verdict, "few-clusters" if n_clusters == 9 else "")
    assert ruling.n_to_decide == (20 if n_clusters == 9 else None)
    against = decide_regression(values, values, 0.5, scale=RATE, clusters=clusters)
    assert (against.verdict, against.n_to_decide) == (verdict, 20 if n_clusters == 9 else None)


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


# --- how many rows would decide ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_exact", [True, False])
def test_flawless_conversations_are_told_how_many_more_rows_pass(is_exact: bool) -> None:
    scale, clusters = HARM._replace(is_exact=is_exact), np.repeat(np.arange(40), 3)
    ruling = decide_limit(np.zeros(120), 0.05, is_floor=False, scale=scale, clusters=clusters)
    # 120 single rows would pass (59 do), and so it said that one more row was enough
    assert ruling.verdict == "manual_review"
    assert ruling.n_to_decide is not None
    n_clusters = 40 + ruling.n_to_decide // 3
    for number, verdict in ((n_clusters, "pass"), (n_clusters - 1, "manual_review")):
        more = np.repeat(np.arange(number), 3)
        assert decide_limit(np.zeros(len(more)), 0.05, is_floor=False, scale=scale, clusters=more).verdict == verdict


def test_an_undecided_percentile_says_how_many_rows_would_decide() -> None:
    # 2 of 100 above where 5 may be: 98 % against 95 %, Clopper-Pearson's lower bound 0.938382
    latencies = np.array([100.0] * 98 + [900.0] * 2)
    ruling = decide_limit(latencies, 500.0, is_floor=False, scale=P95)
    assert ruling.verdict == "manual_review"
    side = 0.98 - clopper_pearson(98, 100).lower
    assert ruling.n_to_decide == math.ceil(100 * (1.511670 * side / 0.03) ** 2 - 100)
    on_it = decide_limit(np.array([100.0] * 95 + [900.0] * 5), 500.0, is_floor=False, scale=P95)
    assert (on_it.verdict, on_it.n_to_decide) == ("manual_review", None)


def test_an_undecided_loss_of_a_percentile_says_how_many_rows_would_decide() -> None:
    before = np.linspace(90, 110, 60)
    # ln(0.025) / ln(0.95) = 71.9, so that 72 rows bound a 95th percentile at alpha / 2
    assert decide_regression(before, before, 5.0, scale=P95).n_to_decide == 12
    median = Scale("lower", "quantile", 0.0, None, 0.5)
    ruling = decide_regression(before, before, 1.0, scale=median)
    assert (ruling.verdict, ruling.n_to_decide is not None and ruling.n_to_decide > 60) == ("manual_review", True)
