"""Users of a rollout, in bounded memory: each is counted in full or not at all."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.users import MOST_EPOCHS, Users


def test_a_user_is_new_once_in_each_epoch() -> None:
    users = Users()
    assert [users.enter(7, epoch) for epoch in (0, 0, 1, 0, MOST_EPOCHS - 1, 1)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


@given(most=st.integers(1, 30), n=st.integers(0, 60))
def test_no_more_than_the_declared_requests_of_a_user_count_at_each_place(most: int, n: int) -> None:
    users = Users()
    users.enter(7, 0)
    users.open(7)
    for place in (0, 5, 2 * MOST_EPOCHS - 1):
        assert sum(users.count(7, place, most) for _ in range(n)) == min(n, most)
        assert users.count(7, place, most) == (n < most)
    assert users.enter(7, 0) is False  # what else is known of them is untouched by counting
    assert not users.open(7)


def test_the_test_opens_once_for_a_user_and_never_for_one_that_is_not_counted() -> None:
    users = Users()
    users.enter(7, 0)
    assert [users.open(7), users.open(7), users.open(8)] == [True, False, False]
    assert not users.count(8, 0, 1)


def test_beyond_the_most_a_sample_goes_on_and_each_user_is_in_it_or_not() -> None:
    users, draw = Users(most=1000), random.Random(1)
    crowd = [draw.getrandbits(63) - (1 << 62) for _ in range(20_000)]  # hashes may be negative
    for user in crowd:
        users.enter(user, 0)
    assert 250 < len(users) <= 1000
    again = [user for user in crowd if users.enter(user, 1) is not None]
    assert len(again) == len(users)
    assert all(users.count(user, 0, 1) and not users.count(user, 0, 1) for user in again)
    fresh = [draw.getrandbits(63) for _ in range(20_000)]
    share = sum(users.enter(user, 1) is not None for user in fresh) / len(fresh)
    assert 0.01 < share < 0.07  # 1 in 32 at first, 1 in 64 once they fill the room again
