"""Read a team's own data file as it is declared, and complain about all of its rows at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError
from pipelines.core.files import canonical_json, read_jsonl
from pipelines.core.params import Dataset, Params, SplitColumn
from pipelines.core.rows import Row

ATTACK_KEYS: dict[str, type] = {"obeyed_text": list, "obeyed_answer": dict, "personal_data": list}


class Example(NamedTuple):
    """A row as later jobs see it, and the columns it came from (they decide its split)."""

    row: Row
    columns: dict[str, Any]


class Complaints:
    """What is wrong in a data file, the lines of one kind of problem together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, list[int]] = {}

    def add(self, line: int, message: str) -> None:
        """Note a problem of one line."""
        self._lines.setdefault(message, []).append(line)

    def raise_any(self) -> None:
        """Raise the problem that comes first, with all of its lines.

        Raises:
            ConfigError: There is at least one problem.
        """
        if not self._lines:
            return
        message, lines = min(self._lines.items(), key=lambda item: item[1][0])
        same = f" (also line{'s' * (len(lines) > 2)} {shortened(lines[1:])})" if len(lines) > 1 else ""
        n_others = sum(map(len, self._lines.values())) - len(lines)
        others = f"; and {n_others:,} other problem{'s' * (n_others > 1)}" if n_others else ""
        raise ConfigError(f"{self._path}:{lines[0]}: {message}{same}{others}")


def shortened(lines: list[int], most: int = 5) -> str:
    """Write line numbers as people read them: `4, 9, 12 and 3 more`."""
    shown = ", ".join(map(str, lines[:most]))
    return f"{shown} and {len(lines) - most:,} more" if len(lines) > most else shown


def declared_dataset(params: Params, name: str) -> Dataset:
    """Return a data set by its name.

    Raises:
        ConfigError: `params.yaml` declares no such data set.
    """
    if name not in params.datasets:
        raise ConfigError(f"params.yaml: datasets: no data set '{name}'{nearest(name, sorted(params.datasets))}")
    return params.datasets[name]


def read_examples(path: Path, dataset: Dataset) -> list[Example]:
    """Read the rows of a data file in its order, by the columns that its declaration maps.

    Args:
        path: JSON Lines file (a baseline's copy may lie elsewhere than `dataset.path`).
        dataset: What the columns mean.

    Returns:
        At least one example. Rows that are the same in inputs and answer have the same id.

    Raises:
        ConfigError: The file cannot be read, a declared column is in no row, or a row lacks a value or has one of
            the wrong type; the message names the lines.
    """
    lines = read_jsonl(path)
    _check_columns(path, dataset, lines)
    complaints = Complaints(path)
    examples = [Example(_row(line, columns, dataset, complaints), columns) for line, columns in lines]
    if dataset.id is not None:
        _check_identifiers(dataset.id, lines, complaints)
    complaints.raise_any()
    return examples


def example_id(inputs: dict[str, str], answer: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of inputs and answer."""
    return hashlib.sha256(canonical_json([inputs, answer]).encode()).hexdigest()[:16]


def _check_columns(path: Path, dataset: Dataset, lines: list[tuple[int, dict[str, Any]]]) -> None:
    known = {name for _, columns in lines for name in columns}
    answers = [dataset.answer] if isinstance(dataset.answer, str) else list(dataset.answer.values())
    declared: list[str | None] = [*dataset.inputs.values(), *answers]
    declared += [dataset.id, dataset.slice, dataset.twin, dataset.group, dataset.attack]
    declared += [override.column for override in dataset.overrides]
    declared += [dataset.splits.column] if isinstance(dataset.splits, SplitColumn) else []
    for column in declared:
        if column is not None and column not in known:
            raise ConfigError(
                f"{path}:{lines[0][0]}: no row has the column '{column}' that params.yaml names"
                f"{nearest(column, sorted(known))}"
            )


def _row(line: int, columns: dict[str, Any], dataset: Dataset, complaints: Complaints) -> Row:
    inputs = {name: _input(line, columns, column, complaints) for name, column in dataset.inputs.items()}
    answer = _answer(line, columns, dataset, complaints)
    attack = columns.get(dataset.attack) if dataset.attack else None
    if attack is not None:
        for problem in _problems_of_attack(attack):
            complaints.add(line, f"column '{dataset.attack}' {problem}")
    return Row(
        id=example_id(inputs, answer),
        inputs=inputs,
        answer=answer,
        slice=_mark(line, columns, dataset.slice, complaints),
        twin=_mark(line, columns, dataset.twin, complaints),
        group=_mark(line, columns, dataset.group, complaints),
        attack=attack,
        line=line,
    )


def _value(line: int, columns: dict[str, Any], column: str, complaints: Complaints) -> Any:
    if column not in columns:
        complaints.add(line, f"column '{column}' is missing; add it or remove the row")
    elif columns[column] is None:
        complaints.add(line, f"column '{column}' is null; give it a value or remove the row")
    return columns.get(column)


def _input(line: int, columns: dict[str, Any], column: str, complaints: Complaints) -> str:
    value = _value(line, columns, column, complaints)
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        complaints.add(line, f"column '{column}' is {_kind(value)}; a prompt takes a text or a number")
    return "" if value is None else json.dumps(value)


def _answer(line: int, columns: dict[str, Any], dataset: Dataset, complaints: Complaints) -> str:
    if isinstance(dataset.answer, str):
        value = _value(line, columns, dataset.answer, complaints)
    else:
        value = {key: _value(line, columns, column, complaints) for key, column in dataset.answer.items()}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mark(line: int, columns: dict[str, Any], column: str | None, complaints: Complaints) -> str | None:
    """Return a slice, twin or group; absent and null both mean none."""
    value = columns.get(column) if column else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        complaints.add(
            line, f"column '{column}' is {_kind(value)}; a text or a whole number is needed, or leave it out"
        )
    return str(value)


def _problems_of_attack(attack: object) -> Iterator[str]:
    if not isinstance(attack, dict):
        yield f"is {_kind(attack)}; an object with {', '.join(ATTACK_KEYS)} is needed"
        return
    for key, value in attack.items():
        if key not in ATTACK_KEYS:
            yield f"has the unknown key '{key}'{nearest(key, sorted(ATTACK_KEYS))}"
        elif not isinstance(value, ATTACK_KEYS[key]) or not value:
            yield f"has '{key}', which must be {_kind(ATTACK_KEYS[key]())} that is not empty"
        elif isinstance(value, list) and not all(isinstance(text, str) and text.strip() for text in value):
            yield f"has '{key}', which must hold texts that are not empty"


def _check_identifiers(column: str, lines: list[tuple[int, dict[str, Any]]], complaints: Complaints) -> None:
    seen: dict[str, int] = {}
    counts = Counter(canonical_json(columns.get(column)) for _, columns in lines)
    for line, columns in lines:
        value = _value(line, columns, column, complaints)
        key = canonical_json(value)
        if value is not None and counts[key] > 1 and seen.setdefault(key, line) != line:
            complaints.add(line, f"column '{column}': {str(value)[:60]!r} stands on line {seen[key]} already")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text" if value else "an empty text"
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
