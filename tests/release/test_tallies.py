from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.release.abtest import Pair
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.sample_ratio import Split, p_value
from pipelines.release.sequences import moments
from pipelines.release.tallies import Tally, merged, overlap, read

HALF = Epoch(50, Arm(requests=7, users=5, latency=((1.0, 6),)), Arm(requests=8, users=6), "ab_test")


def epoch(stage: str, weight: float, requests: float = 1, users: float = 1) -> Epoch:
    return Epoch(weight, Arm(requests=requests, users=users), Arm(requests=requests, users=users), stage)


def tally(*epochs: Epoch, **more: Any) -> dict[str, Any]:
    return Tally(Counters(epochs), **more).as_json()


count = st.integers(0, 10**6)
pairs = st.builds(lambda a, b: Pair(moments(a), moments(b)), *[st.lists(st.floats(-5, 5), max_size=4)] * 2)
tallies = st.builds(
    Tally, st.just(Counters((HALF,))), st.tuples(count, count), st.dictionaries(st.just("rating"), pairs)
)


@given(tallies)
def test_what_is_written_is_read_and_one_process_stays_as_it_is(value: Tally) -> None:
    text = json.dumps(value.as_json(), allow_nan=False)
    assert read(json.loads(text)) == value
    assert merged([json.loads(text)]) == json.loads(text)


def test_processes_are_added_up_by_stage_and_weight_in_the_order_of_the_stages() -> None:
    first = tally(epoch("ab_test", 50), epoch("canary-2", 25, 3), epoch("canary-10", 100))
    second = tally(epoch("canary-1", 5), epoch("canary-2", 25, 4), epoch("canary-2", 25, 5))
    found = read(merged([first, second])).canary
    assert [(one.stage, one.weight, one.candidate.requests) for one in found.epochs] == [
        ("ab_test", 50, 1), ("canary-1", 5, 1), ("canary-2", 25, 12), ("canary-10", 100, 1),
    ]  # fmt: skip


def test_nothing_was_counted_where_nobody_counts() -> None:
    assert merged([]) == Tally().as_json() == merged([{}])


def test_outcomes_of_requests_are_added_up_and_those_of_users_as_often_as_they_can_be_told_apart() -> None:
    pair = Pair(moments([0.0, 1.0, 1.0]), moments([0.0, 0.0, 1.0]))
    each = [tally(admitted=(3, 3), outcomes={"rating": pair})] * 4
    found = read(merged(each, "request"))
    assert (found.admitted, found.outcomes["rating"].candidate) == ((12, 12), (12, 8, 8))
    found = read(merged(each, "user"))
    assert (found.admitted, found.outcomes["rating"].candidate) == ((3, 3), (3, 2, 2))


def test_how_often_a_user_was_counted_agrees_with_a_calculation_by_hand() -> None:
    assert (overlap([]), overlap([0, 0]), overlap([9]), overlap([4, 4, 4])) == (1, 1, 1, 3)
    # (100 + 10 + 2 * min(100, 10)) / 110
    assert overlap([10, 100]) == pytest.approx(130 / 110)


def test_users_who_meet_every_replica_do_not_make_a_right_split_look_wrong() -> None:
    # three replicas, 400 users at 10 %, each counted by each: 200 rollouts with a look after every twenty users
    rng = np.random.default_rng(11)
    naive = alarms = 0
    for _ in range(200):
        mine = (rng.random(400) < 0.1).cumsum()[19::20]
        both = np.arange(20, 401, 20)
        naive += any(p_value([Split(3 * x, 3 * (n - x), 0.1)], 1) <= 0.05 for x, n in zip(mine, both, strict=True))
        for x, n in zip(mine.tolist(), both.tolist(), strict=True):
            one = tally(Epoch(10, Arm(requests=x, users=x), Arm(requests=n - x, users=n - x), "canary-1"))
            at = read(merged([one] * 3)).canary.epochs[0]
            if p_value([Split(at.candidate.users, at.stable.users, 0.1)], 1) <= 0.05:
                alarms += 1
                break
    assert alarms / 200 <= 0.05 < naive / 200


@pytest.mark.parametrize(
    "value",
    [None, [], {"more": 1}, {"canary": {}}, {"canary": {"epochs": 3}}, {"ab_test": 3}, {"ab_test": {"outcome": {}}},
     {"ab_test": {"admitted": {"candidate": "3"}}}, {"ab_test": {"admitted": {"third": 3}}},
     {"ab_test": {"outcomes": {"colour": {}}}}, {"ab_test": {"outcomes": {"rating": {"candidate": [1, 2]}}}},
     {"ab_test": {"outcomes": {"rating": {"candidate": [1, 2, True]}}}}],
)  # fmt: skip
def test_what_no_splitter_counts_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^counters of process 2: is not what a splitter counts \([^\n]+\)$"):
        merged([{}, value])
