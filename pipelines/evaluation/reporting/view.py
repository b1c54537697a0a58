"""What a report shows, as one frozen value: both renderings read this and nothing else."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pipelines.evaluation.reporting.changes import Changes

VERDICTS = ("pass", "fail", "manual_review", "error")
Move = Literal["regressed", "improved", "same", "new", ""]


class Estimate(NamedTuple):
    """One metric of a suite or slice, with one-sided 95 % bounds on each side."""

    metric: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    n_missing: int = 0
    direction: str = "higher"
    kind: str = ""
    unit: str = ""
    method: str = ""


class Check(NamedTuple):
    """One rule of a gate, as the decision has it; `n_to_decide` counts rows on top of the `n` there are."""

    metric: str = ""
    rule: str = ""
    limit: float | None = None
    verdict: str = "error"
    reason: str = ""
    direction: str = "higher"
    unit: str = ""
    kind: str = ""
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    baseline_value: float | None = None
    gain: float | None = None
    gain_lower: float | None = None
    gain_upper: float | None = None
    n: int | None = None
    n_missing: int = 0
    method: str = ""
    n_to_decide: int | None = None


class Gate(NamedTuple):
    """Checks that stand or fall together."""

    name: str = ""
    stage: str = ""
    suite: str = ""
    verdict: str = "error"
    required: bool = True
    checks: tuple[Check, ...] = ()


class SliceResult(NamedTuple):
    """One metric on one slice; the gains are None without a baseline."""

    suite: str = ""
    slice: str = ""
    metric: str = ""
    estimate: Estimate = Estimate("")
    baseline: Estimate | None = None
    gain: float | None = None
    gain_lower: float | None = None
    gain_upper: float | None = None
    adjusted_p: float | None = None
    flagged: bool = False


class Baseline(NamedTuple):
    """What the candidate is compared with.

    Attributes:
        state: `none` (nothing was ever released), `fetched`, or `unavailable` (it exists and could not be had).
        age_days: Days from the baseline's commit to this decision, or None if a date is missing.
        max_age_days: From there on it is stale.
    """

    state: str = "unavailable"
    ref: str = ""
    commit: str = ""
    reason: str = ""
    age_days: float | None = None
    max_age_days: float | None = None

    @property
    def is_stale(self) -> bool:
        """Tell whether the baseline is older than the gates allow."""
        return self.age_days is not None and self.max_age_days is not None and self.age_days > self.max_age_days


class Before(NamedTuple):
    """What the baseline did with the same row."""

    output: str
    state: str
    scores: dict[str, float | None]


class Example(NamedTuple):
    """One row of one suite, paired with the baseline's.

    Attributes:
        scores: Value per metric that applies to the row; None is missing.
        move: Against the baseline; empty without one, `new` for a row it never answered.
        moved: Gated metrics whose value differs.
        size: The worst gated metric's loss (negative) or else the best one's gain, as a share of its range.
    """

    suite: str
    id: str
    repeat: int
    slice: str
    line: int | None
    inputs: tuple[tuple[str, str], ...]
    gold: str
    output: str
    state: str
    error: str
    scores: dict[str, float | None]
    latency_ms: float | None
    cost_usd: float | None
    before: Before | None = None
    move: Move = ""
    moved: tuple[str, ...] = ()
    size: float = 0.0


class Suite(NamedTuple):
    """One suite's files: `run` and `baseline_run` are `run.json` as read."""

    name: str
    run: dict[str, Any]
    estimates: dict[str, Estimate]
    baseline_run: dict[str, Any] | None
    baseline_estimates: dict[str, Estimate]
    examples: tuple[Example, ...]
    latencies_ms: tuple[float, ...] = ()
    baseline_latencies_ms: tuple[float, ...] = ()

    @property
    def total_cost_usd(self) -> float | None:
        """Cost of all rows at the declared price, cached ones included: what the same calls would cost."""
        costs = [example.cost_usd for example in self.examples if example.cost_usd is not None]
        return sum(costs) if costs else None


class TrainingStep(NamedTuple):
    """One point of the loss curve."""

    step: float
    loss: float


class View(NamedTuple):
    """Everything a report shows."""

    verdict: str
    reasons: tuple[str, ...]
    created: str
    input_digest: str
    commit: str
    baseline: Baseline
    gates: tuple[Gate, ...]
    slices: tuple[SliceResult, ...]
    changes: Changes
    suites: tuple[Suite, ...]
    curve: tuple[TrainingStep, ...]
    training: dict[str, Any]
    error_rates: tuple[str, ...]
    smallest_detectable: tuple[str, ...]
    caps: tuple[str, ...] = ()
    approval: dict[str, str] = {}
    alpha: float | None = None

    @property
    def checks(self) -> tuple[tuple[Gate, Check], ...]:
        """Every check with its gate."""
        return tuple((gate, check) for gate in self.gates for check in gate.checks)

    def examples(self, move: Move) -> tuple[Example, ...]:
        """Rows that moved this way, the largest move first, one entry per row whatever its repeats."""
        rows = [example for suite in self.suites for example in suite.examples if example.move == move]
        rows.sort(key=lambda example: (-abs(example.size), example.suite, example.id, example.repeat))
        return tuple({(example.suite, example.id): example for example in reversed(rows)}.values())[::-1]
