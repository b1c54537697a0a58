"""Caches and guardrails as `serving.yaml` declares them, for tests inside this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.serving.cache import AnswerCaches
from pipelines.serving.config import Serving
from pipelines.serving.config_policies import Guardrails
from pipelines.serving.exchange import Exchange
from pipelines.serving.guardrails import RouteGuard, RouteGuards
from pipelines.serving.redis_store import RedisStore
from pipelines.serving.semantic import Semantic


def caches(serving: Serving, redis: RedisStore | None = None, semantic: Semantic | None = None) -> AnswerCaches:
    return AnswerCaches(serving, redis, semantic)


def guards(serving: dict[str, Any], root: Path = Path()) -> RouteGuards:
    return RouteGuards(Serving.model_validate(serving), root)


def guard(**declared: Any) -> RouteGuard:
    return RouteGuard(Guardrails.model_validate(declared))


def exchange() -> Exchange:
    return Exchange("chat")
