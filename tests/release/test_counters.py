import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.release.counters import Arm, Counters, Epoch, from_json, within

count = st.integers(0, 10**6)
levels = st.dictionaries(st.floats(0.01, 100), count, max_size=4).map(lambda d: tuple(sorted(d.items())))
arms = st.builds(Arm, requests=count, errors=count, users=count, latency=levels, ttft=levels, ratings=levels)
counters = st.builds(
    Counters, st.lists(st.builds(Epoch, st.floats(0, 100), arms, arms, st.text()), max_size=4).map(tuple)
)


@given(counters)
def test_counters_survive_json_byte_for_byte(value: Counters) -> None:
    assert from_json(value.to_json()) == value
    assert from_json(value.to_json()).to_json() == value.to_json()


def test_a_stage_is_told_apart_from_another_of_the_same_weight() -> None:
    one = Counters().grown(50, Arm(requests=7), Arm(), "ab_test").grown(50, Arm(requests=2), Arm(), "canary-4")
    assert [epoch.stage for epoch in one.epochs] == ["ab_test", "canary-4"]
    assert (one.at(50, "canary-4").candidate.requests, one.at(50, "canary-3").candidate.requests) == (2, 0)
    unnamed = Counters((Epoch(50, Arm(requests=3)),))
    assert (one.candidate().requests, unnamed.at(50, "canary-4").candidate.requests) == (9, 3)


def test_what_a_stage_counted_before_its_weight_was_in_force_is_none_of_its_requests() -> None:
    epochs = (Epoch(10, Arm(requests=300), stage="canary-3"), Epoch(25, Arm(requests=4), stage="canary-3"))
    assert Counters(epochs).at(25, "canary-3").candidate.requests == 4
    assert Counters(epochs).at(24.7, "canary-3").candidate.requests == 4  # a cluster has whole percents
    assert Counters(epochs).at(math.nan, "canary-3").candidate.requests == 304


def test_more_of_the_weight_in_force_joins_its_epoch_and_another_weight_opens_one() -> None:
    one = Counters().grown(5, Arm(requests=1), Arm(requests=19)).grown(5, Arm(requests=2), Arm(requests=38))
    assert one.epochs == (Epoch(5, Arm(requests=3), Arm(requests=57)),)
    two = one.grown(10, Arm(requests=4), Arm(requests=36)).grown(5, Arm(requests=5), Arm())
    assert [epoch.weight for epoch in two.epochs] == [5, 10, 5]
    assert (two.candidate().requests, two.stable().requests, two.at(5).candidate.requests) == (12, 93, 8)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (Arm(requests=-1), "requests is negative"),
        (Arm(requests=math.nan), "requests is negative or no count"),
        (Arm(requests=math.inf), "requests is negative or no count"),
        (Arm(requests=3, errors=4), "errors (4) exceed requests (3)"),
        (Arm(requests=9, latency=((1.0, 5), (2.0, 4))), "latency: counts of a cumulative histogram must grow"),
        (Arm(requests=3, latency=((1.0, 4),)), "latency: 4 within a bound exceed the 3 that there are"),
        (Arm(requests=9, streams=3, ttft=((1.0, 4),)), "ttft: 4 within a bound exceed the 3"),
        (Arm(ratings=((1.0, -2),)), "ratings is negative"),
    ],
)
def test_counts_that_cannot_be_true_are_named_with_epoch_and_side(arm: Arm, said: str) -> None:
    found = Counters((Epoch(5), Epoch(10, Arm(), arm))).problems()
    assert any(text.startswith("epoch 1, stable: ") and said in text for text in found), found


def test_a_weight_is_a_percentage() -> None:
    assert Counters((Epoch(101),)).problems() == ["epoch 0: weight 101"]
    assert Counters((Epoch(0), Epoch(100))).problems() == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"epochs": 3}', '{"epochs": [{"weight": 5}]}', '{"epochs": [], "more": 1}', "null",
     '{"epochs": [{"weight": true, "candidate": {}, "stable": {}}]}',
     '{"epochs": [{"weight": 5, "candidate": {"requests": "9"}, "stable": {}}]}',
     '{"epochs": [{"weight": 5, "candidate": {"latency": 9}, "stable": {}}]}',
     '{"epochs": [{"weight": 5, "candidate": {"latency": [[1, 2], [1, 3]]}, "stable": {}}]}',
     '{"epochs": [{"weight": 5, "candidate": {"request": 9}, "stable": {}}]}',
     '{"epochs": [{"weight": 5, "candidate": {}, "stable": {}, "stage": 3}]}',
     '{"epochs": [{"weight": 5, "candidate": {"requests": 1' + "0" * 400 + '}, "stable": {}}]}'],
)  # fmt: skip
def test_what_are_no_counters_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^history: are no counters"):
        from_json(text, "history")


def test_a_bound_is_found_whatever_its_binary_fraction() -> None:
    histogram: Any = ((0.1, 7), (0.30000000000000004, 9))
    assert within(histogram, 100 / 1000) == 7
    assert within(histogram, 0.3) == 9
    assert within(histogram, 0.2) is None
