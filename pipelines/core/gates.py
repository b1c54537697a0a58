"""The model of `gates.yaml`: what may merge, what may ship, what must be watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.core.declared import Declared, load
from pipelines.core.params import Count, Name, Share
from pipelines.core.rollout import AbTest, Canary


class Rule(Declared):
    """What one metric must keep to. A floor or a ceiling is absolute, a regression is against the baseline."""

    floor: float | None = None
    ceiling: float | None = None
    max_regression: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Largest loss against the baseline, in the metric's own unit."
    )
    exact: bool | None = Field(
        default=None, description="Clopper-Pearson instead of Wilson bounds; default: true for safety metrics."
    )

    highest: Annotated[float, Field(gt=0, le=1e15)] | None = Field(
        default=None,
        description="Largest value that one row can take, for a metric without one of its own (cost, tokens, "
        "perplexity); without it, a person decides.",
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Rule:
        if self.floor is None and self.ceiling is None and self.max_regression is None:
            raise ValueError("one of 'floor', 'ceiling' or 'max_regression' is needed")
        if self.floor is not None and self.ceiling is not None and self.floor >= self.ceiling:
            raise ValueError(f"floor {self.floor:g} must be below ceiling {self.ceiling:g}")
        return self


class Gate(Declared):
    """Rules that stand or fall together."""

    name: Name
    stage: Literal["unit", "quality", "safety", "performance"]
    required: bool = Field(default=True, description="false: shown, asks for review, never blocks.")
    suite: Name = Field(description="A suite of params.yaml, or `latency`.")
    metrics: dict[str, Rule] = Field(min_length=1)


class SliceRule(Declared):
    """Which metric is compared with the baseline slice by slice; a slice can at most ask for review."""

    suite: Name
    metric: str
    max_regression: Annotated[float, Field(ge=0)]
    false_discovery_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05


class Evaluation(Declared):
    """Gates over evaluation results."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    max_missing_rate: Share = 0.05
    max_age_days: Count = Field(default=180, description="An older baseline asks for review.")
    gates: tuple[Gate, ...] = Field(min_length=1)
    slices: tuple[SliceRule, ...] = ()


class Gates(Declared):
    """`gates.yaml`."""

    schema_version: Literal[1]
    evaluation: Evaluation
    canary: Canary | None = Field(default=None, description="How a release reaches its users, stage by stage.")
    ab_test: AbTest | None = Field(default=None, description="Before the canary; none is run without.")


def load_gates(path: Path = Path("gates.yaml")) -> Gates:
    """Load `gates.yaml`.

    Raises:
        ConfigError: The file is missing or wrong; the message names line and key.
    """
    return load(path, Gates)


def schema() -> dict[str, Any]:
    """Return the JSON Schema that editors use."""
    return Gates.model_json_schema(by_alias=True)
