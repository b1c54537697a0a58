"""JSON Schemas of the declared files, generated from their models, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.core import dvc_yaml, gates, params
from pipelines.core.errors import ConfigError
from pipelines.core.files import read_text
from pipelines.llm import prompts


def texts() -> dict[str, str]:
    """Return path and text of every schema."""
    schemas = {
        "params": params.schema(),
        "gates": gates.schema(),
        "prompt": prompts.schema(),
        "dvc": dvc_yaml.schema(),
    }
    return written(schemas)


def written(schemas: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return path and text of the file of each schema, given by its short name."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"schemas/{name}.schema.json": json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def stale(root: Path, expected: dict[str, str] | None = None) -> list[str]:
    """Return one line for each schema that is missing or not what the models say.

    Args:
        root: The repository.
        expected: Path and text of each schema; by default those of this module.
    """
    lines = []
    for name, text in (texts() if expected is None else expected).items():
        try:
            is_same = read_text(root / name, shown=name) == text
        except ConfigError as error:
            lines.append(str(error))
            continue
        if not is_same:
            lines.append(f"{name}: differs from the model in code; run `python -m scripts.schema` and commit it")
    return lines
