"""The part of `serving.yaml` that says where models answer: upstreams, their limits and what tokens cost there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.declared import Declared
from pipelines.core.params import Count, InsidePath, Name, Price, Usd

Seconds = Annotated[float, Field(gt=0, le=86_400)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s@/?#]+(/[^\s@?#]*)?$", description="Without user or password.")]
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", description="Environment variable; never the secret.")]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Retries(Declared):
    """Asking the same upstream again: only where it has done no work (no connection, 429, 502, 503)."""

    attempts: Annotated[int, Field(ge=1, le=10, description="All together; 1 is no retry.")] = 3
    backoff_s: Seconds = Field(default=0.1, description="Before the second attempt; doubles, with full jitter.")
    max_backoff_s: Seconds = Field(default=2.0, description="A longer Retry-After is not waited for.")


class Breaker(Declared):
    """An upstream that fails is left alone for a while; then one request at a time tries whether it is back."""

    failures: Count = Field(default=5, description="So many failures in a row open it.")
    open_s: Seconds = 10.0


class UpstreamLimits(Declared):
    """What every kind of upstream has."""

    connect_timeout_s: Seconds = 2.0
    first_byte_timeout_s: Seconds = Field(default=60.0, description="From the request to the answer's head.")
    idle_timeout_s: Seconds = Field(default=30.0, description="Between two pieces of a streamed answer.")
    timeout_s: Seconds = Field(default=120.0, description="From the request to the last byte.")
    max_active: Count = Field(default=1024, description="Requests at once; more wait.")
    max_queued: int = Field(default=1024, ge=0, description="More are answered 429, or go to a fallback.")
    max_answer_bytes: Count = 33_554_432
    retries: Retries = Retries()
    breaker: Breaker = Breaker()
    drops: tuple[str, ...] = Field(default=(), description="Keys of a request that this upstream refuses: removed.")


class OpenAIUpstream(UpstreamLimits):
    """Anything that speaks OpenAI's HTTP: vLLM, a commercial API, a proxy."""

    kind: Literal["openai"]
    base_url: HttpUrl = Field(description="Ends in /v1, as for OpenAI's client. No trailing slash.")
    model: str = Field(min_length=1, description="Name it is asked by there, and by which `prices` knows it.")
    digest: str = Field(default="", description="Of the model's weights, if known: cached answers are bound to it.")
    api_key_variable: Variable | None = None
    health_path: str = Field(default="/health", pattern="^/", description="At the root, not below base_url.")


class ProcessUpstream(UpstreamLimits):
    """A `transformers serve` process of this machine, started and supervised by `make serve`."""

    kind: Literal["process"]
    model: Name = Field(description="As in params.yaml: a folder of models/; an adapter is merged into its base first.")
    port: Port
    arguments: tuple[str, ...] = Field(default=(), description="Further ones for `transformers serve`.")
    threads: Count = Field(default=1, description="CPU threads of the process.")
    start_timeout_s: Seconds = 300.0


class MlflowUpstream(UpstreamLimits):
    """A classic model behind MLflow's scoring server: POST /invocations."""

    kind: Literal["mlflow"]
    url: HttpUrl = Field(description="With /invocations.")
    model: str = Field(min_length=1, description="By which `prices` knows it.")
    digest: str = ""
    api_key_variable: Variable | None = None
    health_path: str = Field(default="/health", pattern="^/")


Upstream = Annotated[OpenAIUpstream | ProcessUpstream | MlflowUpstream, Field(discriminator="kind")]


class RequestPrice(Declared):
    """USD per request, for models without tokens."""

    request_usd: Usd


ModelPrice = Price | RequestPrice


class Escalation(Declared):
    """When the next larger model of the tiers is asked instead, or as well."""

    prompt_characters: Count | None = Field(default=None, description="Longer prompts go to the next tier at once.")
    messages: Count | None = Field(default=None, description="Longer conversations likewise.")
    tools: bool = Field(default=False, description="Requests with tools likewise.")
    on: tuple[Literal["cut_off", "empty", "invalid_json"], ...] = Field(
        default=(), description="Answers that the next tier is asked again for; streams are then collected first."
    )


class Tier(Declared):
    """One model of a route, the small ones first; every tier but the last says when the next one is asked."""

    upstream: Name
    escalate: Escalation | None = None


class Variant(Declared):
    """One side of a split."""

    upstream: Name
    weight: Annotated[float, Field(ge=0, le=1_000_000)] = Field(description="Its share of the sum of all weights.")
    prompt: InsidePath | None = Field(default=None, description="Instead of the route's.")
    users: tuple[str, ...] = Field(default=(), description="A test group: these users always get this variant.")
