"""The plan that `gates.yaml` makes, and who judges by it: the shipped file, and what is wrong with others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.rollout import Target
from pipelines.release.abtest import Pair
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.forecast import expected_stages
from pipelines.release.judge import RolloutJudge, plan_of
from pipelines.release.plan import Plan
from pipelines.release.sequences import Moments
from pipelines.release.tallies import Tally

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "gates.yaml").read_bytes()
LOCAL = plan_of("local")(SHIPPED)
TEST = {"kind": "ab_test", "index": 0}


def stage(index: int) -> dict[str, Any]:
    return {"kind": "canary", "index": index}


def arm(n: float, **events: float) -> Arm:
    return Arm(requests=n, users=n, latency=((30.0, n),), **events)


def compared(n: float, rate: float = 0.0, **candidate: float) -> Tally:
    """An A/B test of n requests on each side; `rate` of the candidate's answers do not fit their schema."""

    def sums(share: float) -> Moments:
        return Moments(n, n * share, n * share)

    outcomes = {
        "schema_failure_rate": Pair(sums(rate), sums(0)),
        "error_rate": Pair(sums(0), sums(0)),
        "latency_ms": Pair(Moments(n, 900 * n, 820_000 * n), Moments(n, 900 * n, 820_000 * n)),
    }
    return Tally(Counters((Epoch(50, arm(n, **candidate), arm(n), "ab_test"),)), (n, n), outcomes)


def judged(tally: Tally | Mapping[str, Any], at: Mapping[str, Any], plan: Plan = LOCAL) -> tuple[str, dict[str, Any]]:
    found = plan.judge.judge(tally.as_json() if isinstance(tally, Tally) else tally, at)
    told = found.as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return found.name, told


def grown(tally: Tally, *epochs: Epoch) -> Tally:
    return tally._replace(canary=Counters((*tally.canary.epochs, *epochs)))


# --- the plan -------------------------------------------------------------------------------------------------


def test_the_shipped_file_makes_a_plan_for_each_target() -> None:
    assert [(one.name, one.weight, one.kind) for one in LOCAL.stages] == [
        (f"{weight} %", weight / 100, "canary") for weight in (5, 10, 25, 50, 100)
    ]
    assert LOCAL.ab_test is not None
    assert (LOCAL.ab_test.key(0), LOCAL.stages[1].key(1)) == ("ab_test", "canary-2")
    assert LOCAL.terms("r.1", "canary-2", 7.0) == {
        "rollout": "r.1", "stage": "canary-2", "since": 7.0, "max_requests_per_user": 1, "unit": "request",
        "window_s": 15,
    }  # fmt: skip
    assert 2 <= LOCAL.look_every_s <= 5
    assert LOCAL.stages[3].rules["gates"] == {
        "error_rate": 0.05, "schema_failure_rate": 0.2, "latency_p95_ms": 30000,
    }  # fmt: skip
    cluster = plan_of("kubernetes")(SHIPPED)
    assert (cluster.unit, cluster.max_requests_per_user, cluster.look_every_s) == ("user", 1, 30)
    assert LOCAL.gates_sha256 == cluster.gates_sha256


def test_a_good_release_on_two_cores_takes_less_than_eight_minutes() -> None:
    # a request and a half a second; a minute for processes that start, another for stages that wait for a rare side
    assert LOCAL.rollout is not None
    assert LOCAL.run is not None
    test = 2 * LOCAL.run.min_per_arm / 90 + LOCAL.run.window_s / 60
    stages = expected_stages(LOCAL.rollout, requests_per_minute=90, before=LOCAL.run.min_per_arm)
    assert test + sum(one.minutes for one in stages) < 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  local:  # two cores", "  locale:  # two cores", "canary.locale: unknown key (did you mean"),
        ("look_every_s: 3", "look_every_s: 300", "look_every_s: must be at most 240, the shortest max_duration_s"),
        ("min_requests: 2,", "min_requests: 2000,", "canary.local.stages[0].min_requests: 2000 requests cannot be"),
        ("{weight: 5, require: no_harm, min_requests: 2,", "{", "canary.local.stages[0]: key 'weight' is missing"),
        ("window_s: 15,", "window_s: 900,", "ab_test.local.window_s: 900 s is no shorter than max_duration_s"),
        ("schema_version: 1", "schema_version: [", "gates.yaml:4: not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_line_and_key(old: str, new: str, said: str) -> None:
    text = SHIPPED.decode()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        plan_of("local")(text.replace(old, new, 1).encode())
    assert said in str(caught.value)
    assert str(caught.value).startswith("gates.yaml:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["local", "kubernetes"])
def test_a_target_without_a_rollout_is_one_line(target: Target) -> None:
    text = SHIPPED.decode().partition("\ncanary:")[0]
    with pytest.raises(ConfigError, match=rf"^gates\.yaml.*: no rollout is declared for '{target}'; write canary"):
        plan_of(target)(text.encode())


def test_without_an_ab_test_the_ladder_begins_with_its_first_stage() -> None:
    plan = plan_of("local")(SHIPPED.partition(b"\nab_test:")[0])
    assert (plan.ab_test, plan.test, plan.unit, plan.window_s) == (None, None, "user", 60.0)


# --- the judge ------------------------------------------------------------------------------------------------


def test_an_ab_test_of_equal_sides_advances_and_shows_what_readers_expect() -> None:
    name, told = judged(compared(250, 0.02), TEST)
    assert name == "advance"
    assert [one["metric"] for one in told["comparisons"]] == ["schema_failure_rate", "error_rate", "latency_ms"]
    first = told["comparisons"][0]
    assert (first["gain"], first["mean_candidate"], first["cohens_d"] < 0) == (-0.02, 0.02, True)
    assert (first["welch_p"] > 0.01, first["lower"] > -0.15, told["alpha"]) == (True, True, 0.05)
    assert {one["gate"]: one["events"] for one in told["checks"]}["error_rate"] == 0
    assert judged(compared(99), TEST)[0] == "hold"


def test_a_broken_candidate_is_taken_back_during_the_ab_test_long_before_its_first_outcome_counts() -> None:
    found = [n for n in range(1, 40) if judged(grown(Tally(), *failing(n)), TEST)[0] == "rollback"]
    assert found
    assert found[0] <= 20


def failing(n: int) -> tuple[Epoch, ...]:
    return (Epoch(50, arm(n, errors=round(0.3 * n + 0.4)), arm(n), "ab_test"),)


def test_a_candidate_worse_by_more_than_the_margin_is_taken_back_though_no_gate_finds_it_harmful() -> None:
    gates = SHIPPED.replace(b"margin: 0.15", b"margin: 0.01")
    plan = plan_of("local")(gates)
    name, told = judged(compared(2000, 0.08), TEST, plan)
    assert (name, told["reasons"][0][:51]) == ("rollback", "worse by more than the margin: schema_failure_rate:")


def test_a_wrong_split_is_invalid_in_the_ab_test_too() -> None:
    tally = compared(250)
    assert judged(tally._replace(admitted=(400, 100)), TEST)[0] == "invalid"
    users = Epoch(50, arm(400), arm(100), "ab_test")
    assert judged(tally._replace(canary=Counters((users,))), TEST)[0] == "invalid"


def test_what_the_ab_test_showed_counts_for_the_stages_but_not_as_their_requests() -> None:
    before = compared(250)
    name, told = judged(grown(before, Epoch(50, arm(19), arm(19), "canary-4")), stage(3))
    assert (name, told["reasons"]) == ("hold", ["19 of 20 requests in this stage"])
    assert (told["n_requests"], told["n_total"]) == (19, 269)
    assert judged(grown(before, Epoch(50, arm(20), arm(20), "canary-4")), stage(3))[0] == "advance"
    assert judged(grown(Tally(), Epoch(50, arm(20), arm(20), "canary-4")), stage(3))[0] == "hold"


def test_what_cannot_be_read_is_invalid_and_never_advances() -> None:
    for value in ({}, {"canary": {"epochs": []}}):
        assert judged(value, stage(0))[0] == "hold"
    name, told = judged({"canary": 3}, stage(0))
    assert (name, told["reasons"][0][:41]) == ("invalid", "counters: is not what a splitter counts (")
    negative = {"canary": {"epochs": [{"weight": 5, "candidate": {"requests": -1}, "stable": {}}]}}
    assert judged(negative, stage(0))[0] == "invalid"


@pytest.mark.parametrize("at", [{}, {"kind": "canary", "index": 5}, {"kind": "canary", "index": -1}, {"kind": "ab"}])
def test_a_stage_that_is_not_declared_is_one_line(at: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^gates\.yaml: declares no stage of kind"):
        LOCAL.judge.judge({}, at)
    assert isinstance(LOCAL.judge, RolloutJudge)
