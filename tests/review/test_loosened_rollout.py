"""Each way in which a pull request could send a worse candidate to more users, and what is no such way."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.gates import Gates
from pipelines.review.loosened_rollout import loosened_rollout

SHIPPED: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "gates.yaml").read_text())
CLUSTER = "canary/kubernetes"


def gates(declared: dict[str, Any]) -> Gates:
    return Gates.model_validate_json(json.dumps(declared))


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the shipped file with one key changed; None removes it."""
    new = copy.deepcopy(SHIPPED)
    holder: Any = new
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in way:
        holder = holder[part]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return new


LOOSENED = [
    ("canary", None, "canary.local: removed"),
    (CLUSTER, None, "canary.kubernetes: removed"),
    (f"{CLUSTER}/alpha", 0.1, "canary.kubernetes: alpha raised from 0.05 to 0.1"),
    (f"{CLUSTER}/alpha", 0.01, "canary.kubernetes: alpha lowered from 0.05 to 0.01"),
    (f"{CLUSTER}/sample_ratio_alpha", 0.001, "sample_ratio_alpha lowered from 0.01 to 0.001"),
    (f"{CLUSTER}/max_requests_per_user", 500, "max_requests_per_user raised from 1 to 500"),
    (f"{CLUSTER}/max_unknown_s", 3000, "max_unknown_s raised from 1500 to 3000"),
    (f"{CLUSTER}/look_every_s", 1000, "look_every_s raised from 30 to 1000"),
    (f"{CLUSTER}/on_insufficient", "hold", "canary.kubernetes: on_insufficient: hold instead of rollback"),
    (f"{CLUSTER}/gates/error_rate", None, "canary.kubernetes.gates.error_rate: removed"),
    (f"{CLUSTER}/gates/error_rate/ceiling", 0.1, "gates.error_rate: ceiling raised from 0.01 to 0.1"),
    (f"{CLUSTER}/gates/error_rate/ceiling", None, "gates.error_rate: ceiling 0.01 removed"),
    (f"{CLUSTER}/gates/error_rate/max_ratio", None, "gates.error_rate: max_ratio 2 removed"),
    (f"{CLUSTER}/gates/error_rate/max_ratio", 3, "gates.error_rate: max_ratio raised from 2 to 3"),
    (f"{CLUSTER}/gates/error_rate/prove", "none", "gates.error_rate: prove lowered from limit to none"),
    (f"{CLUSTER}/gates/latency_p95_ms/ceiling", 10000, "latency_p95_ms: ceiling raised from 5000 to 10000"),
    (f"{CLUSTER}/gates/rating/floor", 0.5, "gates.rating: floor lowered from 0.7 to 0.5"),
    (f"{CLUSTER}/gates/rating/scale", [0, 5], "gates.rating: scale changed from [0.0, 1.0] to [0.0, 5.0]"),
    (f"{CLUSTER}/stages/0", None, "canary.kubernetes.stages: the stage of 5 %: removed, so that more users come"),
    (f"{CLUSTER}/stages/4", None, "canary.kubernetes.stages: the stage of 100 %: removed"),
    (f"{CLUSTER}/stages/0/weight", 6, "the stage of 5 %: removed"),
    (f"{CLUSTER}/stages/1/require", "no_harm", "the stage of 10 %: require lowered from proven to no_harm"),
    (f"{CLUSTER}/stages/1/min_requests", 299, "the stage of 10 %: min_requests lowered from 300 to 299"),
    (f"{CLUSTER}/stages/1/max_duration_s", 9999, "the stage of 10 %: max_duration_s raised from 3600 to 9999"),
    ("ab_test", None, "ab_test: removed"),
    ("ab_test/local", None, "ab_test.local: removed"),
    ("ab_test/alpha", 0.01, "ab_test: alpha lowered from 0.05 to 0.01"),
    ("ab_test/sample_ratio_alpha", 0.001, "ab_test: sample_ratio_alpha lowered"),
    (
        "ab_test/primary/metric",
        "truncation_rate",
        "primary: metric changed from schema_failure_rate to truncation_rate",
    ),
    ("ab_test/primary/margin", 0.3, "ab_test.primary: margin raised from 0.15 to 0.3"),
    ("ab_test/secondaries/1", None, "ab_test.secondaries: latency_ms: removed"),
    ("ab_test/secondaries/1/margin", 5000, "ab_test.secondaries: latency_ms: margin raised from 2000 to 5000"),
    ("ab_test/kubernetes/unit", "request", "ab_test.kubernetes: unit changed from user to request"),
    ("ab_test/kubernetes/weight", 60, "ab_test.kubernetes: weight raised from 50 to 60"),
    ("ab_test/kubernetes/window_s", 60, "ab_test.kubernetes: window_s lowered from 3600 to 60"),
    ("ab_test/kubernetes/max_duration_s", 999_999, "ab_test.kubernetes: max_duration_s raised"),
    ("ab_test/kubernetes/on_insufficient", "hold", "ab_test.kubernetes: on_insufficient: hold instead of rollback"),
]


@pytest.mark.parametrize(("path", "value", "said"), LOOSENED)
def test_each_way_of_loosening_a_rollout_is_named_and_its_reverse_is_none(path: str, value: Any, said: str) -> None:
    found = loosened_rollout(gates(SHIPPED), gates(changed(path, value)))
    assert any(said in sentence for sentence in found), found
    assert all(sentence.startswith("gates.yaml: ") for sentence in found)
    back = loosened_rollout(gates(changed(path, value)), gates(SHIPPED))
    is_one_way = not any(word in said for word in ("changed", "alpha raised", ": alpha lowered"))
    assert (back == ()) == is_one_way, back


def test_fewer_outcomes_than_were_asked_for_are_a_loosening() -> None:
    more = changed("ab_test/kubernetes/min_per_arm", 1000)
    (sentence,) = loosened_rollout(gates(more), gates(SHIPPED))
    assert sentence == "gates.yaml: ab_test.kubernetes: min_per_arm lowered from 1000 to 100"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 1),
        (f"{CLUSTER}/requests_per_minute", 6000),
        (f"{CLUSTER}/ready_within_s", 60),
        (f"{CLUSTER}/sample_ratio_alpha", 0.05),
        (f"{CLUSTER}/gates/rating/prove", "limit"),
        (f"{CLUSTER}/stages/0/weight", 2),
        (f"{CLUSTER}/stages/0/require", "proven"),
        ("ab_test/kubernetes/n_opt", 2000),
        ("evaluation/alpha", 0.1),  # is told by the rules of evaluation
    ],
)
def test_what_is_as_strict_is_no_loosening(path: str, value: Any) -> None:
    assert loosened_rollout(gates(SHIPPED), gates(changed(path, value))) == ()


def test_a_secondary_that_became_the_primary_is_still_compared() -> None:
    new = copy.deepcopy(SHIPPED)
    new["ab_test"]["primary"], new["ab_test"]["secondaries"][0] = (
        new["ab_test"]["secondaries"][0], new["ab_test"]["primary"],
    )  # fmt: skip
    assert loosened_rollout(gates(SHIPPED), gates(new)) == (
        "gates.yaml: ab_test.primary: metric changed from schema_failure_rate to error_rate",
    )


stages = st.dictionaries(
    st.sampled_from([1, 5, 10, 25, 50, 100]), st.tuples(st.sampled_from(["proven", "no_harm"]), st.integers(1, 5)),
    min_size=1,
).map(lambda found: [
    {"weight": weight, "require": require, "min_requests": n, "max_duration_s": 60}
    for weight, (require, n) in sorted(found.items())
])  # fmt: skip


@given(stages, stages)
def test_where_nothing_is_said_no_share_is_reached_with_less_shown(old: Any, new: Any) -> None:
    both = (changed(f"{CLUSTER}/stages", old), changed(f"{CLUSTER}/stages", new))
    if loosened_rollout(*map(gates, both)):
        return
    for weight in (1, 5, 10, 25, 50, 100):
        shown = [[one for one in each if one["weight"] <= weight] for each in (old, new)]
        for least in (("proven",), ("proven", "no_harm")):
            n = [sum(one["min_requests"] for one in each if one["require"] in least) for each in shown]
            assert n[0] <= n[1]
