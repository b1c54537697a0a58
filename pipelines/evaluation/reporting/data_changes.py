"""Which rows of a data file were added, removed or edited, by content: moving a row is no change."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.files import canonical_json, read_jsonl
from pipelines.core.params import Dataset
from pipelines.evaluation.reporting.difference import Piece, differences

LIKENESS = 70.0  # rapidfuzz ratio (0 to 100) from which two inputs count as one row edited; below it, as two rows
MAX_PAIRS = 400  # likeness compares every removed with every added row


class EditedRow(NamedTuple):
    """One row before and after."""

    line: int
    columns: tuple[tuple[str, tuple[Piece, ...]], ...]


class DataChange(NamedTuple):
    """One data file.

    Attributes:
        path: The file.
        n_before: Rows of the baseline.
        n_after: Rows of the working tree.
        added: Line and content of rows that are new.
        removed: Line (in the baseline's file) and content of rows that are gone.
        edited: Rows whose input stayed (nearly) the same.
        shift: What the change does to lengths, labels and slices, a sentence per column that shifted.
    """

    path: str
    n_before: int
    n_after: int
    added: tuple[tuple[int, str], ...]
    removed: tuple[tuple[int, str], ...]
    edited: tuple[EditedRow, ...]
    shift: tuple[str, ...] = ()


Line = tuple[int, dict[str, Any]]


def compare_data(path: str, before: Path, after: Path, inputs: tuple[str, ...]) -> DataChange | None:
    """Compare two JSON Lines files by the content of their rows.

    Args:
        path: Name to report.
        before: The baseline's file; a missing one has no rows.
        after: The working tree's file; likewise.
        inputs: Columns that hold the model's input; rows that agree on them are the same row, edited.

    Returns:
        None where both files have the same rows, in any order.

    Raises:
        ConfigError: A file is there but is no JSON Lines file.
    """
    if before.is_file() and after.is_file() and before.read_bytes() == after.read_bytes():
        return None
    old, new = _rows(before), _rows(after)
    removed, added = _missing_from(old, new), _missing_from(new, old)
    if not removed and not added:
        return None
    edited = _same_inputs(removed, added, inputs) + _alike(removed, added, inputs)
    return DataChange(
        path=path,
        n_before=len(old),
        n_after=len(new),
        added=tuple((line, _text(row)) for line, row in added),
        removed=tuple((line, _text(row)) for line, row in removed),
        edited=tuple(sorted(edited)),
    )


def describe_shift(dataset: Dataset, before: Path, after: Path) -> tuple[str, ...]:
    """Say how the columns of two data files differ as distributions.

    Args:
        dataset: What the columns mean; both files are read by it.
        before: The baseline's file.
        after: The working tree's file.

    Returns:
        A sentence per shifted column, or one that says why there is none.

    Raises:
        ConfigError: A file does not fit the declaration.
    """
    from pipelines.training.examples import read_examples  # here, with numpy and scipy: only changed data needs them
    from pipelines.training.shift import compare_rows

    old, new = ([example.row for example in read_examples(path, dataset)] for path in (before, after))
    shifts = compare_rows(old, new)
    shifted = tuple(f"shifted: {shift.sentence()}" for shift in shifts if shift.verdict == "shifted")
    if shifted:
        return shifted
    if any(shift.verdict == "insufficient" for shift in shifts):
        return (f"too few rows to tell whether the data shifted ({len(old):,} before, {len(new):,} now)",)
    return (f"none of {len(shifts)} columns (lengths, labels, slices) shifted",)


def _rows(path: Path) -> list[Line]:
    if not path.is_file() or not path.stat().st_size:
        return []
    return read_jsonl(path)


def _missing_from(rows: list[Line], others: list[Line]) -> list[Line]:
    """Return the rows that `others` has not, counting copies."""
    left = Counter(canonical_json(row) for _, row in others)
    found = []
    for line, row in rows:
        key = canonical_json(row)
        if left[key]:
            left[key] -= 1
        else:
            found.append((line, row))
    return found


def _same_inputs(removed: list[Line], added: list[Line], inputs: tuple[str, ...]) -> list[EditedRow]:
    """Take pairs with equal inputs out of both lists."""
    if not inputs:
        return []
    by_input: dict[str, list[Line]] = defaultdict(list)
    for item in removed:
        by_input[_input(item[1], inputs)].append(item)
    edited = []
    for item in list(added):
        candidates = by_input[_input(item[1], inputs)]
        if candidates:
            edited.append(_take(candidates.pop(0), item, removed, added))
    return edited


def _alike(removed: list[Line], added: list[Line], inputs: tuple[str, ...]) -> list[EditedRow]:
    """Take pairs with nearly equal inputs out of both lists, the most alike first."""
    if not removed or not added or max(len(removed), len(added)) > MAX_PAIRS:
        return []
    from rapidfuzz import fuzz, process  # here, for only changed data needs it

    texts = [[_input(row, inputs) if inputs else _text(row) for _, row in side] for side in (removed, added)]
    scores = process.cdist(texts[0], texts[1], scorer=fuzz.ratio, score_cutoff=LIKENESS)
    ranked = sorted(
        ((float(scores[i, j]), i, j) for i, j in zip(*scores.nonzero(), strict=True)),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    old, new, edited = list(removed), list(added), []
    used: tuple[set[int], set[int]] = (set(), set())
    for _, i, j in ranked:
        if i not in used[0] and j not in used[1]:
            used[0].add(int(i))
            used[1].add(int(j))
            edited.append(_take(old[i], new[j], removed, added))
    return edited


def _take(old: Line, new: Line, removed: list[Line], added: list[Line]) -> EditedRow:
    removed.remove(old)
    added.remove(new)
    before, after = old[1], new[1]
    columns = [
        (column, differences(_cell(before, column), _cell(after, column)))
        for column in dict.fromkeys([*after, *before])
        if before.get(column) != after.get(column)
    ]
    return EditedRow(new[0], tuple(columns))


def _input(row: dict[str, Any], inputs: tuple[str, ...]) -> str:
    if not all(column in row for column in inputs):  # a renamed column would make every row the same, empty one
        return _text(row)
    return "\n".join(_cell(row, column) for column in inputs)


def _cell(row: dict[str, Any], column: str) -> str:
    if column not in row:
        return ""
    value = row[column]
    return value if isinstance(value, str) else canonical_json(value)


def _text(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
