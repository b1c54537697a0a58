"""Which requests may be answered from a cache, and what makes two of them the same question."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import orjson

from pipelines.serving.config import Serving
from pipelines.serving.config_policies import RouteCache
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import Body, Question

DELIVERY = frozenset(
    {"stream", "stream_options", "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"}
)
"""Keys of a request that concern who asks and how it is answered, not what."""
OPENAI_TEMPERATURE = 1.0


def route_caches(serving: Serving) -> dict[str, RouteCache]:
    """Return how each route uses the caches that exist; routes that use none are left out."""
    if serving.caches.exact is None:
        return {}
    return {name: route.cache for name, route in serving.routes.items() if route.cache and route.cache.exact}


def question(routes: Mapping[str, RouteCache], exchange: Exchange, identity: str, body: Body) -> Question | None:
    """Return a request as caches see it, or None if its answer must neither be remembered nor shared.

    Args:
        routes: How each route uses the caches.
        exchange: Of the request; says project, user, route and endpoint.
        identity: Digest of models, prompt and rules that would answer.
        body: The request after the guardrails on the way in.
    """
    route = routes.get(exchange.route)
    if route is None or not _is_shareable(route, exchange, body):
        return None
    scope = f"project:{exchange.project}"
    if route.scope == "user":
        if not exchange.user:
            return None  # nobody to keep it for
        scope = f"user:{len(exchange.project)}:{exchange.project}:{exchange.user}"
    asked = {key: value for key, value in body.items() if key not in DELIVERY}
    key = digest([exchange.endpoint, scope, identity, asked])
    return Question(key, exchange.route, scope, identity, exchange.endpoint, body)


def digest(value: object) -> bytes:
    """Return the digest of a JSON value, the same for every order of keys, 32 bytes."""
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=32).digest()


def _is_shareable(route: RouteCache, exchange: Exchange, body: Body) -> bool:
    if exchange.endpoint == "embeddings":
        return True
    if body.get("stream") and body.get("logprobs"):
        return False  # a remembered answer is given without them as a stream
    if body.get("audio") is not None:
        return False
    if exchange.endpoint == "predict" and "messages" not in body:
        return True  # a classic model
    temperature = body.get("temperature")
    is_sampled = temperature is None or temperature != 0
    return route.sampled or not is_sampled
