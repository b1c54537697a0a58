"""Answers that must fit a JSON Schema: the request's own, or that of the route's prompt."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from pipelines.llm.answer_schema import parse_schema
from pipelines.serving import schema_bounds
from pipelines.serving.config_policies import JsonSchemaRule
from pipelines.serving.exchange import Decision, Exchange
from pipelines.serving.parts import PASS, Body, Inspection
from pipelines.serving.schema_bounds import Unfit

RULE = "json_schema"
MOST_KNOWN = 256
MOST_KNOWN_BYTES = 262_144
"""Of the schemas that are kept ready, as JSON; ready ones take some ten times as much."""
DIGEST_BYTES = 16
AT_ONCE = 200
"""Steps that are done where they are asked for; more are done beside the event loop, one answer after the other."""


class Ready(NamedTuple):
    """A schema that answers can be held against."""

    validator: Any
    n_applied: int
    n_bytes: int


class SchemaRule:
    """Holds answers against schemas; those of requests are made ready once."""

    def __init__(self, declared: JsonSchemaRule) -> None:
        self._declared = declared
        self._known: OrderedDict[bytes, Ready | None] = OrderedDict()
        self._n_bytes = 0
        self._aside = ThreadPoolExecutor(1, "schemas")

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer to the request `body`."""
        wanted: Any = body.get("response_format")
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind not in ("json_schema", "json_object"):
            return PASS
        try:
            ready = await self._ready(wanted["json_schema"]) if kind == "json_schema" else None
            if await self._fit(ready, answer):
                return PASS
        except (Unfit, KeyError, TypeError, RecursionError):
            pass
        else:
            if self._may_retry(exchange, answer):
                exchange.decide("out", RULE, "retry")
                return Inspection("retry", rule=RULE)
        exchange.decide("out", RULE, self._declared.action)
        return Inspection(self._declared.action, rule=RULE)

    def _may_retry(self, exchange: Exchange, answer: Body) -> bool:
        return self._declared.retries > 0 and Decision("out", RULE, "retry") not in exchange.decisions

    async def _ready(self, declared: Any) -> Ready:
        key = blake2b(orjson.dumps(declared), digest_size=DIGEST_BYTES).digest()
        if key in self._known:
            ready = self._known[key]
        else:
            ready = await asyncio.get_running_loop().run_in_executor(self._aside, make_ready, declared)
            self._keep(key, ready)
        if ready is None:
            raise Unfit
        return ready

    def _keep(self, key: bytes, ready: Ready | None) -> None:
        if key in self._known:  # made ready twice at once
            return
        self._known[key] = ready
        self._n_bytes += ready.n_bytes if ready else 0
        while len(self._known) > MOST_KNOWN or self._n_bytes > MOST_KNOWN_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._n_bytes -= oldest.n_bytes if oldest else 0

    async def _fit(self, ready: Ready | None, answer: Body) -> bool:
        for choice in answer.get("choices", ()):
            message = choice.get("message", choice)
            text = message.get("content", message.get("text"))
            if text is None and (message.get("tool_calls") or message.get("refusal")):
                continue
            try:
                value = orjson.loads(text)
            except (orjson.JSONDecodeError, TypeError):
                return False
            if not (isinstance(value, dict) if ready is None else await self._fits(ready, value)):
                return False
        return True

    async def _fits(self, ready: Ready, value: Any) -> bool:
        most = schema_bounds.MOST_STEPS // ready.n_applied
        n_steps = ready.n_applied * schema_bounds.count(value, most)
        if n_steps > schema_bounds.MOST_STEPS:
            raise Unfit
        if n_steps <= AT_ONCE:
            return bool(ready.validator.is_valid(value))
        is_valid = ready.validator.is_valid
        return bool(await asyncio.get_running_loop().run_in_executor(self._aside, is_valid, value))


def make_ready(declared: Any) -> Ready | None:
    """Return what answers are held against for `{"name": ..., "schema": ...}`, or None if nothing can be."""
    try:
        schema_bounds.check_size(declared)
        text = orjson.dumps(declared).decode()
        if len(text) > schema_bounds.MOST_BYTES:
            return None
        schema = parse_schema(text)
        schema_bounds.check_patterns(schema)
        return Ready(schema_bounds.Validator(schema), schema_bounds.applied(schema), len(text))
    except (Unfit, ValueError, TypeError, RecursionError):
        return None
