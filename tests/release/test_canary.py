import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.gates import load_gates
from pipelines.core.rollout import Rollout
from pipelines.release.canary import Verdict, describe, is_harmful, verdict
from pipelines.release.checks import bars
from pipelines.release.counters import Arm, Counters, Epoch, from_json
from pipelines.release.forecast import edges

ROOT = Path(__file__).parents[2]
STAGES = [
    {"weight": 10, "require": "no_harm", "min_requests": 50, "max_duration_s": 600},
    {"weight": 50, "require": "proven", "min_requests": 100, "max_duration_s": 600},
]


def rollout(gates: dict[str, Any], **more: Any) -> Rollout:
    declared = {"requests_per_minute": 600, "gates": gates, "stages": STAGES, "max_unknown_s": 60, **more}
    return Rollout.model_validate_json(json.dumps(declared))


ERRORS = rollout({"error_rate": {"ceiling": 0.05}})


def counted(errors: float, n: float, *, weight: float = 10, **arm: Any) -> Counters:
    other = n * (100 - weight) / weight
    return Counters((Epoch(weight, Arm(requests=n, errors=errors, users=n, **arm), Arm(requests=other, users=other)),))


def decided(counters: Counters, stage: int | None = 0, rules: Rollout = ERRORS) -> Verdict:
    return verdict(counters, stage, rules)


# --- the four words -------------------------------------------------------------------------------------------


def test_enough_requests_without_harm_advance_and_one_less_holds() -> None:
    assert decided(counted(3, 50)).verdict == "advance"
    found = decided(counted(3, 49))
    assert (found.verdict, found.requests_to_decide) == ("hold", 1)
    assert found.reasons == ("49 of 50 requests in this stage",)


def test_a_proven_stage_waits_for_proof_and_takes_it_at_the_edge() -> None:
    edge = edges(0.05, bars(ERRORS), every=1, most=300)
    n = 250
    most = edge.passes[n - 1]
    at = Counters((Epoch(10, Arm(requests=100, users=100), Arm(requests=900, users=900)),))
    for errors, word in ((most, "advance"), (most + 1, "hold")):
        stage = Arm(requests=150, errors=errors, users=150)
        found = decided(at.grown(50, stage, Arm(requests=150, users=150)), 1)
        assert found.verdict == word
        assert (found.n_requests, found.n_total) == (150, 250)
    assert found.reasons[0].startswith("not yet proven: error_rate: ")
    assert found.requests_to_decide is not None


def test_evidence_of_earlier_stages_counts_but_their_requests_are_not_this_stages() -> None:
    before = counted(0, 500)
    found = decided(before.grown(50, Arm(requests=99, users=99), Arm(requests=99, users=99)), 1)
    assert found.reasons == ("99 of 100 requests in this stage",)
    assert found.checks[0].status == "proven"


def test_harm_rolls_back_at_the_edge_and_not_one_error_before_even_without_enough_requests() -> None:
    edge = edges(0.05, bars(ERRORS), every=1, most=60)
    for n in (5, 20, 40):
        fewest = edge.fail[n - 1]
        assert decided(counted(fewest, n)).verdict == "rollback"
        assert decided(counted(fewest - 1, n)).verdict == "hold"
    found = decided(counted(fewest, n))
    assert found.checks[0].status == "failed"
    assert found.reasons[0].startswith(f"error_rate: {fewest} of 40 requests, {fewest / 40:.0%} (".replace("%", " %"))


def test_during_an_ab_test_harm_and_a_wrong_split_are_found_and_nothing_advances() -> None:
    def tested(errors: float, n: float, other: float) -> Verdict:
        arms = Arm(requests=n, errors=errors, users=n), Arm(requests=other, users=other)
        return decided(Counters((Epoch(50, *arms, "ab_test"),)), None)

    fine = tested(0, 1000, 1000)
    assert (fine.verdict, fine.reasons, fine.n_requests, fine.requests_to_decide) == ("hold", (), 1000, None)
    assert tested(12, 40, 40).verdict == "rollback"
    assert tested(0, 1000, 500).verdict == "invalid"


def test_requests_of_the_ab_test_are_none_of_a_stage_of_its_weight() -> None:
    test = Epoch(50, Arm(requests=400, users=400), Arm(requests=400, users=400), "ab_test")
    stage = Epoch(50, Arm(requests=99, users=99), Arm(requests=99, users=99), "canary-2")
    found = decided(Counters((test, stage)), 1)
    assert (found.verdict, found.reasons) == ("hold", ("99 of 100 requests in this stage",))
    assert (found.n_requests, found.n_total, found.checks[0].n) == (99, 499, 499)


def test_no_traffic_holds_and_says_how_much_is_missing() -> None:
    for counters in (Counters(), counted(0, 0)):
        found = decided(counters)
        assert (found.verdict, found.requests_to_decide) == ("hold", 50)


def test_users_that_are_split_otherwise_make_comparisons_invalid() -> None:
    wrong = Counters((Epoch(10, Arm(requests=300, users=300), Arm(requests=900, users=900)),))
    found = decided(wrong)
    assert found.verdict == "invalid"
    assert found.sample_ratio_p <= 0.01


def test_a_wrong_split_spoils_comparisons_and_not_what_the_candidate_does_by_itself() -> None:
    candidate = Arm(requests=300, errors=60, users=300)
    wrong = Counters((Epoch(10, candidate, Arm(requests=900, errors=1, users=900)),))
    assert decided(wrong).verdict == "rollback"
    assert decided(wrong, 0, rollout({"error_rate": {"max_ratio": 2, "ceiling": 0.9}})).verdict == "invalid"


# --- gates ----------------------------------------------------------------------------------------------------


def test_a_percentile_counts_what_the_bucket_of_its_limit_leaves_out() -> None:
    rules = rollout({"latency_p95_ms": {"ceiling": 2000}})
    found = decided(counted(0, 100, latency=((1.0, 20), (2.0, 96), (5.0, 100))), 0, rules)
    assert (found.checks[0].events, found.checks[0].n, found.checks[0].limit) == (4, 100, 0.05)


def test_a_time_to_first_token_counts_streams_only() -> None:
    rules = rollout({"ttft_p95_ms": {"ceiling": 500}})
    found = decided(counted(0, 100, streams=40, ttft=((0.5, 39),)), 0, rules)
    assert (found.checks[0].events, found.checks[0].n) == (1, 40)


def test_a_limit_that_is_no_bound_of_the_histogram_is_invalid() -> None:
    rules = rollout({"latency_p95_ms": {"ceiling": 2000}})
    found = decided(counted(0, 100, latency=((1.0, 20), (5.0, 100))), 0, rules)
    assert found.verdict == "invalid"
    assert found.reasons == ("latency_p95_ms: the histogram has no bound at 2 s; limits must be bounds",)


def test_a_candidate_worse_than_stable_is_rolled_back_though_within_its_limit() -> None:
    rules = rollout({"error_rate": {"ceiling": 0.2, "max_ratio": 1.5}})
    epoch = Epoch(50, Arm(requests=1000, errors=60, users=100), Arm(requests=1000, errors=10, users=100))
    found = decided(Counters((epoch,)), 1, rules)
    assert found.verdict == "rollback"
    assert [check.status for check in found.checks] == ["proven", "failed"]
    assert found.checks[1].value == pytest.approx(6, rel=1e-6)
    assert found.reasons[0].startswith(
        "error_rate: 6.00 times stable's rate (2.41 to 18.68; 60 of 70 events), limit 1.5"
    )


def test_what_a_candidate_calls_wrong_is_compared_with_stable_where_it_is_and_else_held_against_the_limit() -> None:
    def rejecting(mine: float, theirs: float) -> Counters:
        arms = Arm(requests=1000, rejections=mine), Arm(requests=1000, rejections=theirs)
        return Counters((Epoch(50, *arms),))

    compared = rollout({"error_rate": {"ceiling": 0.05, "max_ratio": 2}})
    assert decided(rejecting(300, 300), 1, compared).verdict == "advance"  # the clients' own mistakes
    found = decided(rejecting(300, 3), 1, compared)
    assert (found.verdict, [check.events for check in found.checks]) == ("rollback", [0, 300])
    assert decided(rejecting(300, 300), 1).verdict == "rollback"
    assert decided(rejecting(9, 9), 1).verdict == "advance"


def test_clients_that_leave_a_candidate_count_against_it_where_slow_requests_are_compared() -> None:
    def leaving(mine: float, theirs: float) -> Counters:
        arms = (Arm(requests=1000, departures=n, latency=((2.0, 999),)) for n in (mine, theirs))
        return Counters((Epoch(50, *arms),))

    compared = rollout({"latency_p95_ms": {"ceiling": 2000, "max_ratio": 4}})
    assert decided(leaving(200, 200), 1, compared).verdict == "advance"  # they leave streams when they have read enough
    found = decided(leaving(200, 2), 1, compared)
    assert (found.verdict, [check.events for check in found.checks]) == ("rollback", [1, 201])
    assert decided(leaving(200, 2), 1, rollout({"latency_p95_ms": {"ceiling": 2000}})).verdict == "advance"


def test_a_base_rate_that_moves_between_epochs_is_no_difference() -> None:
    # both sides fail 1 % at 10 % weight and 20 % at 50 %: pooled, the candidate would seem five times as bad
    epochs = (
        Epoch(10, Arm(requests=1000, errors=10), Arm(requests=9000, errors=90)),
        Epoch(50, Arm(requests=5000, errors=1000), Arm(requests=5000, errors=1000)),
    )
    found = decided(Counters(epochs), 1, rollout({"error_rate": {"max_ratio": 1.3, "prove": "all"}}))
    assert found.checks[0].value == pytest.approx(1, rel=1e-6)
    assert (found.verdict, found.checks[0].status) == ("advance", "proven")


def test_low_ratings_roll_back_and_few_ratings_hold_nobody_up() -> None:
    rules = rollout({"error_rate": {"ceiling": 0.05}, "rating": {"floor": 3.5, "scale": [1, 5]}})
    assert decided(counted(0, 200, ratings=((5.0, 2),)), 0, rules).verdict == "advance"
    found = decided(counted(0, 200, ratings=((1.0, 30), (3.0, 10))), 0, rules)
    assert found.verdict == "rollback"
    assert found.reasons[0].startswith("rating: mean 1.50 (1.19 to 2.11) of 40 ratings, floor 3.5")


def test_a_rating_that_is_not_on_the_scale_is_invalid() -> None:
    rules = rollout({"error_rate": {"ceiling": 0.05}, "rating": {"floor": 3.5, "scale": [1, 5]}})
    assert decided(counted(0, 200, ratings=((0.0, 3),)), 0, rules).verdict == "invalid"


def test_several_gates_that_nearly_fail_fail_together() -> None:
    rules = rollout({f"{name}_rate": {"ceiling": 0.05} for name in ("error", "refusal", "truncation")})
    edge = edges(0.05, bars(rules), every=1, most=30)
    short = edge.fail[19] - 1
    alone = Arm(requests=20, errors=short)
    assert decided(Counters((Epoch(10, alone, Arm()),)), 0, rules).verdict == "hold"
    found = decided(Counters((Epoch(10, replace(alone, refusals=short, truncations=short), Arm()),)), 0, rules)
    assert found.verdict == "rollback"
    assert all(reason.startswith("together: ") for reason in found.reasons)


def test_the_mean_of_evidence_is_never_less_than_bonferroni() -> None:
    assert is_harmful([math.log(60) + 1e-9, -50.0, -50.0], 3, 0.05)
    assert not is_harmful([math.log(60) - 1e-6, -50.0, -50.0], 3, 0.05)
    assert is_harmful([math.log(20) + 1e-9] * 3, 3, 0.05)
    assert not is_harmful([], 3, 0.05)


# --- whatever comes in ----------------------------------------------------------------------------------------

odd = st.one_of(st.floats(), st.integers(-5, 10**9), st.just(1e300))
odd_levels = st.lists(st.tuples(odd, odd), max_size=3).map(tuple)
odd_arms = st.builds(Arm, odd, odd, odd, odd, odd, odd, odd_levels, odd_levels, odd, odd_levels)
SHIPPED = load_gates(ROOT / "gates.yaml").canary
assert SHIPPED is not None
assert SHIPPED.kubernetes is not None
PRODUCTION = SHIPPED.kubernetes


@settings(max_examples=60)
@given(st.lists(st.builds(Epoch, odd, odd_arms, odd_arms), max_size=3).map(tuple))
def test_no_counters_make_it_raise_and_none_that_are_odd_advance(epochs: tuple[Epoch, ...]) -> None:
    counters = Counters(epochs)
    found = decided(counters, 0, PRODUCTION)
    if counters.problems():
        assert found.verdict == "invalid"
    json.dumps(found.as_json(), allow_nan=False)


def test_a_verdict_is_plain_json_with_nine_digits_and_nothing_infinite() -> None:
    found = decided(counted(1, 3)).as_json()
    check = found["checks"][0]
    assert (found["verdict"], check["value"], decided(Counters()).as_json()["checks"][0]["value"]) == (
        "hold", 0.333333333, None,
    )  # fmt: skip


sane = st.integers(0, 3000).flatmap(
    lambda n: st.builds(
        Arm, st.just(n), *[st.integers(0, n)] * 4, st.integers(0, n),
        st.integers(0, n).map(lambda k: ((5.0, k),)), st.just(((1.0, 0),)), st.just(0),
        st.integers(0, n).map(lambda k: ((1.0, k),)),
    )
)  # fmt: skip


@settings(max_examples=60)
@given(st.builds(Epoch, st.just(5.0), sane, sane), st.integers(1, 50))
def test_more_errors_never_turn_a_rollback_into_an_advance(epoch: Epoch, more: int) -> None:
    worse = replace(epoch.candidate, errors=min(epoch.candidate.requests, epoch.candidate.errors + more))
    before = decided(Counters((epoch,)), 0, PRODUCTION)
    after = decided(Counters((replace(epoch, candidate=worse),)), 0, PRODUCTION)
    assert not (before.verdict == "rollback" and after.verdict == "advance")
    assert after.checks[0].log_e_fail >= before.checks[0].log_e_fail - 1e-9
    for check in after.checks:
        assert describe(check)
        assert check.lower <= check.upper


def test_the_same_counters_read_back_give_the_same_verdict() -> None:
    counters = counted(3, 321, latency=((5.0, 300),), ttft=((1.0, 0),), ratings=((1.0, 9), (0.0, 2)))
    assert decided(from_json(counters.to_json()), 0, PRODUCTION) == decided(counters, 0, PRODUCTION)


def test_a_healthy_candidate_is_rarely_rolled_back_over_all_stages_and_looks() -> None:
    # two gates at half of their limits and one right on its limit, a look every twenty requests, 40 runs
    limits = {"error_rate": 0.05, "refusal_rate": 0.1, "truncation_rate": 0.1}
    rules = rollout({name: {"ceiling": limit} for name, limit in limits.items()})
    rng = np.random.default_rng(7)
    words = []
    for _ in range(40):
        drawn = (rng.random((3, 400)) < np.array([[0.05], [0.05], [0.05]])).cumsum(axis=1)
        found = [
            decided(Counters((Epoch(10, Arm(n, *(float(row[n - 1]) for row in drawn)), Arm()),)), 1, rules).verdict
            for n in range(20, 401, 20)
        ]
        words.append("rollback" in found)
    assert sum(words) <= 2


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("pipelines.release.canary, pipelines.core.gates", {"numpy", "scipy", "torch", "pandas"}),
        ("pipelines.release.verdict_page, pipelines.release.declaration", {"numpy", "scipy", "torch", "pandas"}),
        ("pipelines.release.forecast, pipelines.release.declaration", {"scipy", "torch", "pandas"}),
    ],
)
def test_the_gateways_process_can_decide_without_heavy_libraries(modules: str, absent: set[str]) -> None:
    code = f"import sys; import {modules}; print({absent!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
