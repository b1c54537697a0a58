"""How much work a client's JSON Schema may make: what a few kilobytes can ask of a validator has no end by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

from pipelines.serving.hardness import is_too_slow

MOST_BYTES = 32_768
MOST_VALUES = 1_000
MOST_LEVELS = 32
MOST_APPLIED = 2_000
"""Subschemas, with everything that a `$ref` leads to counted at every place where it stands."""
MOST_STEPS = 100_000
"""Subschemas times values of an answer."""
MOST_PATTERN_CHARACTERS = 500
MOST_MATCHED_CHARACTERS = 2_000
UNCOUNTED = ("$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties")
"""Keywords whose work cannot be counted beforehand."""


class Unfit(Exception):
    """A schema that nothing can be held against: invalid, pointing outside itself, or too much work."""


def parts(value: Any) -> Any:
    """Return what stands directly in a JSON value."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def count(value: Any, most: int) -> int:
    """Return how many values a JSON value has, itself included; counts no further than `most` and a few more."""
    n_found, todo = 1, [value]
    while todo and n_found <= most:
        inner = parts(todo.pop())
        n_found += len(inner)
        todo.extend(part for part in inner if part.__class__ in (dict, list))
    return n_found


def check_size(schema: Any) -> None:
    """Refuse a schema of too many values; cheap, whatever it is.

    Raises:
        Unfit: It has too many.
    """
    if count(schema, MOST_VALUES) > MOST_VALUES:
        raise Unfit


def applied(schema: dict[str, Any]) -> int:
    """Return how many subschemas a validator may apply to one value at most.

    Raises:
        Unfit: They are too many or without end (a `$ref` to what it stands in), or cannot be counted.
    """
    n_found = 0
    todo: list[tuple[Any, int, frozenset[str]]] = [(schema, 0, frozenset())]
    while todo:
        value, level, through = todo.pop()
        n_found += 1
        if n_found > MOST_APPLIED or level > MOST_LEVELS:
            raise Unfit
        if isinstance(value, dict):
            if any(key in value for key in UNCOUNTED) or isinstance(value.get("$id"), str):
                raise Unfit
            reference = value.get("$ref")
            if isinstance(reference, str):
                if reference in through:
                    raise Unfit
                todo.append((_target(schema, reference), level + 1, through | {reference}))
        todo.extend((part, level + 1, through) for part in _applicable(value) if part.__class__ in (dict, list))
    return n_found


def _applicable(value: Any) -> Any:
    if not isinstance(value, dict):
        return parts(value)
    return [part for key, part in value.items() if key not in ("$defs", "definitions")]


def _target(schema: dict[str, Any], reference: str) -> Any:
    place: Any = schema
    for part in reference.split("/")[1:]:
        place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return schema if reference == "#" else place


def check_patterns(value: Any) -> None:
    """Refuse a schema whose regular expressions could stop the gateway.

    Raises:
        Unfit: One could.
    """
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            patterns = [value["pattern"]] if isinstance(value.get("pattern"), str) else []
            if isinstance(value.get("patternProperties"), dict):
                patterns += value["patternProperties"]
            if any(len(pattern) > MOST_PATTERN_CHARACTERS or is_too_slow(pattern) for pattern in patterns):
                raise Unfit
        todo.extend(parts(value))


def _plain(value: Any) -> Any:
    """Return what is equal exactly where two JSON values are: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return "list", tuple(map(_plain, value))
    if isinstance(value, dict):
        return "dict", frozenset((key, _plain(part)) for key, part in value.items())
    return (value.__class__, value) if isinstance(value, bool) else value


def _unique_items(validator: Any, wanted: Any, items: Any, schema: Any) -> Iterator[Any]:
    """Hold `uniqueItems` against a list in one pass, where the package compares each item with each."""
    if wanted and isinstance(items, list) and len(set(map(_plain, items))) < len(items):
        yield jsonschema.ValidationError("items are repeated")


def _pattern(validator: Any, wanted: Any, text: Any, schema: Any) -> Iterator[Any]:
    if isinstance(text, str) and len(text) > MOST_MATCHED_CHARACTERS:
        raise Unfit
    yield from jsonschema.Draft202012Validator.VALIDATORS["pattern"](validator, wanted, text, schema)


def _pattern_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, dict) and any(len(key) > MOST_MATCHED_CHARACTERS for key in value):
        raise Unfit
    yield from jsonschema.Draft202012Validator.VALIDATORS["patternProperties"](validator, wanted, value, schema)


Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {"uniqueItems": _unique_items, "pattern": _pattern, "patternProperties": _pattern_properties},
)
