import math

import numpy as np
import pytest

from pipelines.release.sample_ratio import CONCENTRATIONS, Split, log_bayes_factor, p_value


def test_two_users_agree_with_a_calculation_by_hand() -> None:
    # both with the candidate at half: prior c/2, c/2; B(a+2, b)/B(a, b) = a (a+1) / (c (c+1)); over 1/4
    by_hand = sum((c / 2) * (c / 2 + 1) / (c * (c + 1)) / 0.25 for c in CONCENTRATIONS) / len(CONCENTRATIONS)
    assert math.exp(log_bayes_factor(Split(2, 0, 0.5))) == pytest.approx(by_hand)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_under_the_declared_share_the_mean_factor_is_exactly_one(share: float) -> None:
    n = 30
    total = 0.0
    for x in range(n + 1):
        total += (
            math.comb(n, x) * share**x * (1 - share) ** (n - x) * math.exp(log_bayes_factor(Split(x, n - x, share)))
        )
    assert total == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_is_no_split(share: float) -> None:
    assert log_bayes_factor(Split(10, 20, share)) == 0


def test_no_user_is_no_evidence() -> None:
    assert p_value([], 5) == p_value([Split(0, 0, 0.1)], 5) == 1


def test_a_broken_split_is_found_and_a_true_one_is_not() -> None:
    assert p_value([Split(95, 905, 0.1)], 5) == 1
    assert p_value([Split(150, 850, 0.1)], 5) < 0.01
    assert p_value([Split(100, 900, 0.1), Split(150, 850, 0.25)], 5) < 0.01


def test_an_epoch_more_asks_for_more_evidence() -> None:
    split = Split(150, 850, 0.1)
    assert p_value([split], 10) == pytest.approx(2 * p_value([split], 5))


def test_looking_every_ten_users_at_all_epochs_false_alarms_at_most_at_its_level() -> None:
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(200):
        hashes = rng.random(400)  # the same users come back in every epoch
        splits: list[Split] = []
        is_alarm = False
        for share in (0.05, 0.1, 0.25, 0.5):
            sides = (rng.permutation(hashes) < share).cumsum()
            looks = [Split(float(sides[n - 1]), float(n - sides[n - 1]), share) for n in range(10, 401, 10)]
            is_alarm |= any(p_value([*splits, look], 4) <= 0.05 for look in looks)
            splits.append(looks[-1])
        alarms += is_alarm
    assert alarms <= 10
