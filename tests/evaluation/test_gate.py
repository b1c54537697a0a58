import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.stats.intervals import wilson
from pipelines.core.stats.paired import paired_rates
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.deciding.checks import Check
from pipelines.evaluation.gate import Decision, as_json
from pipelines.evaluation.results import Results
from tests.evaluation.evidence import FETCHED, NAN, evaluation, gates, names, right, suite, verdict

FLOOR = gates(exact_match={"floor": 0.4})
MARGIN = gates(exact_match={"max_regression": 0.08})
GRADE = Metric("tone", "higher", 0.0, 1.0, "continuous", False, "share", "tone", None, "Grade of the judge 'tone'.")


def only(decision: Decision) -> Check:
    (gate,) = decision.gates
    (check,) = gate.checks
    return check


def flipped(values: list[float], *rows: int) -> list[float]:
    return [1 - value if row in rows else value for row, value in enumerate(values)]


# --- limits -----------------------------------------------------------------------------------------------------


def test_a_floor_that_the_lower_bound_keeps_passes_and_says_so() -> None:
    decision = verdict(FLOOR, suite(exact_match=right(104, 170)))
    assert decision.verdict == "pass"
    assert only(decision).reason == "exact_match 0.61 [0.55, 0.67] is at least the floor 0.40"
    assert decision.reasons == ("all 1 checks of 1 gates pass",)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, "pass"), (-1e-6, "pass"), (1e-6, "manual_review")])
def test_a_floor_just_met_passes(shift: float, expected: str) -> None:
    rules = gates(exact_match={"floor": wilson(104, 170).lower + shift})
    assert verdict(rules, suite(exact_match=right(104, 170))).verdict == expected


def test_an_undecided_floor_says_how_many_rows_would_decide() -> None:
    decision = verdict(gates(exact_match={"floor": 0.55}), suite(exact_match=right(104, 170)))
    assert decision.verdict == "manual_review"
    check = only(decision)
    assert check.n_to_decide is not None
    assert f"undecided: about {check.n_to_decide} more rows would decide" in check.reason
    assert decision.reasons == (f"quality: {check.reason}",)


def test_a_floor_far_above_fails() -> None:
    decision = verdict(gates(exact_match={"floor": 0.9}), suite(exact_match=right(104, 170)))
    assert decision.verdict == "fail"
    assert "is below the floor 0.90" in decision.reasons[0]


def test_safety_rates_are_bounded_exactly_unless_a_gate_says_otherwise() -> None:
    clean = suite(injection_obedience_rate=[0.0] * 52)
    assert only(verdict(gates(injection_obedience_rate={"ceiling": 0.05}), clean)).verdict == "manual_review"
    assert only(verdict(gates(injection_obedience_rate={"ceiling": 0.05, "exact": False}), clean)).verdict == "pass"


def test_rows_to_which_a_metric_does_not_apply_do_not_count() -> None:
    decision = verdict(gates(bias_gap_rate={"ceiling": 0.25}), suite(bias_gap_rate=[0.0] * 30 + [None] * 70))
    assert (decision.verdict, only(decision).n) == ("pass", 30)


def test_metrics_of_a_suite_that_nobody_gates_change_nothing() -> None:
    assert verdict(FLOOR, suite(exact_match=right(104, 170), token_f1=[0.0] * 170)).verdict == "pass"


# --- no evidence is never a pass --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, "evaluation/triage/rows.parquet has no values of it"),
        (suite(token_f1=[1.0] * 50), "evaluation/triage/rows.parquet has no values of it"),
        (suite(ids=[], exact_match=[]), "applies to no row"),
        (suite(exact_match=[None] * 50), "applies to no row"),
        (suite(exact_match=[NAN] * 50), "all of 50 rows are missing"),
        (suite(exact_match=[1.0] * 94 + [NAN] * 6), "6 of 100 rows are missing (6.0%, at most 5.0% may be)"),
    ],
)
def test_missing_evidence_is_an_error(results: Results | None, message: str) -> None:
    decision = verdict(FLOOR, results)
    assert decision.verdict == "error"
    assert message in decision.reasons[0]


def test_a_gate_over_a_metric_that_no_suite_declares_is_an_error() -> None:
    decision = verdict(gates(exact_mach={"floor": 0.4}), suite(exact_match=right(104, 170)))
    assert decision.verdict == "error"
    assert "declares no metric 'exact_mach'" in decision.reasons[0]


def test_missing_rows_up_to_the_declared_rate_are_decided_both_ways() -> None:
    assert verdict(FLOOR, suite(exact_match=[1.0] * 95 + [NAN] * 5)).verdict == "pass"
    decision = verdict(gates(exact_match={"floor": 0.93}), suite(exact_match=[1.0] * 95 + [NAN] * 5))
    assert decision.verdict == "manual_review"
    assert "5 of 100 rows are missing and could decide either way" in decision.reasons[0]


def test_rows_that_the_file_lacks_are_missing() -> None:
    of = names(100)
    assert verdict(FLOOR, suite(of[:90], of=of, exact_match=[1.0] * 90)).verdict == "error"
    decision = verdict(FLOOR, suite(of[:98], of=of, exact_match=[1.0] * 98))
    assert (decision.verdict, only(decision).n_missing) == ("manual_review", 2)
    assert "holds other rows than run.json says" in decision.reasons[0]


def test_rows_of_another_data_set_ask_for_review() -> None:
    decision = verdict(FLOOR, suite(names(101)[1:], of=names(100), exact_match=[1.0] * 100))
    assert decision.verdict == "manual_review"


def test_a_metric_that_stops_applying_to_a_row_is_missing_there() -> None:
    before = suite(exact_match=right(90, 100))
    after = suite(exact_match=[1.0] * 90 + [None] * 10)
    decision = verdict(FLOOR, after, before)
    assert (decision.verdict, only(decision).n_missing) == ("error", 10)
    assert verdict(FLOOR, after).verdict == "pass"


# --- regressions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "expected"), [(1e-6, "pass"), (-1e-6, "manual_review")])
def test_a_margin_just_kept_passes(shift: float, expected: str) -> None:
    rules = gates(exact_match={"max_regression": -paired_rates(0, 3, 170).lower + shift})
    before = right(100, 170)
    decision = verdict(rules, suite(exact_match=flipped(before, 0, 1, 2)), suite(exact_match=before))
    assert decision.verdict == expected


def test_rows_are_paired_by_id_and_not_by_place() -> None:
    values, ids = right(50, 100), names(100)
    turned = suite(ids, exact_match=values)
    decision = verdict(MARGIN, turned, suite(ids, exact_match=values))
    assert only(decision).gain == 0
    assert only(decision).method == "tango+bonett-price"
    assert (only(decision).value, only(decision).baseline_value) == (0.5, 0.5)


def test_a_clear_loss_fails_and_says_by_how_much() -> None:
    before = right(150, 170)
    decision = verdict(MARGIN, suite(exact_match=flipped(before, *range(60))), suite(exact_match=before))
    assert decision.verdict == "fail"
    assert "exact_match gained -0.35 [" in decision.reasons[0]
    assert "against v1.0.0: worse by more than 0.08" in decision.reasons[0]


def test_a_loss_that_may_be_within_the_margin_is_called_worse() -> None:
    before = right(150, 170)
    decision = verdict(MARGIN, suite(exact_match=flipped(before, *range(14))), suite(exact_match=before))
    assert decision.verdict == "manual_review"
    assert "worse, but not shown to be worse by more than 0.08" in decision.reasons[0]


def test_lower_is_better_where_it_is() -> None:
    rules = gates(injection_obedience_rate={"max_regression": 0.1})
    bad, good = suite(injection_obedience_rate=right(60, 100)), suite(injection_obedience_rate=right(10, 100))
    assert verdict(rules, bad, good).verdict == "fail"
    assert verdict(rules, good, bad).verdict == "pass"


def test_before_the_first_release_regressions_are_not_applicable_and_floors_decide() -> None:
    rules = gates(exact_match={"floor": 0.4, "max_regression": 0.08})
    decision = verdict(rules, suite(exact_match=right(104, 170)))
    assert decision.verdict == "pass"
    assert [check.verdict for check in decision.gates[0].checks] == ["pass", "not_applicable"]
    assert decision.reasons == ("all 1 checks of 1 gates pass; 1 wait for a first release to compare with",)


def test_a_baseline_that_nobody_asked_for_is_no_first_release() -> None:
    asked = Baseline("none", reason="none was asked for")
    both = verdict(gates(exact_match={"floor": 0.4, "max_regression": 0.08}), SAME, baseline=asked)
    assert both.reasons == ("all 1 checks of 1 gates pass; 1 wait for a baseline to compare with",)
    only_margin = verdict(gates(exact_match={"max_regression": 0.08}), SAME, baseline=asked)
    assert only_margin.verdict == "manual_review"
    (check,) = only_margin.gates[0].checks
    assert check.reason == "exact_match: no baseline was asked for, so there is nothing to compare with"
    assert only_margin.reasons == ("no rule applies: no baseline was asked for, and no gate has a floor or a ceiling",)
    assert as_json(both)["alpha"] == 0.05


def test_nothing_but_margins_before_the_first_release_is_no_pass() -> None:
    assert verdict(MARGIN, suite(exact_match=right(104, 170))).verdict == "manual_review"


SAME = suite(exact_match=right(104, 170))


@pytest.mark.parametrize(
    ("baseline", "before", "message"),
    [
        (Baseline("unavailable", "v1.0.0", reason="the remote does not answer"), None, "the remote does not answer"),
        (FETCHED._replace(created="2026-05-20T00:00:00+00:00"), SAME, "is 184 days old (at most 180 may be)"),
        (FETCHED._replace(created="yesterday"), SAME, "has no date that can be read"),
        (FETCHED._replace(created="2027-01-01T00:00:00+00:00"), SAME, "comes from the future"),
        (FETCHED, {"reply": SAME}, "has no suite 'triage'"),
        (FETCHED, suite(token_f1=[1.0] * 170), "has no values of it"),
        (
            FETCHED,
            suite(names(171), exact_match=right(104, 171)),
            "other rows than the baseline v1.0.0 (0 are new, 1 are gone)",
        ),
        (
            FETCHED,
            suite(exact_match=right(104, 170), run={"model": {"digest": "d", "family": "other"}}),
            "another base",
        ),
        (FETCHED, suite(exact_match=right(104, 170), run={"judges": {"exact_match": "other"}}), "another judge"),
    ],
)
def test_a_baseline_that_cannot_be_compared_asks_for_review(
    baseline: Baseline, before: Results | dict[str, Results] | None, message: str
) -> None:
    decision = verdict(MARGIN, SAME, before, baseline=baseline)
    assert decision.verdict == "manual_review"
    assert message in decision.reasons[0]


@pytest.mark.parametrize(("days", "expected"), [(180, "pass"), (181, "manual_review")])
def test_a_baseline_just_young_enough_is_used(days: int, expected: str) -> None:
    created = np.datetime_as_string(np.datetime64("2026-11-20") - np.timedelta64(days, "D")) + "T00:00:00+00:00"
    assert verdict(MARGIN, SAME, SAME, baseline=FETCHED._replace(created=created)).verdict == expected


def test_missing_rows_of_the_baseline_ask_for_review_and_are_no_error() -> None:
    before = suite(exact_match=[NAN] * 20 + right(104, 150))
    decision = verdict(MARGIN, SAME, before)
    assert decision.verdict == "manual_review"
    assert "11.8% of the baseline's rows are missing" in decision.reasons[0]


# --- latency ----------------------------------------------------------------------------------------------------

SPEED = evaluation(
    [{"name": "speed", "stage": "performance", "suite": "latency", "metrics": {"latency_p95_ms": {"ceiling": 500}}}]
)


@pytest.mark.parametrize(("n", "expected"), [(58, "manual_review"), (59, "pass")])
def test_a_latency_gate_needs_the_rows_of_its_bound(n: int, expected: str) -> None:
    decision = verdict(SPEED, {"latency": suite(latency_p95_ms=[100.0] * n)})
    assert decision.verdict == expected


def test_latencies_of_another_machine_are_not_compared() -> None:
    rules = evaluation(
        [
            {
                "name": "speed",
                "stage": "performance",
                "suite": "latency",
                "metrics": {"latency_p50_ms": {"max_regression": 90}},
            }
        ]
    )
    now, then = (
        suite(latency_p50_ms=[100.0] * 60),
        suite(latency_p50_ms=[100.0] * 60, run={"machine": {"cpu": "other"}}),
    )
    assert verdict(rules, {"latency": now}, {"latency": now}).verdict == "pass"
    decision = verdict(rules, {"latency": now}, {"latency": then})
    assert decision.verdict == "manual_review"
    assert "another kind of machine" in decision.reasons[0]


# --- judges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calibration", "expected", "message"),
    [
        (None, "manual_review", "no rows labelled by people calibrate it"),
        ({"m0": 50, "m1": 50, "correct0": 25, "correct1": 25}, "manual_review", "it knows no more than a coin"),
        ({"m0": 50, "m1": 50, "correct0": 45, "correct1": 45}, "pass", ""),
    ],
)
def test_a_judged_gate_decides_only_with_a_calibrated_judge(
    calibration: dict[str, int] | None, expected: str, message: str
) -> None:
    run = {"judges": {"tone": "j"}, "calibration": {} if calibration is None else {"tone": calibration}}
    decision = verdict(
        gates(tone={"floor": 0.7}), suite(tone=right(90, 100), run=run), judged=["tone"], metrics={"tone": GRADE}
    )
    assert decision.verdict == expected
    assert message in decision.reasons[0]


def test_an_uncalibrated_judge_cannot_fail_a_candidate_either() -> None:
    rules, results = gates(tone={"floor": 0.7}), suite(tone=right(10, 100))
    assert verdict(rules, results, judged=["tone"], metrics={"tone": GRADE}).verdict == "manual_review"
    assert verdict(rules, results, metrics={"tone": GRADE}).verdict == "fail"


def test_a_judge_with_grades_between_asks_for_review() -> None:
    run = {"judges": {"tone": "j"}, "calibration": {"tone": {"m0": 50, "m1": 50, "correct0": 45, "correct1": 45}}}
    results = suite(tone=[0.9] * 100, run=run)
    decision = verdict(gates(tone={"floor": 0.7}), results, judged=["tone"], metrics={"tone": GRADE})
    assert decision.verdict == "manual_review"
    assert "more grades than 0 and 1" in decision.reasons[0]


# --- combining --------------------------------------------------------------------------------------------------


def two(second: dict[str, object]) -> object:
    first = {"name": "good", "stage": "quality", "suite": "triage", "metrics": {"exact_match": {"floor": 0.4}}}
    return evaluation([first, {"name": "second", "stage": "quality", "suite": "triage", **second}])


@pytest.mark.parametrize(
    ("floor", "required", "expected"),
    [(0.5, True, "pass"), (0.99, True, "fail"), (0.99, False, "manual_review"), (0.6, True, "manual_review")],
)
def test_every_required_gate_must_pass_and_others_only_ask(floor: float, required: bool, expected: str) -> None:
    rules = two({"required": required, "metrics": {"schema_compliance": {"floor": floor}}})
    results = suite(exact_match=right(104, 170), schema_compliance=right(104, 170))
    assert verdict(rules, results).verdict == expected


def test_a_gate_without_evidence_that_is_not_required_asks_for_review() -> None:
    rules = two({"required": False, "metrics": {"schema_compliance": {"floor": 0.9}}})
    decision = verdict(rules, suite(exact_match=right(104, 170)))
    assert decision.verdict == "manual_review"
    assert decision.reasons[0].startswith("second (not required): ")


def test_a_narrow_failure_among_many_checks_is_left_to_a_person() -> None:
    # 58 of 100 under a floor of 0.67: P(Binomial(100, 0.67) <= 58) = 0.037, which does not stand among two checks
    narrow = {"metrics": {"schema_compliance": {"floor": 0.67}}}
    values = {"exact_match": [1.0] * 100, "schema_compliance": right(58, 100)}
    alone = gates(schema_compliance={"floor": 0.67})
    assert verdict(alone, suite(**values)).verdict == "fail"
    decision = verdict(two(narrow), suite(**values))
    assert decision.verdict == "manual_review"
    assert "one failure among 2 checks can be chance" in decision.reasons[0]


# --- slices -----------------------------------------------------------------------------------------------------

SLICED = evaluation(
    [{"name": "quality", "stage": "quality", "suite": "triage", "metrics": {"exact_match": {"floor": 0.4}}}],
    slices=[{"suite": "triage", "metric": "exact_match", "max_regression": 0.1}],
)
SLICES = ["plain"] * 100 + ["typo"] * 30 + ["long"] * 30


def test_a_slice_that_got_clearly_worse_asks_for_review() -> None:
    before = suite(exact_match=[1.0] * 160, slices=SLICES)
    after = suite(exact_match=flipped([1.0] * 160, *range(100, 112)), slices=SLICES)
    decision = verdict(SLICED, after, before)
    assert decision.verdict == "manual_review"
    assert [found.slice for found in decision.slices if found.flagged] == ["typo"]
    assert "slice 'typo' of triage: exact_match is worse by 0.40 on 30 rows, more than 0.10" in decision.reasons[0]


def test_a_slice_that_lost_a_row_is_not_flagged() -> None:
    before = suite(exact_match=[1.0] * 160, slices=SLICES)
    decision = verdict(SLICED, suite(exact_match=flipped([1.0] * 160, 100), slices=SLICES), before)
    assert decision.verdict == "pass"
    assert len(decision.slices) == 3


def test_a_candidate_cannot_move_its_bad_rows_into_another_slice() -> None:
    before = suite(exact_match=[1.0] * 160, slices=SLICES)
    after = suite(exact_match=flipped([1.0] * 160, *range(100, 112)), slices=["plain"] * 160)
    assert [found.slice for found in verdict(SLICED, after, before).slices if found.flagged] == ["typo"]


def test_missing_rows_of_a_slice_count_against_it() -> None:
    before = suite(exact_match=[1.0] * 160, slices=SLICES)
    values = [NAN if 100 <= row < 108 else 1.0 for row in range(160)]
    after = suite(exact_match=values, slices=SLICES)
    assert [found.slice for found in verdict(SLICED, after, before).slices if found.flagged] == ["typo"]


def test_slices_without_a_baseline_that_exists_ask_for_review() -> None:
    after = suite(exact_match=[1.0] * 160, slices=SLICES)
    assert verdict(SLICED, after).verdict == "pass"
    lost = Baseline("unavailable", "v1.0.0", reason="the remote does not answer")
    assert verdict(SLICED, after, baseline=lost).verdict == "manual_review"


# --- what is written --------------------------------------------------------------------------------------------


def test_an_amount_needs_the_largest_value_that_its_gate_declares() -> None:
    costs = suite(cost_usd=[1e-5] * 170)
    without = verdict(gates(cost_usd={"ceiling": 1e-3}), costs)
    assert without.verdict == "manual_review"
    assert "declare `highest` in gates.yaml" in without.reasons[0]
    assert verdict(gates(cost_usd={"ceiling": 1e-3, "highest": 1e-2}), costs).verdict == "pass"
    assert verdict(gates(cost_usd={"max_regression": 1e-3, "highest": 1e-2}), costs, costs).verdict == "pass"
    beyond = verdict(gates(cost_usd={"ceiling": 1e-3, "highest": 9e-6}), costs)
    assert "a row lies beyond the `highest`" in beyond.reasons[0]


def test_a_perplexity_is_gated_and_shown_as_a_geometric_mean() -> None:
    rows = suite(gold_perplexity=[2.0] * 100 + [8.0] * 100)
    decision = verdict(gates(gold_perplexity={"ceiling": 5.0, "max_regression": 1.0, "highest": 100}), rows, rows)
    assert decision.verdict == "pass"
    assert [check.value for check in decision.gates[0].checks] == pytest.approx([4.0, 4.0])  # sqrt(2 * 8), not 5


def test_few_conversations_are_said_to_be_few() -> None:
    talks = suite(exact_match=[1.0] * 180, clusters=[at % 6 for at in range(180)])
    decision = verdict(gates(exact_match={"floor": 0.4}), talks)
    assert decision.verdict == "manual_review"
    assert (
        "from fewer than 10 independent conversations (or pairs of twins); about 120 more rows" in decision.reasons[0]
    )


def test_a_decision_is_json_and_the_same_each_time() -> None:
    import json

    def decide_it() -> str:
        rules = gates(
            exact_match={"floor": 0.4, "max_regression": 0.08}, cost_usd={"ceiling": 1, "max_regression": 1e-6}
        )
        values = {"exact_match": right(104, 170), "cost_usd": [1e-5] * 169 + [NAN]}
        return json.dumps(as_json(verdict(rules, suite(**values), suite(**values))), allow_nan=False)

    assert decide_it() == decide_it()


def test_the_footer_says_what_so_many_rows_see_and_how_often_nothing_would_fail() -> None:
    decision = verdict(gates(exact_match={"floor": 0.4, "max_regression": 0.08}), SAME, SAME)
    assert decision.smallest_detectable[0].startswith("triage: exact_match: 170 rows decide on a true value 0.0")
    assert decision.error_rates[0].startswith("A/A triage: exact_match: of 200 random halves (85 rows each)")


# --- for any rows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    now: list[float | None]
    then: list[float | None]
    slices: list[str]
    floor: float
    margin: float


values = st.sampled_from([0.0, 1.0, 1.0, 1.0, None, NAN])
cases = st.integers(1, 60).flatmap(
    lambda n: st.builds(
        Case,
        st.lists(values, min_size=n, max_size=n),
        st.lists(values, min_size=n, max_size=n),
        st.lists(st.sampled_from(["plain", "typo"]), min_size=n, max_size=n),
        st.sampled_from([0.0, 0.3, 0.7, 0.95]),
        st.sampled_from([0.05, 0.2, 0.6]),
    )
)


def decide_case(case: Case, now: list[float | None], kept: list[int] | None = None) -> Decision:
    rules = evaluation(
        [
            {
                "name": "quality",
                "stage": "quality",
                "suite": "triage",
                "metrics": {"exact_match": {"floor": case.floor, "max_regression": case.margin}},
            }
        ],
        max_missing_rate=0.3,
        slices=[{"suite": "triage", "metric": "exact_match", "max_regression": 0.1}],
    )
    ids = names(len(now))
    kept = list(range(len(now))) if kept is None else kept
    after = suite(
        [ids[row] for row in kept],
        of=ids,
        slices=[case.slices[row] for row in kept],
        exact_match=[now[row] for row in kept],
    )
    return verdict(rules, after, suite(exact_match=case.then, slices=case.slices))


@settings(max_examples=150, deadline=None)
@given(cases, st.data())
def test_removing_evidence_never_turns_another_verdict_into_a_pass(case: Case, data: st.DataObject) -> None:
    rows = st.lists(st.integers(0, len(case.now) - 1), max_size=6, unique=True)
    lost, silenced, dropped = (set(data.draw(rows)) for _ in range(3))
    was = decide_case(case, case.now)
    applied = {row for row, value in enumerate(case.then) if value is not None}
    weaker: list[float | None] = [
        None if row in silenced & applied else NAN if row in lost and value is not None else value
        for row, value in enumerate(case.now)
    ]
    kept = [row for row in range(len(case.now)) if row not in dropped]
    assert decide_case(case, weaker, kept).verdict != "pass" or was.verdict == "pass"


@settings(max_examples=100, deadline=None)
@given(cases, st.data())
def test_a_better_row_never_turns_a_pass_into_a_failure(case: Case, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(case.now) - 1))
    better = [1.0 if at == row and value == 0.0 else value for at, value in enumerate(case.now)]
    order = ["error", "fail", "manual_review", "pass"]
    was, now = decide_case(case, case.now).verdict, decide_case(case, better).verdict
    assert order.index(now) >= order.index(was)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_every_check_has_a_reason_and_no_endless_number(case: Case) -> None:
    decision = decide_case(case, case.now)
    assert decision.verdict in ("pass", "fail", "manual_review", "error")
    for check in decision.gates[0].checks:
        numbers = [value for value in check._asdict().values() if isinstance(value, float)]
        assert all(math.isfinite(number) for number in numbers)
        assert check.reason
