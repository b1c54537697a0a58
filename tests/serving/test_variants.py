"""A user's variant: always the same, fairly dealt, and moved only towards what grew."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.variants import assign, share

NAMES = st.sampled_from(["stable", "a", "b", "c"])
WEIGHTS = st.dictionaries(NAMES, st.floats(0.01, 1000), min_size=1)


@given(user=st.text(), weights=WEIGHTS, name=NAMES, factor=st.floats(1.0, 1000))
def test_a_weight_that_grows_takes_users_and_moves_nobody_else(
    user: str, weights: dict[str, float], name: str, factor: float
) -> None:
    before = assign("salt", user, weights)
    after = assign("salt", user, weights | {name: weights.get(name, 0.0) * factor or 1.0})
    assert after in (before, name)


@given(user=st.text(), percents=st.lists(st.integers(0, 100), min_size=2, max_size=8).map(sorted))
def test_who_is_in_a_canary_stays_in_it_through_all_its_stages(user: str, percents: list[int]) -> None:
    stages = [assign("s", user, {"stable": 100 - percent, "candidate": percent}) for percent in percents]
    assert stages == sorted(stages, reverse=True)  # first stable, then candidate, never back


@pytest.mark.parametrize("weights", [{"a": 95, "b": 5}, {"a": 50, "b": 50}, {"a": 1, "b": 2, "c": 7}])
def test_shares_are_those_that_are_declared(weights: dict[str, float]) -> None:
    n = 20_000
    counts = Counter(assign("s", f"user-{number}", weights) for number in range(n))
    for name, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(counts[name] / n - expected) < 4.5 * (expected * (1 - expected) / n) ** 0.5


def test_two_salts_deal_independently() -> None:
    weights = {"a": 50.0, "b": 50.0}
    users = [str(number) for number in range(10_000)]
    same = sum(assign("one", user, weights) == assign("two", user, weights) for user in users)
    assert abs(same / len(users) - 0.5) < 0.025


def test_a_weight_of_nothing_gets_nobody() -> None:
    assert {assign("s", str(number), {"a": 1, "b": 0}) for number in range(1000)} == {"a"}


def test_salt_and_user_are_not_mixed_up() -> None:
    assert share("a", "bc", "v") != share("ab", "c", "v")
    assert 0 < share("", "\ud800", "v") <= 1


def test_the_assignment_is_the_same_on_every_machine_and_version() -> None:
    """A release in progress must not reshuffle its users: these values are for ever."""
    found = "".join(assign("triage-1", f"user-{number}", {"stable": 90, "candidate": 10})[0] for number in range(40))
    assert found == "ssssccsssscscscssssssssssssssssssssscsss"
