import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.release.evidence import (
    HARM,
    PROOF,
    Exposure,
    Record,
    bounds,
    growth_to,
    log_e,
    log_odds,
    of_rate,
    of_ratio,
    rate_at,
)

records = st.integers(0, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
limits = st.floats(0.001, 0.9)


def e(events: float, n: float, limit: float, against: tuple) -> float:
    return math.exp(log_e(of_rate(events, n), log_odds(limit), against))


def test_one_failed_request_agrees_with_a_calculation_by_hand() -> None:
    # at 1 %: 1.5 / 1.005 * 0.1 + 2 / 1.01 * 0.2 + 3 / 1.02 * 0.35 + 6 / 1.05 * 0.2 + 15 / 1.14 * 0.15
    # = 0.149254 + 0.396040 + 1.029412 + 1.142857 + 1.973684
    assert e(1, 1, 0.01, HARM) == pytest.approx(4.691247, abs=1e-6)


def test_one_good_request_agrees_with_a_calculation_by_hand() -> None:
    # odds 2/3, 1/2, 1/5 and 0 times those of 1 %: 0.1 / 0.996667 + 0.45 / 0.995 + 0.2 / 0.992 + 0.25 / 0.99
    assert e(0, 1, 0.01, PROOF) == pytest.approx(0.100334 + 0.452261 + 0.201613 + 0.252525, abs=2e-6)


@pytest.mark.parametrize("against", [HARM, PROOF])
@pytest.mark.parametrize("limit", [1e-6, 0.01, 0.5, 0.999999])
def test_nothing_counted_is_no_evidence_at_all(against: tuple, limit: float) -> None:
    assert log_e(of_rate(0, 0), log_odds(limit), against) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("against", [HARM, PROOF])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.4])
def test_on_the_line_the_mean_e_value_is_exactly_one_at_every_n(against: tuple, limit: float) -> None:
    for n in (1, 7, 60):
        mean = sum(math.comb(n, s) * limit**s * (1 - limit) ** (n - s) * e(s, n, limit, against) for s in range(n + 1))
        assert mean == pytest.approx(1, rel=1e-9)


@given(st.floats(0.01, 0.99))
def test_on_the_good_side_of_the_line_evidence_of_harm_can_only_fall(share: float) -> None:
    limit, n = 0.05, 40
    p = limit * share
    assert sum(math.comb(n, s) * p**s * (1 - p) ** (n - s) * e(s, n, limit, HARM) for s in range(n + 1)) <= 1


@given(records, limits)
def test_bounds_and_tests_say_the_same(record: tuple[int, int], limit: float) -> None:
    x, counted = log_odds(limit), of_rate(*record)
    found = bounds(counted, fail_bar=math.log(60), pass_bar=math.log(20))
    if abs(found.lower - x) > 1e-3:
        assert (found.lower > x) == (log_e(counted, x, HARM) >= math.log(60))
    if abs(found.upper - x) > 1e-3:
        assert (found.upper < x) == (log_e(counted, x, PROOF) >= math.log(20))


@given(records)
def test_bounds_hold_the_measured_rate_between_them(record: tuple[int, int]) -> None:
    events, n = record
    found = bounds(of_rate(events, n), fail_bar=math.log(60), pass_bar=math.log(20))
    if n:
        assert rate_at(max(found.lower, -700)) <= events / n + 1e-9
        assert rate_at(min(found.upper, 700)) >= events / n - 1e-9


@given(records, st.floats(1e-9, 1 - 1e-9))
def test_evidence_is_finite_whatever_was_counted(record: tuple[int, int], limit: float) -> None:
    for against in (HARM, PROOF):
        assert math.isfinite(log_e(of_rate(*record), log_odds(limit), against))


def test_a_ratio_asks_whose_event_each_event_is() -> None:
    # 100 of 1,000 requests are the candidate's: odds 1/9 per event. 5 of 14 events, ratio 2: null odds 2/9.
    record = of_ratio([(5, 100, 9, 900)])
    assert record == Record(5, (Exposure(14, pytest.approx(math.log(1 / 9))),))
    p = (2 / 9) / (1 + 2 / 9)
    by_hand = sum(math.exp(part.log_weight) * part.multiple**5 / (1 + (part.multiple - 1) * p) ** 14 for part in HARM)
    assert math.exp(log_e(record, math.log(2), HARM)) == pytest.approx(by_hand)


def test_epochs_in_which_one_side_had_no_request_say_nothing_about_a_ratio() -> None:
    assert of_ratio([(7, 100, 0, 0), (0, 0, 9, 50)]) == Record(0, ())
    assert of_ratio([(7, 100, 0, 0), (1, 10, 2, 10)]) == of_ratio([(1, 10, 2, 10)])


def test_growth_is_where_the_evidence_reaches_its_bar() -> None:
    # Flawless requests against 1 %: the 390th of every tenth proves (0.95 of the weight lies above odds 0).
    x, bar = log_odds(0.01), math.log(20)
    growth = growth_to(lambda g: log_e(of_rate(0, 100).grown(g), x, PROOF) - bar)
    assert growth is not None
    n = math.ceil(100 * growth)
    assert e(0, n, 0.01, PROOF) >= 20 > e(0, n - 2, 0.01, PROOF)


def test_a_rate_on_its_limit_is_never_decided_by_more_of_the_same() -> None:
    x = log_odds(0.01)
    record = of_rate(10, 1000)
    excess = [lambda g: log_e(record.grown(g), x, HARM) - 4, lambda g: log_e(record.grown(g), x, PROOF) - 3]
    assert [growth_to(one) for one in excess] == [None, None]
