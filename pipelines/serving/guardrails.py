"""The guardrails of each route, put together from `serving.yaml`: rules on the way in, rules on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import orjson

from pipelines.llm.prompts import load_prompt
from pipelines.serving.config import Route, Serving
from pipelines.serving.config_policies import Guardrails, JsonSchemaRule, RemoteRule, RuleIn, RuleOut
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import PASS, Body, Guard, Inspection, StreamGuard
from pipelines.serving.remote_guard import RemoteGuard
from pipelines.serving.text_rules import TextRule, TextRules
from pipelines.serving.texts import strings


class AnswerRule(Protocol):
    """A rule that looks at a whole answer together with its request."""

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer to the request `body`."""


class RouteGuard:
    """The guardrails of one route.

    Args:
        declared: Rules, in the order in which they are applied.
        own: Texts of the route's prompts, which nobody outside has written.

    Attributes:
        needs_whole_answer: Streams must be collected first.
        has_out: There are rules for answers at all.
        refusal: What a blocked request is answered with.
    """

    def __init__(self, declared: Guardrails, own: frozenset[str] = frozenset()) -> None:
        self.refusal = declared.refusal
        self.has_out = bool(declared.out)
        self.needs_whole_answer = any(isinstance(rule, JsonSchemaRule | RemoteRule) for rule in declared.out)
        self._in = _group(declared.in_, own)
        self._out = _group(declared.out, frozenset())

    async def inspect_in(self, exchange: Exchange, body: Body) -> Inspection:
        """Inspect a request, rule by rule; a later one sees what an earlier one left."""
        is_changed = False
        for rules in self._in:
            if isinstance(rules, TextRules):
                inspection = rules.inspect_in(exchange, body)
            else:
                assert isinstance(rules, RemoteGuard)
                inspection = await rules.inspect_in(exchange, body)
            if inspection.action == "block":
                return inspection
            if inspection.value is not None:
                body, is_changed = inspection.value, True
        return Inspection("redact", body) if is_changed else PASS

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer, rule by rule."""
        is_changed = False
        for rules in self._out:
            if isinstance(rules, TextRules):
                inspection = rules.inspect_out(exchange, answer)
            else:
                inspection = await rules.inspect_out(exchange, body, answer)
            if inspection.action in ("block", "retry"):
                return inspection
            if inspection.value is not None:
                answer, is_changed = inspection.value, True
        return Inspection("redact", answer) if is_changed else PASS

    def open_stream(self, exchange: Exchange) -> StreamGuard:
        """Return what inspects one text of a streamed answer."""
        assert not self.needs_whole_answer
        (rules,) = self._out
        assert isinstance(rules, TextRules)
        return rules.open_stream(exchange)

    def close(self) -> None:
        """Close what connections there are."""
        for rules in (*self._in, *self._out):
            if isinstance(rules, RemoteGuard):
                rules.close()


class RouteGuards:
    """Guardrails by route.

    Args:
        serving: The declared file.
        root: Where its prompts are.

    Raises:
        ConfigError: A prompt file is missing or wrong.
    """

    def __init__(self, serving: Serving, root: Path) -> None:
        self._guards = {
            name: RouteGuard(serving.guardrails[route.guardrails], _own_texts(route, root))
            for name, route in serving.routes.items()
            if route.guardrails is not None
        }

    def of(self, route: str) -> Guard | None:
        """Return the guardrails of a route, or None if it has none."""
        return self._guards.get(route)

    def close(self) -> None:
        """Close what connections there are."""
        for guard in self._guards.values():
            guard.close()


def _group(rules: Sequence[RuleIn | RuleOut], own: frozenset[str]) -> list[TextRules | AnswerRule]:
    """Put neighbouring rules that look at texts together: they read each text once."""
    found: list[TextRules | AnswerRule] = []
    texts: list[TextRule] = []

    def end_group() -> None:
        if texts:
            found.append(TextRules(texts.copy(), own))
            texts.clear()

    for rule in rules:
        if isinstance(rule, RemoteRule):
            end_group()
            found.append(RemoteGuard(rule))
        elif isinstance(rule, JsonSchemaRule):
            from pipelines.serving.schema_rule import SchemaRule  # here, for it costs 60 ms

            end_group()
            found.append(SchemaRule(rule))
        else:
            texts.append(rule)
    end_group()
    return found


def _own_texts(route: Route, root: Path) -> frozenset[str]:
    paths = {route.prompt, *(variant.prompt for variant in route.variants.values())} - {None}
    prompts = [load_prompt(root / path) for path in paths if path is not None]
    own = {message.content for prompt in prompts for message in prompt.messages if message.role == "system"}
    for prompt in prompts:
        if prompt.json_schema is not None:
            own.update(strings(orjson.loads(prompt.json_schema)))
    return frozenset(own)
