"""How new data differs from the baseline's data: lengths, labels and slices, column by column."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.core.drift import Drift, categorical_drift, decided, numeric_drift
from pipelines.core.rows import Row

MOST_VALUES = 50  # an answer's key with more different texts is no label, so its length is compared
SHOWN = 5  # values of a label that are shown, those that moved most

Column = list[str] | list[float]


@dataclass(frozen=True)
class ValueChange:
    """One value of a label or slice: its share of the rows before and now, 0 to 1."""

    value: str
    before: float
    after: float


@dataclass(frozen=True)
class ColumnShift:
    """One column of two data sets.

    Attributes:
        column: `message (characters)`, `answer.intent`, `slice` ...
        verdict: shifted, unchanged or insufficient, decided over all columns together.
        drift: The test's figures.
        median_before: Of a number, else None.
        median_after: Likewise.
        changes: Of a label, the values whose shares moved most, else empty.
    """

    column: str
    verdict: str
    drift: Drift
    median_before: float | None
    median_after: float | None
    changes: tuple[ValueChange, ...]

    def sentence(self) -> str:
        """Say what moved in a few words, for people."""
        if self.median_before is not None and self.median_after is not None:
            return f"{self.column}: median {self.median_before:g} -> {self.median_after:g}"
        moved = ", ".join(f"{change.value} {change.before:.0%} -> {change.after:.0%}" for change in self.changes)
        return f"{self.column}: {moved or 'same shares'}"


def compare_rows(
    baseline: Sequence[Row], current: Sequence[Row], *, false_discovery_rate: float = 0.05
) -> tuple[ColumnShift, ...]:
    """Compare lengths, labels and slices of two data sets.

    Args:
        baseline: Rows of the baseline's data, in any order.
        current: Rows of the new data.
        false_discovery_rate: Share of the reported shifts that may be false, 0 to 1.

    Returns:
        One result per column that both have, shifted ones first. Fewer than 200 rows on a side are `insufficient`.
    """
    before, after = _columns(baseline), _columns(current)
    drifts = {name: _drift(before[name], after[name]) for name in before if name in after}
    shifts = [
        _described(name, drift, before[name], after[name])
        for name, drift in decided(drifts, false_discovery_rate=false_discovery_rate).items()
    ]
    return tuple(sorted(shifts, key=lambda shift: (shift.verdict != "shifted", -shift.drift.psi, shift.column)))


def as_json(shifts: Sequence[ColumnShift]) -> list[dict[str, Any]]:
    """Return the shifts as JSON values."""
    return [{**asdict(shift), "drift": shift.drift._asdict(), "sentence": shift.sentence()} for shift in shifts]


def _columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Return what is compared: column name to a number or text per row; of a list, yes or no per value it may hold."""
    columns: dict[str, Column] = {}
    for name in sorted({name for row in rows for name in row.inputs}):
        columns[f"{name} (characters)"] = [float(len(row.inputs[name])) for row in rows if name in row.inputs]
    columns["answer (characters)"] = [float(len(row.answer)) for row in rows]
    if any(row.slice is not None for row in rows):
        columns["slice"] = [row.slice or "none" for row in rows]
    answers = [answer for row in rows if isinstance(answer := _parsed(row.answer), dict)]
    for key in dict.fromkeys(key for answer in answers for key in answer):
        values = [answer[key] for answer in answers if key in answer]
        if any(isinstance(value, list) for value in values):
            columns |= _members(f"answer.{key}", values)
        else:
            columns[f"answer.{key}"] = [_text(value) for value in values]
    return columns


def _members(column: str, values: list[Any]) -> dict[str, Column]:
    """Return a column per frequent value of lists, so that a row counts once however long its list is."""
    sets = [{_text(entry) for entry in (value if isinstance(value, list) else [value])} for value in values]
    counts = Counter(text for texts in sets for text in texts)
    frequent = sorted(counts, key=lambda text: (-counts[text], text))[:MOST_VALUES]
    return {f"{column} has {text}": ["yes" if text in texts else "no" for texts in sets] for text in frequent}


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _drift(before: Column, after: Column) -> Drift:
    numbers = _numbers(before, after)
    if numbers is not None:
        return numeric_drift(*numbers)
    return categorical_drift([str(value) for value in before], [str(value) for value in after])


def _numbers(before: Column, after: Column) -> tuple[list[float], list[float]] | None:
    """Return both columns as numbers (of a text with many values, its lengths), or None if they are labels."""
    if all(isinstance(value, float) for value in (*before, *after)):
        return [float(value) for value in before], [float(value) for value in after]
    if len(set(before)) > MOST_VALUES and len(set(after)) > MOST_VALUES:
        return [float(len(str(value))) for value in before], [float(len(str(value))) for value in after]
    return None


def _described(name: str, drift: Drift, before: Column, after: Column) -> ColumnShift:
    numbers = _numbers(before, after)
    if numbers is not None:
        medians = [float(np.median(side)) if side else None for side in numbers]
        return ColumnShift(name, drift.verdict, drift, medians[0], medians[1], ())
    shares = [_shares(side) for side in (before, after)]
    changes = [ValueChange(value, shares[0].get(value, 0.0), shares[1].get(value, 0.0)) for value in _union(shares)]
    changes.sort(key=lambda change: (-abs(change.after - change.before), change.value))
    moved = tuple(change for change in changes[:SHOWN] if change.before != change.after)
    return ColumnShift(name, drift.verdict, drift, None, None, moved)


def _shares(column: Column) -> dict[str, float]:
    return {value: count / len(column) for value, count in Counter(map(str, column)).items()}


def _union(shares: list[dict[str, float]]) -> list[str]:
    return sorted(shares[0].keys() | shares[1].keys())
