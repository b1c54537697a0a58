"""What a release goes by: its stages, how long each may take, and who judges the counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pipelines.core.rollout import AbRun, AbTest, Rollout

VERDICTS = ("advance", "rollback", "hold", "unknown", "invalid")


class Verdict(Protocol):
    """What a judge says of counters."""

    @property
    def name(self) -> str:
        """Return advance, rollback, hold, unknown or invalid."""

    def as_json(self) -> dict[str, Any]:
        """Return everything that led to it, as plain values: reasons, gates, intervals, e-values."""


class Judge(Protocol):
    """A pure function of counters and a stage: equal values give an equal verdict."""

    def judge(self, counters: Mapping[str, Any], stage: Mapping[str, Any]) -> Verdict:
        """Return the verdict.

        Args:
            counters: What the target counted since the rollout's first request.
            stage: The stage as `Stage.as_json` writes it, and beside it `index` (its place among the canary stages,
                from 0) and `before` (the counters at its beginning, empty in the first one). Time is no part of it:
                what follows when it is up, `deciding.decide` says.
        """


@dataclass(frozen=True)
class Stage:
    """One step of the ladder, or the A/B test.

    Attributes:
        name: As people read it, such as "5 %".
        weight: Share of traffic that the candidate gets, 0 to 1.
        max_duration_s: After so long without a verdict `on_insufficient` decides, seconds.
        rules: What else the judge needs, plain values.
        kind: `canary` or `ab_test`.
        on_insufficient: What becomes of it when its time is over; None: what the plan says.
    """

    name: str
    weight: float
    max_duration_s: float
    rules: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["canary", "ab_test"] = "canary"
    on_insufficient: Literal["rollback", "hold"] | None = None

    def key(self, index: int) -> str:
        """Return the name that counters know it by: `ab_test`, or `canary-1` for the first canary stage (index 0)."""
        return self.kind if self.kind == "ab_test" else f"canary-{index + 1}"

    def as_json(self) -> dict[str, Any]:
        """Return the stage as history keeps it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "weight": self.weight,
            "max_duration_s": self.max_duration_s,
            "rules": dict(self.rules),
        }


@dataclass(frozen=True)
class Plan:
    """Everything `gates.yaml` says about one release, as plain values.

    Attributes:
        gates_sha256: Of the `gates.yaml` that it was made from (hex): the tag's, not today's.
        stages: Canary stages, weights growing.
        judge: Who judges counters.
        ab_test: The A/B test before them, where one is declared.
        look_every_s: Seconds between two looks at the counters; no stage is shorter.
        max_unknown_s: So long may counters be missing before the candidate is taken back, seconds.
        ready_within_s: So long may a deployment take, seconds.
        poll_every_s: Seconds between two questions whether a deployment is ready.
        on_insufficient: What becomes of a stage whose time is over without a verdict.
        max_requests_per_user: More of one user in one stage are not counted.
        unit: What the A/B test compares: users, or single requests.
        window_s: After a unit's first request its outcome is closed so much later, and counts; seconds.
        rollout: What `gates.yaml` declares for the target, as it stands there; None where the stages came otherwise.
        test: Likewise, the A/B test.
        run: Likewise, how the target runs it.
    """

    gates_sha256: str
    stages: tuple[Stage, ...]
    judge: Judge
    ab_test: Stage | None = None
    look_every_s: float = 30.0
    max_unknown_s: float = 300.0
    ready_within_s: float = 600.0
    poll_every_s: float = 5.0
    on_insufficient: Literal["rollback", "hold"] = "rollback"
    max_requests_per_user: int = 20
    unit: Literal["user", "request"] = "user"
    window_s: float = 60.0
    rollout: Rollout | None = None
    test: AbTest | None = None
    run: AbRun | None = None

    def terms(self, rollout: str, stage: str, since: float) -> dict[str, Any]:
        """Return what a splitter counts by, as `Target.set_weight` takes it."""
        return {
            "rollout": rollout,
            "stage": stage,
            "since": since,
            "max_requests_per_user": self.max_requests_per_user,
            "unit": self.unit,
            "window_s": self.window_s,
        }
