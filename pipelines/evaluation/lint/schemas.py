"""JSON Schemas of the declared files, generated from their models, for editors."""

from __future__ import annotations

import json
from pathlib import Path

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
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"schemas/{name}.schema.json": json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def stale(root: Path) -> list[str]:
    """Return one line for each schema that is missing or not what the models say."""
    lines = []
    for name, text in texts().items():
        try:
            is_same = read_text(root / name, shown=name) == text
        except ConfigError as error:
            lines.append(str(error))
            continue
        if not is_same:
            lines.append(f"{name}: differs from the model in code; run `python -m scripts.schema` and commit it")
    return lines
