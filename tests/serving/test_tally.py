"""What counts for which side, epoch and user."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from pipelines.core.split import Split
from pipelines.release.counters import EVENTS, Counters, from_json
from pipelines.serving.exchange import Exchange
from pipelines.serving.splitting import Splitting
from pipelines.serving.tally import MOST_RATABLE, Tally
from pipelines.serving.users import MOST_EPOCHS
from tests.serving.ledgers import exchange

BOUNDS = ((0.1, 1.0), (0.5,))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def split(weight: float = 5.0, stage: str = "canary-1", **more: Any) -> Split:
    return Split(rollout="v1.0.0-a.1", stage=stage, weight=weight, **more)


def tally(clock: Clock | None = None, **terms: Any) -> Tally:
    made = Tally("v1.0.0-a.1", BOUNDS, clock or Clock())
    made.begin(split(**terms))
    return made


def admit(made: Tally, user: str = "", side: str = "candidate", *, is_pinned: bool = False, **known: Any) -> Exchange:
    """A request at the door; `small` is its side's own upstream."""
    found = exchange(user=user, variant=side, upstream="small", **known)
    found.admitted = made.admit(found, side, "small", is_pinned=is_pinned)  # type: ignore[arg-type]
    return found


def ask(made: Tally, user: str = "", side: str = "candidate", **known: Any) -> Exchange:
    found = admit(made, user, side, **known)
    if found.admitted is not None:
        made.finish(found)
    return found


def read(made: Tally) -> Counters:
    """The counters as the judge reads them, without what it learns of stages."""
    epochs = made.counters()["canary"]["epochs"]
    assert all(epoch.pop("stage") for epoch in epochs)
    found = from_json(json.dumps({"epochs": epochs}))
    assert not found.problems()
    return found


def test_requests_and_users_count_for_their_side_and_epoch() -> None:
    made = tally()
    ask(made, "ann")
    ask(made, "ann")
    ask(made, "bob", "stable")
    made.begin(split(10.0, "canary-2"))
    ask(made, "ann")
    first, second = read(made).epochs
    assert (first.weight, first.candidate.requests, first.candidate.users) == (5, 2, 1)
    assert (first.stable.requests, first.stable.users) == (1, 1)
    assert (second.weight, second.candidate.requests, second.candidate.users) == (10, 1, 1)


def test_a_request_counts_for_the_epoch_at_whose_door_it_was() -> None:
    made = tally()
    early = admit(made, "ann")
    made.begin(split(10.0, "canary-2"))
    made.finish(early)
    made.begin(None)
    assert [epoch.candidate.requests for epoch in read(made).epochs] == [1, 0]


def test_coming_back_to_a_stage_goes_on_in_its_epoch() -> None:
    made = tally()
    ask(made, "ann")
    made.begin(Split(weight=0))
    assert ask(made, "bob").admitted is None
    made.begin(split())
    ask(made, "ann")
    (epoch,) = read(made).epochs
    assert (epoch.candidate.requests, epoch.candidate.users) == (2, 1)


def test_no_more_than_the_declared_requests_of_a_user_count_in_a_stage() -> None:
    made = tally(max_requests_per_user=3)
    late = admit(made, "ann")
    for _ in range(2):
        ask(made, "ann")
    made.begin(split(10.0, "canary-1", max_requests_per_user=3))  # another weight is no other stage
    ask(made, "ann")
    made.begin(split(10.0, "canary-2", max_requests_per_user=3))
    for _ in range(5):
        ask(made, "ann")
    made.finish(late)
    ask(made, "bob")
    assert [epoch.candidate.requests for epoch in read(made).epochs] == [2, 1, 4]


def test_a_candidate_that_breaks_after_the_test_is_seen_by_users_who_took_part_in_it() -> None:
    made = tally(stage="ab_test", weight=50.0, max_requests_per_user=1)
    for user in map(str, range(30)):
        ask(made, user)
        ask(made, user, "stable")
    made.begin(split(60.0, "canary-4", max_requests_per_user=1))
    for user in map(str, range(30)):
        ask(made, user, status=500)
    last = read(made).epochs[-1].candidate
    assert (last.requests, last.errors) == (30, 30)


def test_what_a_user_asked_of_stable_uses_up_nothing_of_the_candidates() -> None:
    made = tally(max_requests_per_user=1)
    ask(made, "ann", "stable")
    made.begin(split(10.0, "canary-1", max_requests_per_user=1))
    ask(made, "ann")
    assert [epoch.candidate.requests for epoch in read(made).epochs] == [0, 1]


def test_a_user_of_two_projects_is_two() -> None:
    made = tally(max_requests_per_user=1)
    for project in ("one", "two"):
        ask(made, "default", project=project)
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.users) == (2, 2)


def test_what_the_caches_answered_uses_up_nothing_of_a_user() -> None:
    made = tally(max_requests_per_user=1)
    for level in ("exact", "semantic", "shared"):
        ask(made, "ann", cache=level, n_attempts=0)
    ask(made, "ann", cache="miss")
    (epoch,) = read(made).epochs
    assert (epoch.candidate.requests, epoch.candidate.users) == (1, 1)


def test_each_request_without_a_user_is_a_user() -> None:
    made = tally(max_requests_per_user=1)
    for _ in range(3):
        ask(made)
    assert (read(made).epochs[0].candidate.requests, read(made).epochs[0].candidate.users) == (3, 3)


def test_a_user_of_two_routes_is_two_because_each_route_deals_by_itself() -> None:
    made = tally()
    ask(made, "ann")
    ask(made, "ann", "stable", route="reply")
    (epoch,) = read(made).epochs
    assert (epoch.candidate.users, epoch.stable.users) == (1, 1)


def test_pinned_users_requests_count_and_they_do_not() -> None:
    made = tally(stage="ab_test", weight=50.0)
    ask(made, "ann", is_pinned=True)
    ask(made, "bob", is_pinned=False)
    (epoch,) = read(made).epochs
    assert (epoch.candidate.requests, epoch.candidate.users) == (2, 1)
    assert made.counters()["ab_test"]["admitted"] == {"candidate": 1, "stable": 0}


@pytest.mark.parametrize(
    ("known", "events"),
    [
        ({}, ""),
        ({"status": 502}, "errors"),
        ({"status": 504, "error": "upstream_timeout"}, "errors"),
        ({"status": 500, "error": "internal_error"}, "errors"),
        ({"status": 499}, ""),  # it left, and its answer came for others
    ],
)
def test_outcomes_that_count(known: dict[str, Any], events: str) -> None:
    made = tally()
    ask(made, **known)
    arm = read(made).epochs[0].candidate
    assert arm.requests == 1
    assert [name for name in EVENTS if getattr(arm, name)] == events.split()


@pytest.mark.parametrize(
    "known",
    [
        {"status": 400, "error": "content_filter"},
        {"status": 499, "error": "client_gone"},
        {"status": 498},
        {"status": 503, "error": "draining"},
        {"status": 503, "error": "ledger_unavailable", "n_attempts": 0},
        {"status": 429, "error": "budget_exceeded", "n_attempts": 0},
        {"status": 200, "n_attempts": 0},  # blocked on its way in
        {"status": 499, "n_attempts": 0},
    ],
)
def test_what_no_upstream_of_its_side_did_counts_nowhere(known: dict[str, Any]) -> None:
    made = tally()
    ask(made, "ann", **known)
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.errors, arm.users) == (0, 0, 1)


def test_what_its_sides_own_upstream_calls_wrong_is_a_rejection_and_a_failure_is_not_one_too() -> None:
    made = tally()
    for upstream, fails in (("small", False), ("another", False), ("small", True)):
        found = admit(made, "ann", status=400, error="upstream_refused")
        found.reject(upstream)
        if fails:
            found.fail(upstream)
        made.finish(found)
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.errors, arm.rejections) == (2, 1, 1)


def test_a_client_that_left_before_its_answer_is_a_departure_and_no_fast_success() -> None:
    made = tally(stage="ab_test", weight=50.0, max_requests_per_user=1)
    for _ in range(3):
        ask(made, "ann", status=499, error="client_gone", is_stream=True)
    ask(made, "ann")
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.departures, arm.streams, arm.latency[-1][1]) == (1, 3, 0, 1)


@pytest.mark.parametrize("status", [200, 400, 429, 499, 503])
def test_a_failure_of_its_sides_upstream_counts_whoever_answered_then(status: int) -> None:
    made = tally()
    found = admit(made, "ann", status=status)
    found.fail("another")
    assert found.admitted is not None
    assert not found.admitted.has_failed
    found.fail("small")
    made.finish(found)
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.errors) == (1, 1)


def test_what_a_guardrail_and_a_schema_found_in_its_own_answer_counts() -> None:
    made = tally()
    for direction, rule, action in (
        ("out", "secrets", "block"), ("out", "secrets", "flag"), ("in", "length", "block"),
        ("out", "json_schema", "retry"), ("out", "json_schema", "flag"), ("out", "json_schema", "block"),
    ):  # fmt: skip
        found = admit(made)
        found.decide(direction, rule, action)  # type: ignore[arg-type]
        made.finish(found)
    arm = read(made).epochs[0].candidate
    assert (arm.requests, arm.refusals, arm.schema_failures) == (6, 2, 3)


def test_what_a_fallback_said_is_not_held_against_its_side() -> None:
    made = tally()
    found = admit(made)
    found.fail("small")
    assert found.admitted is not None
    found.admitted.is_truncated = True
    found.upstream = "large"
    found.decide("out", "json_schema", "flag")
    found.decide("out", "secrets", "block")
    made.finish(found)
    arm = read(made).epochs[0].candidate
    assert (arm.errors, arm.truncations, arm.schema_failures, arm.refusals) == (1, 0, 0, 0)


def test_every_counted_request_has_a_latency_and_every_stream_a_wait_for_its_first_token() -> None:
    made = tally()
    ask(made, latency_ms=100.0)
    ask(made, latency_ms=100.1, status=502)
    ask(made, latency_ms=900.0, is_stream=True, ttft_ms=500.0)
    ask(made, latency_ms=50.0, is_stream=True, status=502)  # nothing ever came
    arm = read(made).epochs[0].candidate
    assert arm.latency == ((0.1, 2), (1.0, 4))
    assert arm.requests == 4
    assert (arm.ttft, arm.streams) == (((0.5, 1),), 1)


def test_a_rating_is_0_to_1_and_a_changed_one_takes_its_place() -> None:
    made = tally()
    found = ask(made, "ann")
    for rating in (5, 5, 2, 2):
        made.rate(found.id, rating)
    made.rate("req_" + "0" * 24, 5)
    arm = read(made).epochs[0].candidate
    assert dict(arm.ratings) == {0.0: 0, 0.25: 1, 0.5: 0, 0.75: 0, 1.0: 0}
    side = made.epochs["canary-1", 5.0].candidate
    assert (side.ratings[1.0], side.withdrawn[1.0], side.ratings[0.25]) == (1, 1, 1)  # no count ever fell


def test_ratings_of_what_did_not_count_or_is_long_ago_do_not() -> None:
    made = tally(max_requests_per_user=1)
    first = ask(made, "ann")
    second = ask(made, "ann")
    made.rate(second.id, 5)
    for _ in range(MOST_RATABLE):
        ask(made)
    made.rate(first.id, 5)
    assert not any(count for _, count in read(made).epochs[0].candidate.ratings)


def test_epochs_are_bounded() -> None:
    made = tally()
    for number in range(2 * MOST_EPOCHS):
        made.begin(split(1 + number / 4))
        ask(made, "ann")
    epochs = read(made).epochs
    assert (len(epochs), sum(epoch.candidate.requests for epoch in epochs)) == (MOST_EPOCHS, 20)


# --- the A/B test


def outcomes(made: Tally, metric: str, side: str = "candidate") -> Any:
    return made.counters()["ab_test"]["outcomes"][metric][side]


def test_a_users_requests_become_one_outcome_when_their_window_is_over() -> None:
    clock = Clock()
    made = tally(clock, stage="ab_test", weight=50.0, window_s=10.0)
    ask(made, "ann", latency_ms=100.0, usd=0.001)
    ask(made, "ann", latency_ms=300.0, status=502, usd=0.003)
    clock.now = 9.0
    found = ask(made, "ann", latency_ms=200.0, usd=0.002, ttft_ms=50.0)
    made.rate(found.id, 5)
    assert outcomes(made, "latency_ms") == [0, 0.0, 0.0]
    clock.now = 10.0
    assert outcomes(made, "latency_ms") == [1, 150.0, 22_500.0]  # of those that were answered
    assert outcomes(made, "ttft_ms") == [1, 50.0, 2500.0]
    assert outcomes(made, "error_rate") == [1, pytest.approx(1 / 3), pytest.approx(1 / 9)]
    assert outcomes(made, "cost_usd") == [1, pytest.approx(0.002), pytest.approx(4e-6)]
    assert outcomes(made, "rating") == [1, 1.0, 1.0]
    ask(made, "ann", latency_ms=9e9)
    made.rate(found.id, 1)
    clock.now = 100.0
    assert outcomes(made, "latency_ms")[0] == outcomes(made, "rating")[0] == 1  # closed is closed
    assert made.counters()["ab_test"]["admitted"] == {"candidate": 1, "stable": 0}


def test_by_request_each_request_is_an_outcome() -> None:
    clock = Clock()
    made = tally(clock, stage="ab_test", weight=50.0, unit="request", window_s=1.0)
    for latency_ms in (100.0, 200.0):
        ask(made, "ann", "stable", latency_ms=latency_ms)
    clock.now = 1.0
    assert outcomes(made, "latency_ms", "stable") == [2, 300.0, 50_000.0]


def test_only_requests_at_the_door_of_the_test_take_part() -> None:
    clock = Clock()
    made = tally(clock)
    ask(made, "ann")
    assert made.counters()["ab_test"] == {"admitted": {}, "outcomes": {}}
    made.begin(split(50.0, "ab_test", window_s=10.0))
    late = admit(made, "ann", latency_ms=100.0)
    made.begin(split(50.0, "canary-4"))
    made.finish(late)
    ask(made, "ann", latency_ms=900.0)
    clock.now = 10.0
    assert outcomes(made, "latency_ms") == [1, 100.0, 10_000.0]
    stages = [(epoch["stage"], epoch["candidate"]["requests"]) for epoch in made.counters()["canary"]["epochs"]]
    assert stages == [("canary-1", 1), ("ab_test", 1), ("canary-4", 1)]


# --- splits


def test_another_rollout_begins_its_counters_anew_and_what_is_under_way_stays_with_its_own() -> None:
    splitting = Splitting(Clock())
    splitting.bounds = BOUNDS
    assert splitting.page() is None
    splitting.apply(split())
    early = exchange(variant="candidate", upstream="small")
    splitting.admit(early, "small", is_pinned=False)
    other = split().model_copy(update={"rollout": "v1.0.1-b.1"})
    assert splitting.apply(other)
    assert not splitting.apply(other)
    assert early.admitted is not None
    early.admitted.tally.finish(early)
    page = splitting.page()
    assert page is not None
    assert page["rollout"] == "v1.0.1-b.1"
    assert page["counters"]["canary"]["epochs"][0]["candidate"]["requests"] == 0


@pytest.mark.parametrize("end", [None, Split(weight=0)])
def test_after_its_end_a_rollouts_counters_stay_and_nothing_more_is_admitted(end: Split | None) -> None:
    splitting = Splitting(Clock())
    splitting.bounds = BOUNDS
    splitting.apply(split())
    splitting.apply(end)
    late = exchange(variant="candidate")
    splitting.admit(late, "small", is_pinned=False)
    assert late.admitted is None
    page = splitting.page()
    assert page is not None
    assert (page["rollout"], page["stage"], page["weight"]) == ("v1.0.0-a.1", "", 0.0)


def test_weights_are_another_object_only_when_they_change() -> None:
    splitting = Splitting(Clock())
    seen = [splitting.weights]
    for now in (split(5.0), split(5.0, "canary-2"), split(10.0), split(100.0), None, Split(weight=0)):
        splitting.apply(now)
        seen.append(splitting.weights)
    changed = [one is not other for one, other in itertools.pairwise(seen)]
    assert changed == [True, False, True, True, True, False]
    assert seen[4] == {"stable": 0.0, "candidate": 100.0}
