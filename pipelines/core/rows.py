"""A prepared example: what every later job reads instead of the raw file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_jsonl, write_jsonl

AGAIN = "run `python -m scripts.prepare`"


class Row(NamedTuple):
    """One example.

    Attributes:
        id: SHA-256 (first 16 hex digits) of inputs and answer.
        inputs: Value of every prompt variable.
        answer: The gold answer as text; a JSON answer as JSON text.
        slice: How the example is difficult, or None.
        twin: Shared by two counterfactual rows, or None.
        group: The conversation it comes from (a cluster), or None.
        attack: `obeyed_text`, `obeyed_answer`, `personal_data`, each optional, or None.
        line: Line in the raw file, for messages to people.
    """

    id: str
    inputs: dict[str, str]
    answer: str
    slice: str | None = None
    twin: str | None = None
    group: str | None = None
    attack: dict[str, Any] | None = None
    line: int = 0


def read_rows(path: Path) -> list[Row]:
    """Read prepared rows.

    Raises:
        ConfigError: The file is missing, or not one that `scripts.prepare` wrote.
    """
    rows = []
    for number, value in read_jsonl(path):
        try:
            row = Row(**value)
        except TypeError as error:
            raise ConfigError(f"{path}:{number}: not a prepared row ({error}); {AGAIN}") from None
        texts = [row.id, row.answer, *row.inputs.values()] if isinstance(row.inputs, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{path}:{number}: not a prepared row (id, answer and inputs are texts); {AGAIN}")
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write prepared rows, whole or not at all."""
    write_jsonl(path, (row._asdict() for row in rows))
