"""The JSON Schema that a prompt's answers must satisfy, refused where it could not be applied."""

from __future__ import annotations

import json
from typing import Any

from pipelines.core.source import MOST_LEVELS


def parse_schema(text: str) -> dict[str, Any]:
    """Parse a prompt's `jsonSchema`.

    Args:
        text: JSON text of an object with `name` and `schema`.

    Returns:
        The schema.

    Raises:
        ValueError: The text is not such JSON, the schema is invalid, or refers to something outside itself.
    """
    try:
        value = json.loads(text)
        if _levels(value) > MOST_LEVELS:
            raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(value, dict) or not isinstance(value.get("schema"), dict):
        raise ValueError("a JSON object with 'name' and 'schema' is needed")
    schema: dict[str, Any] = value["schema"]
    import jsonschema  # here, for it costs 60 ms that text prompts need not pay

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"not a valid JSON Schema ({error.message[:200]})") from None
    for reference in _references(schema):
        _follow(schema, reference)
    return schema


def _parts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _levels(value: Any) -> int:
    return 1 + max(map(_levels, _parts(value)), default=0)


def _references(value: Any) -> list[str]:
    own = [value.get("$ref"), value.get("$dynamicRef")] if isinstance(value, dict) else []
    inner = [reference for part in _parts(value) for reference in _references(part)]
    return [reference for reference in own if isinstance(reference, str)] + inner


def _follow(schema: dict[str, Any], reference: str) -> None:
    """Refuse a reference that leads nowhere, or out of the file (a schema must not make anyone fetch a URL)."""
    place: Any = schema
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, dict) else None
    if reference.split("/")[0] != "#" or not isinstance(place, dict | bool):
        raise ValueError(f"$ref '{reference[:80]}' leads nowhere inside this schema")
