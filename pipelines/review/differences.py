"""Say in words how a value in the repository differs from the one in a file."""

from __future__ import annotations

import json
from typing import Any

from pipelines.core.errors import one_line
from pipelines.review.steps import Call, Kind, Step


def compare(want: dict[str, Any], have: dict[str, Any], name: str = "") -> list[str]:
    """Return one sentence for each declared value that is another in the repository.

    What the repository adds to a mapping is not compared: GitHub answers with defaults that nobody declared. Where
    additions matter, the caller gives lists of names beside the mappings.
    """
    found = []
    for key, value in want.items():
        dotted = f"{name}.{key}" if name else key
        other = have.get(key)
        if isinstance(value, dict):
            found += compare(value, other if isinstance(other, dict) else {}, dotted)
        elif value != other:
            found.append(f"{dotted} is {_short(other)}, the file says {_short(value)}")
    return found


def missing(kind: Kind, name: str, where: str, *calls: Call) -> Step:
    """Return the step that creates a setting."""
    return Step(kind, name, where, "is missing", calls)


def _short(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False), 160)
