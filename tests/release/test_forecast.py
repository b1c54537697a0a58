import math
from itertools import product
from pathlib import Path

import pytest

from pipelines.core.gates import load_gates
from pipelines.release.checks import Bars
from pipelines.release.evidence import HARM, PROOF, log_e, log_odds, of_rate
from pipelines.release.forecast import course, edges, expected_stages, required_requests

ROOT = Path(__file__).parents[2]
BARS = Bars(math.log(60), math.log(20))


def test_edges_are_where_the_evidence_reaches_its_bars() -> None:
    found = edges(0.05, BARS, every=7, most=350)
    x = log_odds(0.05)
    for n, fail, passes in zip(*found, strict=True):
        assert log_e(of_rate(fail - 1, n), x, HARM) < BARS.fail
        assert fail > n or log_e(of_rate(fail, n), x, HARM) >= BARS.fail
        assert log_e(of_rate(passes + 1, n), x, PROOF) < BARS.passes
        assert passes < 0 or log_e(of_rate(passes, n), x, PROOF) >= BARS.passes


def test_a_short_course_agrees_with_going_through_every_outcome() -> None:
    # at most 8 requests, a look after every second one, a true rate of 0.6 against a limit of 0.1
    rate, x = 0.6, log_odds(0.1)
    failed, by_six = 0.0, 0.0
    for outcome in product((0, 1), repeat=8):
        probability = math.prod(rate if bit else 1 - rate for bit in outcome)
        for n in (2, 4, 6, 8):
            if log_e(of_rate(sum(outcome[:n]), n), x, HARM) >= BARS.fail:
                failed, by_six = failed + probability, by_six + probability * (n <= 6)
                break
    found = course(rate, 0.1, BARS, every=2, most=8)
    assert found.p_fail == pytest.approx(failed)
    assert found.p_pass == 0
    assert by_six >= 0.5
    assert found.median == 6


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_on_the_line_neither_error_exceeds_its_level(limit: float) -> None:
    found = course(limit, limit, BARS, most=4000)
    assert found.p_fail <= 1 / 60
    assert found.p_pass <= 1 / 20


def test_a_flawless_candidate_is_proven_at_a_number_known_beforehand() -> None:
    assert course(0.0, 0.01, BARS) == (0.0, 1.0, 390, 390, 390)


def test_three_times_the_limit_is_rolled_back_within_five_hundred_requests_on_average() -> None:
    found = course(0.03, 0.01, BARS)
    assert found.p_fail > 0.9999
    assert found.mean < 400


def test_the_shipped_rollouts_are_forecast_within_their_time() -> None:
    canary = load_gates(ROOT / "gates.yaml").canary
    assert canary is not None
    for rollout in (canary.local, canary.kubernetes):
        assert rollout is not None
        for stage in expected_stages(rollout, requests_per_minute=rollout.requests_per_minute):
            assert 0 < stage.minutes < stage.most_minutes
        required = required_requests(rollout)
        assert {one.gate for one in required} <= set(rollout.gates.rules())
        assert all(one.course.p_pass > 0.99 for one in required if one.rate < one.limit)
        assert all(one.course.p_fail > 0.99 for one in required if one.rate > one.limit)


def test_less_traffic_takes_longer_in_proportion() -> None:
    canary = load_gates(ROOT / "gates.yaml").canary
    assert canary is not None
    assert canary.local is not None
    fast, slow = (expected_stages(canary.local, requests_per_minute=rate) for rate in (120, 60))
    assert [stage.minutes * 2 for stage in fast] == pytest.approx([stage.minutes for stage in slow])
