"""The part of `gates.yaml` that says how a release reaches its users: canary stages and A/B test."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.core.declared import Declared, Misplaced
from pipelines.core.params import Count

Seconds = Annotated[float, Field(gt=0, le=31 * 86_400)]
Level = Annotated[float, Field(gt=0, lt=0.5)]
Ceiling = Annotated[float, Field(gt=0, lt=1)]
Ratio = Annotated[float, Field(ge=1, le=100)]
Prove = Annotated[
    Literal["limit", "all", "none"],
    Field(description="What a `proven` stage waits for: the limit, the ratio as well, or nothing (it can only fail)."),
]
Insufficient = Annotated[
    Literal["rollback", "hold"],
    Field(description="What happens at max_duration_s without a decision; written as inconclusive, never as failed."),
]
Target = Literal["local", "kubernetes"]


class RateRule(Declared):
    """How often something may happen: as a share of the candidate's requests, and as a multiple of stable's rate."""

    ceiling: Ceiling | None = Field(default=None, description="Largest share of requests, 0 to 1.")
    max_ratio: Ratio | None = Field(default=None, description="Largest multiple of the rate that stable has.")
    prove: Prove = "limit"

    @model_validator(mode="after")
    def _one_at_least(self) -> RateRule:
        if self.ceiling is None and self.max_ratio is None:
            raise ValueError("one of 'ceiling' or 'max_ratio' is needed")
        if self.prove == "all" and self.max_ratio is None:
            raise Misplaced("'all' needs a max_ratio to prove; write 'limit'", "prove")
        return self


class LatencyRule(Declared):
    """What 95 % of the requests must keep to; the limit is a bound of serving.yaml's histogram."""

    ceiling: Annotated[float, Field(gt=0, description="Milliseconds.")]
    max_ratio: Ratio | None = Field(
        default=None, description="Of the share of requests slower than the ceiling, or left by their client before."
    )
    prove: Prove = "limit"

    @model_validator(mode="after")
    def _proves_what_is_there(self) -> LatencyRule:
        if self.prove == "all" and self.max_ratio is None:
            raise Misplaced("'all' needs a max_ratio to prove; write 'limit'", "prove")
        return self


class RatingRule(Declared):
    """What users' ratings must average to; few users rate, so by default this can fail and need not be proven."""

    floor: float = Field(description="Lowest mean, on the scale of the ratings.")
    scale: tuple[float, float] = Field(default=(0.0, 1.0), description="Worst and best rating there is.")
    max_ratio: Ratio | None = Field(default=None, description="Of the share of ratings below the floor.")
    prove: Prove = "none"

    @model_validator(mode="after")
    def _inside(self) -> RatingRule:
        low, high = self.scale
        if not low < self.floor < high:
            raise Misplaced(f"must lie between the ends of the scale, {low:g} and {high:g}", "floor")
        if self.prove == "all" and self.max_ratio is None:
            raise Misplaced("'all' needs a max_ratio to prove; write 'limit'", "prove")
        return self


CanaryRule = RateRule | LatencyRule | RatingRule


class CanaryGates(Declared):
    """What the candidate must keep to with real users; each is counted at the gateway."""

    error_rate: RateRule | None = None
    schema_failure_rate: RateRule | None = Field(default=None, description="Answers that do not fit their schema.")
    refusal_rate: RateRule | None = Field(default=None, description="Answers that a guardrail refused.")
    truncation_rate: RateRule | None = Field(default=None, description="Answers cut off at the most tokens.")
    latency_p95_ms: LatencyRule | None = None
    ttft_p95_ms: LatencyRule | None = Field(default=None, description="To the first token, of streamed answers.")
    rating: RatingRule | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> CanaryGates:
        if not self.rules():
            raise ValueError(f"at least one of {', '.join(type(self).model_fields)} is needed")
        return self

    def rules(self) -> dict[str, CanaryRule]:
        """Return the declared rules by name, in the order in which they are read."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: rule for name, rule in found.items() if rule is not None}


class CanaryStage(Declared):
    """One step of the rollout: how much traffic, and what it must show before the next one."""

    weight: Annotated[float, Field(gt=0, le=100, description="Percent of the users.")]
    require: Literal["proven", "no_harm"] = Field(
        description="no_harm: enough requests, and nothing speaks against it."
    )
    min_requests: Count = Field(description="Of the candidate, in this stage.")
    max_duration_s: Seconds


class Rollout(Declared):
    """How one target takes a candidate from the first user to the last."""

    alpha: Level = Field(default=0.05, description="Most false rollbacks over a whole rollout, and false advances.")
    sample_ratio_alpha: Level = Field(default=0.01, description="Most false alarms about the split, over a rollout.")
    requests_per_minute: Annotated[float, Field(gt=0, description="Usual traffic that counts, both sides together.")]
    max_requests_per_user: Count = Field(
        default=1, description="In one stage, at one replica; more of one user are not counted: they are alike."
    )
    max_unknown_s: Seconds = Field(default=300, description="Longest time without counters before a rollback.")
    look_every_s: Seconds = Field(default=30, description="Between two looks at the counters; no stage is shorter.")
    ready_within_s: Seconds = Field(default=600, description="Longest time until a deployment answers.")
    on_insufficient: Insufficient = "rollback"
    gates: CanaryGates
    stages: tuple[CanaryStage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_grow(self) -> Rollout:
        for index, (before, after) in enumerate(zip(self.stages, self.stages[1:], strict=False), start=1):
            if after.weight <= before.weight:
                message = f"must be above {before.weight:g}, the weight of the stage before, found {after.weight:g}"
                raise Misplaced(message, "stages", index, "weight")
        return self

    @model_validator(mode="after")
    def _looked_at_in_time(self) -> Rollout:
        shortest = min(stage.max_duration_s for stage in self.stages)
        if self.look_every_s > shortest:
            message = f"must be at most {shortest:g}, the shortest max_duration_s, found {self.look_every_s:g}"
            raise Misplaced(message, "look_every_s")
        return self

    @model_validator(mode="after")
    def _something_to_prove(self) -> Rollout:
        for index, stage in enumerate(self.stages):
            if stage.require == "proven" and not any(is_to_prove(rule) for rule in self.gates.rules().values()):
                raise Misplaced(
                    "no gate has a limit to prove; give one a ceiling, or write no_harm", "stages", index, "require"
                )
        return self


def is_to_prove(rule: CanaryRule) -> bool:
    """Tell whether a `proven` stage waits for any part of a rule."""
    has_limit = not isinstance(rule, RateRule) or rule.ceiling is not None
    return rule.prove == "all" or (rule.prove == "limit" and has_limit)


class Canary(Declared):
    """Each target's rollout; both are decided by the same function."""

    local: Rollout | None = None
    kubernetes: Rollout | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> Canary:
        if self.local is None and self.kubernetes is None:
            raise ValueError("one of 'local' or 'kubernetes' is needed")
        return self

    def rollout(self, target: Target) -> Rollout | None:
        """Return what is declared for a target."""
        return self.local if target == "local" else self.kubernetes


# --- A/B test -------------------------------------------------------------------------------------------------

Outcome = Literal[
    "error_rate",
    "schema_failure_rate",
    "refusal_rate",
    "truncation_rate",
    "rating",
    "latency_ms",
    "ttft_ms",
    "cost_usd",
]


class AbMetric(Declared):
    """What is compared between the two sides, and how much worse the candidate may be."""

    metric: Outcome = Field(description="Per user, the mean of their requests; a rating is 0 to 1 of its scale.")
    margin: Annotated[float, Field(gt=0, description="Largest loss against stable, in the metric's unit.")]


class AbRun(Declared):
    """How one target runs the test."""

    unit: Literal["user", "request"] = "user"
    weight: Annotated[float, Field(gt=0, lt=100, description="Percent of the users.")] = 50.0
    min_per_arm: Annotated[int, Field(ge=100, le=1_000_000_000)] = 100
    n_opt: Count = Field(description="Users of both arms at which the bounds are meant to be tightest.")
    window_s: Seconds = Field(description="After a user's first request: then their outcome is closed and counts.")
    max_duration_s: Seconds
    on_insufficient: Insufficient = "rollback"


class AbTest(Declared):
    """A test of the candidate against stable, decided on one metric that was named before."""

    alpha: Level = 0.05
    sample_ratio_alpha: Level = 0.01
    primary: AbMetric
    secondaries: tuple[AbMetric, ...] = ()
    local: AbRun | None = None
    kubernetes: AbRun | None = None

    @model_validator(mode="after")
    def _each_once(self) -> AbTest:
        seen: set[str] = {self.primary.metric}
        for index, secondary in enumerate(self.secondaries):
            if secondary.metric in seen:
                raise Misplaced(f"'{secondary.metric}' is compared already", "secondaries", index, "metric")
            seen.add(secondary.metric)
        if self.local is None and self.kubernetes is None:
            raise ValueError("one of 'local' or 'kubernetes' is needed")
        return self

    def run(self, target: Target) -> AbRun | None:
        """Return what is declared for a target."""
        return self.local if target == "local" else self.kubernetes
