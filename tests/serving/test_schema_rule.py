"""Answers held against a JSON Schema, with one more try."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.config_policies import JsonSchemaRule
from pipelines.serving.exchange import Decision
from pipelines.serving.schema_rule import MOST_KNOWN_BYTES, SchemaRule
from tests.serving.inside import ask, make
from tests.serving.rules import exchange, guard, guards
from tests.serving.test_guardrails import BODY, REFUSAL, said, serving, texts
from tests.serving.upstreams import Upstreams

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
WANTS: dict[str, Any] = BODY | {
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
}


def inspect(text: str | None, body: dict[str, Any] = WANTS, **rule: Any) -> str:
    rules = guard(out=[{"rule": "json_schema", **rule}])
    message = {"content": text, "tool_calls": [1]} if text is None else {"content": text}
    return asyncio.run(rules.inspect_out(exchange(), body, {"choices": [{"message": message}]})).action


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": -5}\n', None])
def test_what_fits_passes(text: str | None) -> None:
    assert inspect(text, retries=0) == "pass"


@pytest.mark.parametrize(
    "text", ["", "no", '{"a": "1"}', '{"a": 1, "b": 2}', '{"a": 1', '```json\n{"a": 1}\n```', "NaN"]
)
def test_what_does_not_fit_is_blocked(text: str) -> None:
    assert inspect(text, retries=0) == "block"


def test_usual_patterns_in_a_schema_are_held_against() -> None:
    for pattern, text, action in (("^[a-z]+$", "abc", "pass"), ("^[a-z]+$", "1", "block"), (".*x.*", "axb", "pass")):
        schema = {"properties": {"a": {"pattern": pattern}}}
        body = BODY | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        assert inspect(json.dumps({"a": text}), body, retries=0) == action


def test_without_a_schema_nothing_is_asked_of_an_answer_and_json_object_asks_for_one() -> None:
    assert inspect("no", BODY) == "pass"
    wants_object = BODY | {"response_format": {"type": "json_object"}}
    assert inspect("{}", wants_object) == "pass"
    assert inspect("[]", wants_object, retries=0) == "block"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"properties": {"a": {"pattern": "(x+)+y"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"patternProperties": {"^(x|x)*$": {}}},
        "text",
        None,
    ],
)
def test_a_schema_that_cannot_be_held_against_lets_nothing_pass_and_asks_nobody(schema: Any) -> None:
    body = BODY | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    assert inspect('{"a": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}', body) == "block"


def fanned_out(n_levels: int) -> dict[str, Any]:
    inner = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(n_levels)}
    return {"$defs": inner | {f"d{n_levels}": {}}, "$ref": "#/$defs/d0"}


def wants(schema: Any) -> dict[str, Any]:
    return BODY | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


@pytest.mark.parametrize(
    "schema",
    [
        fanned_out(12),
        {"properties": {f"p{index}": {} for index in range(1500)}},
        {"description": "x" * 40_000},
        {"$defs": {"list": {"properties": {"rest": {"$ref": "#/$defs/list"}}}}, "$ref": "#/$defs/list"},
        {"allOf": [{"properties": {"a": {"unevaluatedProperties": False}}}]},
        {"$id": "http://localhost/other", "allOf": [{}]},
        {"$ref": "#"},
        {"pattern": "(" * 400 + "a" + ")" * 400},
    ],
    ids=[
        "fanned out",
        "many properties",
        "many bytes",
        "recursive",
        "unevaluated",
        "another base",
        "itself",
        "brackets",
    ],
)
def test_a_schema_that_asks_for_too_much_work_is_not_held_against_anything(schema: Any) -> None:
    assert inspect("{}", wants(schema)) == "block"


def test_references_that_stand_at_few_places_are_followed() -> None:
    assert inspect("1", wants(fanned_out(4))) == "pass"
    shared = {
        "$defs": {"n": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}},
    }
    assert inspect('{"a": 1, "b": 2}', wants(shared)) == "pass"
    assert inspect('{"a": 1, "b": "x"}', wants(shared), retries=0) == "block"


def test_an_answer_of_too_many_values_or_too_long_a_text_for_its_schema_does_not_pass() -> None:
    numbers = wants({"items": {"allOf": [{"type": "integer"}] * 20}})
    assert inspect(json.dumps([1] * 100), numbers) == "pass"
    assert inspect(json.dumps([1] * 20_000), numbers) == "block"
    named = wants({"properties": {"a": {"pattern": ".*x.*"}}})
    assert inspect(json.dumps({"a": "x" * 5_000}), named) == "block"


def test_an_answer_nested_deeper_than_this_process_can_follow_does_not_pass() -> None:
    assert inspect("[" * 1010 + "]" * 1010, wants({"uniqueItems": True})) == "block"


@pytest.mark.parametrize(
    ("items", "action"),
    [
        ('[1, true, 0, false, "1", null]', "pass"),
        ("[1, 1.0]", "block"),
        ('[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]', "block"),
        ('[{"a": [1]}, {"a": [true]}]', "pass"),
        (json.dumps([[number] for number in range(10_000)]), "pass"),
    ],
    ids=["kinds", "numbers", "objects", "inside", "many"],
)
def test_items_are_held_to_differ_as_json_values_in_one_pass(items: str, action: str) -> None:
    assert inspect(items, wants({"uniqueItems": True}), retries=0) == action


def test_what_is_remembered_of_schemas_stays_small() -> None:
    rule = SchemaRule(JsonSchemaRule(rule="json_schema"))

    async def scenario() -> None:
        answer = {"choices": [{"message": {"content": "1"}}]}
        for number in range(40):
            schema = {"type": "integer", "description": f"{number}" * 10_000}
            assert (await rule.inspect_out(exchange(), wants(schema), answer)).action == "pass"
            large = {"description": f"{number}" * 40_000}
            assert (await rule.inspect_out(exchange(), wants(large), answer)).action == "block"

    asyncio.run(scenario())
    kept = len(pickle.dumps([(key, ready and ready.validator.schema) for key, ready in rule._known.items()]))
    assert 0 < kept <= MOST_KNOWN_BYTES + 10_000


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("replies", "left", "actions", "n_attempts"),
    [
        (['{"a": 1}'], '{"a": 1}', [], 1),
        (["no", '{"a": 2}'], '{"a": 2}', ["retry"], 2),
        (["no", "no again", '{"a": 3}'], REFUSAL, ["retry", "block"], 2),
    ],
)
def test_an_answer_that_does_not_fit_is_asked_for_once_more(
    upstreams: Upstreams,
    tmp_path: Path,
    replies: list[str],
    left: str,
    actions: list[str],
    n_attempts: int,
    streams: bool,
) -> None:
    async def scenario() -> None:
        file = serving(upstreams, {"out": [{"rule": "json_schema"}]})
        gateway, ledger = make(tmp_path, file, guards=guards(file))
        upstreams.script(*({"text": reply} for reply in replies))
        _, _, content = await ask(gateway, WANTS | {"stream": streams})
        assert (texts(content) if streams else said(json.loads(content))) == left
        row = ledger.rows[0]
        assert row.decisions == [Decision("out", "json_schema", action) for action in actions]
        assert row.n_attempts == n_attempts
        upstreams.script()

    asyncio.run(scenario())
