"""Answers that must fit a JSON Schema: the request's own, or that of the route's prompt."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jsonschema
import orjson

from pipelines.llm.answer_schema import parse_schema
from pipelines.serving.config_policies import JsonSchemaRule
from pipelines.serving.exchange import Decision, Exchange
from pipelines.serving.hardness import is_too_slow
from pipelines.serving.parts import PASS, Body, Inspection

RULE = "json_schema"
MOST_KNOWN = 256


class Unfit(Exception):
    """A schema that nothing can be held against: invalid, pointing outside itself, or too slow."""


class SchemaRule:
    """Holds answers against schemas; those of requests are made ready once."""

    def __init__(self, declared: JsonSchemaRule) -> None:
        self._declared = declared
        self._known: OrderedDict[bytes, jsonschema.protocols.Validator | None] = OrderedDict()

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer to the request `body`."""
        wanted: Any = body.get("response_format")
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind not in ("json_schema", "json_object"):
            return PASS
        try:
            validator = self._validator(wanted["json_schema"]) if kind == "json_schema" else None
            if all(_fits(validator, choice) for choice in answer.get("choices", ())):
                return PASS
        except (Unfit, KeyError, TypeError):
            pass
        else:
            if self._may_retry(exchange, answer):
                exchange.decide("out", RULE, "retry")
                return Inspection("retry", rule=RULE)
        exchange.decide("out", RULE, self._declared.action)
        return Inspection(self._declared.action, rule=RULE)

    def _may_retry(self, exchange: Exchange, answer: Body) -> bool:
        return self._declared.retries > 0 and Decision("out", RULE, "retry") not in exchange.decisions

    def _validator(self, declared: Any) -> Any:
        key = orjson.dumps(declared)
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.popitem(last=False)
            self._known[key] = make_validator(declared)
        validator = self._known[key]
        if validator is None:
            raise Unfit
        return validator


def make_validator(declared: Any) -> Any:
    """Return what validates answers against `{"name": ..., "schema": ...}`, or None if nothing can be."""
    try:
        schema = parse_schema(orjson.dumps(declared).decode())
    except (ValueError, TypeError):
        return None
    if any(map(is_too_slow, _patterns(schema))):
        return None
    return jsonschema.Draft202012Validator(schema)


def _patterns(value: Any) -> list[str]:
    """Return the regular expressions of a schema: a client's must not be able to stop the gateway."""
    if isinstance(value, list):
        return [pattern for part in value for pattern in _patterns(part)]
    if not isinstance(value, dict):
        return []
    own = [value["pattern"]] if isinstance(value.get("pattern"), str) else []
    if isinstance(value.get("patternProperties"), dict):
        own += value["patternProperties"]
    return own + [pattern for part in value.values() for pattern in _patterns(part)]


def _fits(validator: Any, choice: Any) -> bool:
    message = choice.get("message", choice)
    text = message.get("content", message.get("text"))
    if text is None and (message.get("tool_calls") or message.get("refusal")):
        return True
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return False
    if validator is None:
        return isinstance(value, dict)
    return bool(validator.is_valid(value))
