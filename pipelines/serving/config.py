"""The model of `serving.yaml`: what the gateway listens to, whom it knows, where models answer and at what price."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.core.declared import Declared, Misplaced, load
from pipelines.core.params import Count, InsidePath, Name, Sha256, Usd
from pipelines.serving.config_policies import Caches, Guardrails, RouteCache
from pipelines.serving.config_rollout import RolloutSettings
from pipelines.serving.config_upstreams import ModelPrice, Port, Seconds, Tier, Upstream, Variant

LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Listen(Declared):
    """Where clients and, on another port, Prometheus and the release connect to."""

    host: str = "127.0.0.1"
    port: Port = 8080
    private_host: str = "127.0.0.1"
    private_port: Port = 9090


class Limits(Declared):
    """What one request may take, and how many there may be."""

    max_header_bytes: Count = 16_384
    header_timeout_s: Seconds = 10.0
    max_body_bytes: Count = 4_194_304
    max_buffered_bytes: Count = Field(default=67_108_864, description="Bodies of all requests together.")
    read_timeout_s: Seconds = Field(default=30.0, description="For a whole request body.")
    write_timeout_s: Seconds = Field(default=30.0, description="For a client that stops reading.")
    max_active: Count = 1024
    max_queued: int = Field(default=1024, ge=0)
    queue_timeout_s: Seconds = 10.0
    keep_alive_s: Seconds = 75.0
    drain_s: Seconds = Field(
        default=130.0,
        description="For what is under way when the gateway is told to stop; longer than upstreams' timeout_s.",
    )


class Route(Declared):
    """What clients name as `model`: one split (variants) or one ladder (tiers), and what applies to it."""

    variants: dict[Name, Variant] = Field(default={}, description="Sticky by user.")
    tiers: tuple[Tier, ...] = Field(default=(), description="The small model first.")
    fallbacks: tuple[Name, ...] = Field(default=(), description="Upstreams that are asked where one fails.")
    salt: str = Field(default="", max_length=200, description="Of the split; a new salt deals users anew.")
    prompt: InsidePath | None = Field(
        default=None, description="For /v1/predict, and for chats that bring no system message of their own."
    )
    guardrails: Name | None = None
    cache: RouteCache | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Route:
        if bool(self.variants) == bool(self.tiers):
            raise ValueError("exactly one of 'variants' and 'tiers' is needed")
        if self.variants and not sum(variant.weight for variant in self.variants.values()):
            raise Misplaced("all weights are 0; nobody could be served", "variants")
        if self.variants and not self.salt:
            raise Misplaced("variants need a salt, so that splits of two routes are independent", "variants")
        for index, tier in enumerate(self.tiers):
            if (tier.escalate is None) != (index == len(self.tiers) - 1):
                raise Misplaced("every tier but the last needs 'escalate', the last has none", "tiers", index)
        users = [user for variant in self.variants.values() for user in variant.users]
        if len(set(users)) < len(users):
            raise Misplaced("a user is pinned to two variants", "variants")
        return self


class Key(Declared):
    """A key that clients send; `python -m scripts.serve --new-key PROJECT` makes one."""

    name: Name
    project: Name
    sha256: Sha256 = Field(description="Of the key; the key itself stands nowhere.")


class Project(Declared):
    """Who pays."""

    budget_usd_per_day: Usd | None = Field(default=None, description="Days are UTC; null is no limit.")
    budget_usd_per_month: Usd | None = None
    routes: tuple[Name, ...] | None = Field(default=None, description="null is all of them.")
    max_active: Count | None = Field(default=None, description="Requests at once, so that one project starves none.")


class LedgerSettings(Declared):
    """Where rows go; the URL may hold a password, so it stands in an environment variable."""

    spool: InsidePath = Field(default=".gatehouse/spool", description="Folder on a local disk.")
    path: InsidePath = Field(default=".gatehouse/ledger.db", description="SQLite file, where no URL is set.")
    url_variable: Annotated[str, Field(pattern="^[A-Z_][A-Z0-9_]*$")] = "GATEHOUSE_LEDGER_URL"
    batch_rows: Count = Field(default=200, description="Rows per transaction at most.")
    flush_s: Seconds = Field(default=0.5, description="How long a row waits on the spool while the database answers.")
    segment_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = Field(
        default=8_388_608, description="Size of one file of the spool; two are allocated in advance."
    )
    sync_s: Seconds | None = Field(
        default=None, description="Force the spool to the disk so often; null leaves it to the operating system."
    )
    when_unknown: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Projects with a budget, while the database has not yet said what they spent before the start.",
    )


class MetricsSettings(Declared):
    """Bounds of the histograms; every latency limit of gates.yaml must be one of them."""

    latency_bounds_s: tuple[Seconds, ...] = Field(default=LATENCY_BOUNDS_S, min_length=1, max_length=40)
    ttft_bounds_s: tuple[Seconds, ...] = Field(default=LATENCY_BOUNDS_S, min_length=1, max_length=40)

    @model_validator(mode="after")
    def _grow(self) -> MetricsSettings:
        for name in ("latency_bounds_s", "ttft_bounds_s"):
            bounds = getattr(self, name)
            if list(bounds) != sorted(set(bounds)):
                raise Misplaced("bounds must grow", name)
        return self


class Serving(Declared):
    """`serving.yaml`."""

    schema_version: Literal[1]
    listen: Listen = Listen()
    limits: Limits = Limits()
    upstreams: dict[Name, Upstream] = Field(min_length=1)
    prices: dict[str, ModelPrice] = Field(description="By model, as upstreams name it.")
    routes: dict[Name, Route] = Field(min_length=1)
    projects: dict[Name, Project] = Field(min_length=1)
    keys: tuple[Key, ...] = Field(
        default=(), description="Without any, a key of the first project is made for this machine and no other."
    )
    guardrails: dict[Name, Guardrails] = {}
    caches: Caches = Caches()
    ledger: LedgerSettings = LedgerSettings()
    metrics: MetricsSettings = MetricsSettings()
    rollout: RolloutSettings | None = None


def load_serving(path: Path = Path("serving.yaml")) -> Serving:
    """Load `serving.yaml`.

    Raises:
        ConfigError: The file is missing or wrong; the message names line and key.
    """
    return load(path, Serving)


def schema() -> dict[str, Any]:
    """Return the JSON Schema that editors use."""
    return Serving.model_json_schema(by_alias=True)
