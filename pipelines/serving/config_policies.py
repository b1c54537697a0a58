"""The part of `serving.yaml` that says what may pass and what is remembered: guardrails and caches."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.core.declared import Declared, Misplaced
from pipelines.core.params import Count, Name
from pipelines.serving.config_upstreams import HttpUrl, Seconds, Variable


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_compiles)]
WhatToDo = Literal["block", "redact", "flag"]
Word = Annotated[str, Field(min_length=1, max_length=100)]


class LengthRule(Declared):
    """Longest text, in characters."""

    rule: Literal["length"]
    max_characters: Count
    action: Literal["block", "flag"] = "block"


class PatternRule(Declared):
    """Regular expressions that must not occur; case, accents, look-alike and invisible letters are ignored."""

    rule: Literal["patterns"]
    name: Name
    patterns: tuple[Pattern, ...] = Field(min_length=1)
    max_match_characters: Annotated[
        int, Field(ge=1, le=4096, description="Longest match that a pattern may have; what a stream may hold back.")
    ] = 256
    action: WhatToDo = "block"

    @model_validator(mode="after")
    def _can_be_matched(self) -> PatternRule:
        from pipelines.serving.hardness import problem

        for index, pattern in enumerate(self.patterns):
            if found := problem(pattern, self.max_match_characters):
                raise Misplaced(found, "patterns", index)
        return self


class PiiRule(Declared):
    """Personal data, found and masked."""

    rule: Literal["pii"]
    kinds: tuple[Literal["email", "phone", "card", "iban", "ip", "ssn"], ...] = ("email", "phone", "card", "iban")
    action: WhatToDo = "redact"


class InjectionRule(Declared):
    """Instructions to the model inside a user's text."""

    rule: Literal["injection"]
    action: Literal["block", "flag"] = "flag"


class SecretsRule(Declared):
    """Keys, tokens and passwords in an answer."""

    rule: Literal["secrets"]
    action: WhatToDo = "redact"


class JsonSchemaRule(Declared):
    """The answer fits the request's JSON Schema, else the one of the route's prompt."""

    rule: Literal["json_schema"]
    retries: Literal[0, 1] = 1
    action: Literal["block", "flag"] = "block"


class RemoteRule(Declared):
    """A guard model, which answers with one of its words; its calls are not booked."""

    rule: Literal["remote"]
    kind: Literal["openai", "invocations"] = Field(
        default="openai", description="Chat completions, or a classic model behind MLflow's /invocations."
    )
    base_url: HttpUrl = Field(description="Ends in /v1, or is the whole URL of /invocations.")
    model: str = ""
    api_key_variable: Variable | None = None
    timeout_s: Seconds = 2.0
    blocked_words: tuple[Word, ...] = Field(default=("unsafe",), min_length=1)
    allowed_words: tuple[Word, ...] = Field(default=("safe",), min_length=1)
    on_failure: Literal["block", "flag"] = Field(
        default="block", description="It is away, slow, or says none of its words: block fails closed, flag open."
    )
    action: Literal["block", "flag"] = "block"

    @model_validator(mode="after")
    def _has_model(self) -> RemoteRule:
        if self.kind == "openai" and not self.model:
            raise Misplaced("an OpenAI-compatible guard needs the name of its model", "model")
        return self


RuleIn = Annotated[LengthRule | PatternRule | PiiRule | InjectionRule | RemoteRule, Field(discriminator="rule")]
RuleOut = Annotated[
    LengthRule | PatternRule | PiiRule | SecretsRule | JsonSchemaRule | RemoteRule, Field(discriminator="rule")
]


class Guardrails(Declared):
    """Rules in the order in which they are applied, and what a blocked request is answered with."""

    in_: tuple[RuleIn, ...] = Field(default=(), alias="in")
    out: tuple[RuleOut, ...] = ()
    refusal: str = Field(default="I cannot help with that.", min_length=1, max_length=2000)


class ExactCache(Declared):
    """Equal questions get equal answers."""

    ttl_s: Seconds = 3600.0
    max_entries: Count = 10_000
    max_bytes: Count = 67_108_864


class MustDiffer(Declared):
    """Two questions that must never share an answer; tested by `check`."""

    one: str
    other: str


class SemanticCache(Declared):
    """Questions that mean the same get the same answer."""

    embedding: Literal["all-minilm-l6-v2"] = "all-minilm-l6-v2"
    min_similarity: Annotated[float, Field(ge=0.5, le=1.0, description="Cosine of the two embeddings.")] = 0.95
    ttl_s: Seconds = 3600.0
    max_entries: Count = 100_000
    max_bytes: Count = 268_435_456
    timeout_s: Seconds = Field(default=0.25, description="A question not embedded by then is not looked up.")
    must_differ: tuple[MustDiffer, ...] = Field(min_length=1)


class Caches(Declared):
    """Levels that exist at all; each route says which it uses."""

    exact: ExactCache | None = None
    semantic: SemanticCache | None = None
    redis_url_variable: Variable | None = Field(default=None, description="Second level behind the memory.")


class RouteCache(Declared):
    """How one route uses the caches."""

    exact: bool = True
    semantic: bool = False
    scope: Literal["project", "user"] = "project"
    sampled: bool = Field(default=False, description="Also remember answers drawn with a temperature above 0.")

    @model_validator(mode="after")
    def _semantic_needs_exact(self) -> RouteCache:
        if self.semantic and not self.exact:
            raise ValueError("semantic needs exact: an equal question is never worth an embedding")
        return self
