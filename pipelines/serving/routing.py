"""Routes made ready: which upstreams answer a request, in which order, and with which prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pipelines.core.files import digest
from pipelines.core.params import Price
from pipelines.llm.cost import TOKENS_PER_PRICE
from pipelines.llm.prompts import Prompt, load_prompt
from pipelines.serving.config import Route, Serving
from pipelines.serving.config_upstreams import Escalation, MlflowUpstream, ModelPrice
from pipelines.serving.parts import Body, Guard, Guards
from pipelines.serving.replies import is_cut_off, texts_of
from pipelines.serving.splitting import VARIANTS, Splitting
from pipelines.serving.upstream import Cost, Upstream
from pipelines.serving.variants import assign

MOST_KNOWN = 20_000
"""Users whose side is remembered; it could be computed anew each time."""


class Step(NamedTuple):
    """One upstream to ask; `escalate` says when the next step is asked although this one could answer."""

    upstream: Upstream
    escalate: Escalation | None = None


class Side(NamedTuple):
    """What one user of a route gets.

    Attributes:
        name: The variant, or "".
        steps: Whom to ask, in order: tiers or the variant's upstream, then fallbacks.
        prompt: The prompt file, or None.
        identity: Digest of all that decides answers here: models, prompt, guardrails. Cached answers are bound to it.
    """

    name: str
    steps: tuple[Step, ...]
    prompt: Prompt | None
    identity: str

    @property
    def is_classic(self) -> bool:
        """Tell whether this is a classic model, asked through MLflow."""
        return isinstance(self.steps[0].upstream.declared, MlflowUpstream)


class ReadyRoute:
    """A route with everything that it refers to.

    Attributes:
        splitting: Says who gets the candidate, where the route takes part in rollouts; its own weights do not count.
    """

    def __init__(
        self, name: str, declared: Route, sides: Mapping[str, Side], guard: Guard | None, splitting: Splitting | None
    ) -> None:
        self.name = name
        self.declared = declared
        self.guard = guard
        self.splitting = splitting
        self._sides = sides
        self._weights = {variant: side.weight for variant, side in declared.variants.items()}
        self._known: dict[tuple[str, str], Side] = {}  # dealt by these weights
        self._pinned = {user: variant for variant, side in declared.variants.items() for user in side.users}

    def side(self, project: str, user: str, request_id: str) -> Side:
        """Return what a user of a project gets; requests that name no user are dealt one by one."""
        if self.splitting is not None and self.splitting.weights is not self._weights:
            self._weights = self.splitting.weights
            self._known.clear()
        if not self._weights:
            return self._sides[""]
        if user and user in self._pinned:
            return self._sides[self._pinned[user]]
        if not user:
            return self._sides[assign(self.declared.salt, request_id, self._weights)]
        key = project, user
        side = self._known.get(key)
        if side is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            side = self._known[key] = self._sides[assign(self.declared.salt, f"{project}\0{user}", self._weights)]
        return side

    def is_pinned(self, user: str) -> bool:
        """Tell whether a user was not dealt a side but given it."""
        return user in self._pinned


def cost_of(price: ModelPrice) -> Cost:
    """Return the function from (prompt tokens, completion tokens) to USD."""
    if isinstance(price, Price):
        prompt_usd, completion_usd = price.prompt_usd / TOKENS_PER_PRICE, price.completion_usd / TOKENS_PER_PRICE
        return lambda prompt, completion: prompt * prompt_usd + completion * completion_usd
    request_usd = price.request_usd
    return lambda prompt, completion: request_usd


def make_routes(
    serving: Serving,
    upstreams: Mapping[str, Upstream],
    guards: Guards,
    root: Path,
    splitting: Splitting | None = None,
) -> dict[str, ReadyRoute]:
    """Make every declared route ready.

    Raises:
        ConfigError: A prompt file is missing or wrong.
    """
    routes = {}
    for name, declared in serving.routes.items():
        rules = serving.guardrails[declared.guardrails].model_dump_json() if declared.guardrails else ""
        fallbacks = tuple(Step(upstreams[fallback]) for fallback in declared.fallbacks)
        sides = {}
        for variant, side in declared.variants.items():
            steps = (Step(upstreams[side.upstream]), *fallbacks)
            sides[variant] = _side(variant, steps, side.prompt or declared.prompt, rules, root)
        if declared.tiers:
            steps = (*(Step(upstreams[tier.upstream], tier.escalate) for tier in declared.tiers), *fallbacks)
            sides[""] = _side("", steps, declared.prompt, rules, root)
        own = splitting if serving.rollout is not None and declared.variants.keys() >= VARIANTS else None
        routes[name] = ReadyRoute(name, declared, sides, guards.of(name), own)
    return routes


def _side(name: str, steps: tuple[Step, ...], path: str | None, rules: str, root: Path) -> Side:
    prompt = load_prompt(root / path) if path else None
    asked = [(step.upstream.identity, sorted(step.upstream.declared.drops)) for step in steps]
    tiers = [step.escalate and step.escalate.model_dump_json() for step in steps]
    text = prompt and prompt.model_dump_json(by_alias=True)
    return Side(name, steps, prompt, digest([asked, tiers, text, rules]))


def plan(side: Side, body: Body) -> tuple[Step, ...]:
    """Return the steps for a request: those tiers left out that declare themselves too small for it."""
    steps = side.steps
    while steps[0].escalate is not None and _is_too_large(steps[0].escalate, body):
        steps = steps[1:]
    return steps


def needs_whole(steps: tuple[Step, ...]) -> bool:
    """Tell whether a small model's answer has to be seen whole before it may be passed on."""
    return any(step.escalate is not None and step.escalate.on for step in steps)


def _is_too_large(escalate: Escalation, body: Body) -> bool:
    if escalate.tools and body.get("tools"):
        return True
    messages = body.get("messages") or []
    if escalate.messages is not None and len(messages) > escalate.messages:
        return True
    if escalate.prompt_characters is None:
        return False
    return characters(body) > escalate.prompt_characters


def characters(body: Body) -> int:
    """Return the length of a request's texts."""

    def count(value: Any) -> int:
        if isinstance(value, str):
            return len(value)
        if isinstance(value, dict):
            return count(value.get("content") or value.get("text") or "")
        return sum(map(count, value)) if isinstance(value, list) else 0

    return count(body.get("messages") or []) + count(body.get("prompt") or "") + count(body.get("input") or "")


def escalates(step: Step, answer: Body) -> bool:
    """Tell whether the next tier should be asked although this one answered."""
    rules = step.escalate.on if step.escalate is not None else ()
    if "cut_off" in rules and is_cut_off(answer):
        return True
    texts = texts_of(answer)
    if "empty" in rules and not all(text.strip() for text in texts):
        return True
    return "invalid_json" in rules and not all(map(_is_json, texts))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
