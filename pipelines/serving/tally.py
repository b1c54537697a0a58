"""What a rollout does to both sides, counted per epoch: what a verdict is made from.

A user is a project, a route and the name that its client gives them: each route deals its users by itself, and the
`default` of one customer is not another's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pipelines.core.split import Split
from pipelines.serving.epochs import Arm, Bounds, Epoch, Side
from pipelines.serving.exchange import GONE, LEFT, Exchange
from pipelines.serving.trial import Trial, Unit
from pipelines.serving.users import MOST_EPOCHS, Users

AB_TEST = "ab_test"
MOST_RATABLE = 20_000
"""Requests whose rating can still be counted, about 5 MB."""


class Admitted:
    """One request of a rollout, from the door to its outcome and its rating.

    Attributes:
        tally: Where it counts.
        arm: For which side and epoch.
        place: Number of its stage and side: so many requests of a user count at each.
        upstream: Of that side: what others answered instead is no merit of it.
        user: Hash, or None where the request named nobody.
        key: Of its unit in the A/B test.
        unit: That unit, or None.
        has_failed: Its side's upstream did, at least once, whoever answered then.
        is_rejected: Its side's upstream called the request wrong.
        is_truncated: The answer was cut off at the most tokens.
        rating: 0 to 1, or None.
    """

    __slots__ = (
        "arm",
        "has_failed",
        "is_rejected",
        "is_truncated",
        "key",
        "place",
        "rating",
        "tally",
        "unit",
        "upstream",
        "user",
    )

    def __init__(self, tally: Tally, arm: Arm, place: int, upstream: str, user: int | None) -> None:
        self.tally = tally
        self.arm = arm
        self.place = place
        self.upstream = upstream
        self.user = user
        self.key: int | str = 0
        self.unit: Unit | None = None
        self.has_failed = self.is_rejected = self.is_truncated = False
        self.rating: float | None = None


class Tally:
    """The counters of one rollout in this process.

    Args:
        rollout: Its key.
        bounds: Of the histograms of latency and of the time to the first token, in seconds.
        clock: Monotonic, in seconds.
    """

    def __init__(self, rollout: str, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.rollout = rollout
        self.epochs: dict[tuple[str, float], Epoch] = {}
        self.trial: Trial | None = None
        self.users = Users()
        self._bounds = bounds
        self._clock = clock
        self._epoch: Epoch | None = None
        self._split: Split | None = None
        self._most_per_user = 0
        self._stages: dict[str, int] = {}
        self._recent: OrderedDict[str, Admitted] = OrderedDict()

    def begin(self, split: Split | None) -> None:
        """Go on under a split; None, or more of them than any rollout has, and nothing more is admitted."""
        self._split, self._epoch = split, None
        if split is None or not split.weight:
            return
        self._most_per_user = split.max_requests_per_user
        place = split.stage, split.weight
        if place not in self.epochs and len(self.epochs) < MOST_EPOCHS:
            self.epochs[place] = Epoch(len(self.epochs), *place, self._bounds)
        self._epoch = self.epochs.get(place)
        if self._epoch is not None:
            self._stages.setdefault(split.stage, len(self._stages))
        if split.stage == AB_TEST and self.trial is None:
            self.trial = Trial(split.weight)

    def admit(self, exchange: Exchange, side: Side, upstream: str, *, is_pinned: bool) -> Admitted | None:
        """Count a request at the door, where neither side can have failed yet; None where it does not count at all."""
        epoch = self._epoch
        if epoch is None:
            return None
        user, is_first = None, True
        if exchange.user:
            user = hash((exchange.project, exchange.route, exchange.user))
            known = self.users.enter(user, epoch.index)
            if known is None:
                return None
            is_first = known
        is_candidate = side == "candidate"
        arm = epoch.candidate if is_candidate else epoch.stable
        admitted = Admitted(self, arm, 2 * self._stages[epoch.stage] + is_candidate, upstream, user)
        if not is_pinned:  # who is pinned was dealt by nobody
            arm.users += is_first
            if epoch.stage == AB_TEST:
                self._join(admitted, exchange, side)
        return admitted

    def finish(self, exchange: Exchange) -> None:
        """Count a request whose outcome is known, if its side's upstream was asked."""
        admitted = exchange.admitted
        assert admitted is not None
        values = self._count(exchange, admitted)
        if admitted.unit is not None:
            if values is not None:
                admitted.unit.add(values)
            assert self.trial is not None
            self.trial.end(admitted.key, admitted.unit)

    def rate(self, request_id: str, rating: int) -> None:
        """Count a rating, 1 to 5, in the place of an earlier one of the same request."""
        admitted = self._recent.get(request_id)
        level, before = (rating - 1) / 4, None if admitted is None else admitted.rating
        if admitted is None or level == before:
            return
        if before is not None:
            admitted.arm.withdrawn[before] += 1
        admitted.arm.ratings[level] += 1
        admitted.rating = level
        if admitted.unit is not None and self.trial is not None:
            self.trial.close_due(self._clock())
            admitted.unit.rate(level, before)  # of no effect once it is closed

    def counters(self) -> dict[str, Any]:
        """Return everything counted, as plain values."""
        if self.trial is not None:
            self.trial.close_due(self._clock())
        test = self.trial.as_json() if self.trial is not None else {"admitted": {}, "outcomes": {}}
        return {"canary": {"epochs": [epoch.as_json() for epoch in self.epochs.values()]}, AB_TEST: test}

    def _join(self, admitted: Admitted, exchange: Exchange, side: Side) -> None:
        """Give a request its unit in the A/B test, if it is of one whose window is open or opens now."""
        assert self.trial is not None
        assert self._split is not None
        is_of_user = self._split.unit == "user" and admitted.user is not None
        now = self._clock()
        admitted.key = admitted.user if is_of_user and admitted.user is not None else exchange.id
        admitted.unit = self.trial.find(admitted.key, now)
        if admitted.unit is None and (not is_of_user or self.users.open(int(admitted.key))):
            admitted.unit = self.trial.begin(admitted.key, side, now, self._split.window_s)

    def _count(self, exchange: Exchange, admitted: Admitted) -> tuple[float | None, ...] | None:
        """Return the outcome in the order of the A/B test's metrics, or None for what counts nowhere."""
        status, has_failed, arm = exchange.status, admitted.has_failed, admitted.arm
        is_rejected = admitted.is_rejected and not has_failed
        is_known = has_failed or is_rejected
        if not is_known and (not exchange.n_attempts or exchange.error == "draining" or 400 <= status < GONE):
            return None
        if exchange.cache not in ("off", "miss"):
            return None
        if exchange.error == LEFT and not is_known:
            arm.departures += 1
            return None
        if admitted.user is not None and not self.users.count(admitted.user, admitted.place, self._most_per_user):
            return None
        is_error = has_failed or status >= 500
        is_refused = has_bad_form = is_truncated = False
        if exchange.upstream == admitted.upstream:
            is_truncated = admitted.is_truncated
            for direction, rule, action in exchange.decisions:
                if direction == "out":
                    is_refused = is_refused or action == "block"
                    has_bad_form = has_bad_form or rule == "json_schema"
        arm.requests += 1
        arm.errors += is_error
        arm.rejections += is_rejected
        arm.refusals += is_refused
        arm.truncations += is_truncated
        arm.schema_failures += has_bad_form
        arm.latency.observe(exchange.latency_ms * 0.001)
        ttft_ms = exchange.ttft_ms
        if ttft_ms is not None:
            arm.ttft.observe(ttft_ms * 0.001)
        if len(self._recent) >= MOST_RATABLE:
            self._recent.popitem(last=False)
        self._recent[exchange.id] = admitted
        if admitted.unit is None:
            return None
        is_answered = status == 200
        took = (exchange.latency_ms, ttft_ms) if is_answered else (None, None)
        return (is_error or is_rejected, has_bad_form, is_refused, is_truncated, None, *took, exchange.usd)
