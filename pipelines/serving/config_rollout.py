"""The part of `serving.yaml` that says who decides how a rollout's traffic is split."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipelines.core.declared import Declared, Misplaced
from pipelines.core.params import InsidePath
from pipelines.core.rollout import Seconds

KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class HttpRoute(Declared):
    """One HTTPRoute of the Gateway API: its weights are read, no traffic passes through it."""

    name: KubernetesName
    namespace: KubernetesName
    stable: KubernetesName = Field(description="Service whose weight is stable's.")
    candidate: KubernetesName = Field(description="Service whose weight is the candidate's.")

    @model_validator(mode="after")
    def _are_two(self) -> HttpRoute:
        if self.stable == self.candidate:
            raise Misplaced("is stable's Service as well", "candidate")
        return self


class Weights(Declared):
    """Where the weights come from."""

    file: InsidePath | None = Field(default=None, description="Written by a release; where none is, all is stable's.")
    http_route: HttpRoute | None = None

    @model_validator(mode="after")
    def _one(self) -> Weights:
        if (self.file is None) == (self.http_route is None):
            raise ValueError("exactly one of 'file' and 'http_route' is needed")
        return self


class RolloutSettings(Declared):
    """Routes with the variants `stable` and `candidate` are split as a release says, whatever weights they declare."""

    weights: Weights
    max_age_s: Seconds | None = Field(
        default=None,
        description="After so long without an answer of their source all traffic is stable's; else the weights stay.",
    )
