"""What must hold for a data set, written as Great Expectations rules over plain tables."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelines.core.params import Dataset, LengthRange, NearDuplicates, Validation
from pipelines.core.rows import Row
from pipelines.training.prepare import alike_numbers, families, near_duplicates

ROWS = "rows"
MISSING = "(missing)"
COUNTED = "counted"


class Placed(NamedTuple):
    """A row and the split it is in."""

    split: str
    row: Row


@dataclass
class Table:
    """Columns to test; entry i of each column concerns the rows `concerned[i]` (positions among all rows)."""

    columns: dict[str, list[Any]]
    concerned: list[list[int]]


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        name: What must hold, for people.
        table: Name of the table it looks at.
        kind: Great Expectations' class.
        arguments: Its arguments.
        shown: Column that says what was found in an offending entry.
        blamed: Entries to show where the expectation looks at the whole table only.
    """

    name: str
    table: str
    kind: str
    arguments: dict[str, Any]
    shown: str
    blamed: tuple[int, ...] = ()


@dataclass
class Expectations:
    """Every rule of a data set and the tables they look at."""

    tables: dict[str, Table]
    rules: list[Rule] = field(default_factory=list)

    def expect(
        self, name: str, kind: str, column: str, *, table: str = ROWS, shown: str = "", **arguments: Any
    ) -> None:
        """Add a rule about the values of one column."""
        self.rules.append(Rule(name, table, kind, {"column": column, **arguments}, shown or column))


def expectations(
    placed: list[Placed],
    dataset: Dataset,
    declared: Validation,
    *,
    near: NearDuplicates,
    problem_of: Callable[[str], str | None] | None,
) -> Expectations:
    """Write down every expectation of a data set.

    Args:
        placed: All rows; at least one.
        dataset: What the rows' columns mean.
        declared: The `validate` section of the data set.
        near: When two rows are near-duplicates.
        problem_of: Says what is wrong with a gold answer by its schema, or None; None where no schema is declared.

    Returns:
        Rules in the order in which people read them.
    """
    rows = [one.row for one in placed]
    alike = alike_numbers(rows, near)
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "answer": [row.answer for row in rows],
        "slice": [MISSING if row.slice is None else row.slice for row in rows],
        "overlap": _overlaps(placed, families(rows, alike).tolist()),
        **{f"input '{name}'": [row.inputs.get(name) for row in rows] for name in dataset.inputs},
    }
    found = Expectations({ROWS: Table(columns, [[i] for i in range(len(rows))])})
    n_rows = {"min_value": declared.min_rows}
    found.rules.append(
        Rule(f"at least {declared.min_rows:,} rows", ROWS, "ExpectTableRowCountToBeBetween", n_rows, "id")
    )
    found.expect("no two rows have the same inputs and answer", "ExpectColumnValuesToBeUnique", "id")
    for name in dataset.inputs:
        _expect_text(found, f"input '{name}'", declared.input_length)
    _expect_text(found, "answer", declared.answer_length)
    if problem_of is not None:
        columns["schema"] = [problem_of(row.answer) for row in rows]
        name = f"gold answers satisfy the jsonSchema of {declared.prompt}"
        found.expect(name, "ExpectColumnValuesToBeNull", "schema")
    _expect_labels(found, rows, declared)
    if declared.slices:
        name = f"slice is one of {', '.join(declared.slices)}"
        found.expect(name, "ExpectColumnValuesToBeInSet", "slice", value_set=list(declared.slices))
    measure = f"Jaccard of {near.ngram}-grams >= {near.similarity:g}"
    _expect_few(found, rows, near_duplicates(rows, alike), declared.max_near_duplicate_rate, measure)
    found.expect("no split repeats rows of another", "ExpectColumnValuesToBeNull", "overlap")
    if dataset.twin is not None:
        columns["twin"] = _twin_problems(rows)
        found.expect("twins are two rows with the same answer", "ExpectColumnValuesToBeNull", "twin")
    return found


def _expect_text(found: Expectations, column: str, length: LengthRange) -> None:
    found.expect(f"{column} is never null", "ExpectColumnValuesToNotBeNull", column)
    found.expect(f"{column} is a text", "ExpectColumnValuesToBeOfType", column, type_="str")
    found.expect(f"{column} is not empty or blank", "ExpectColumnValuesToNotMatchRegex", column, regex=r"^\s*\Z")
    name = f"{column} has {length.min:,} to {length.max:,} characters"
    kind = "ExpectColumnValueLengthsToBeBetween"
    found.expect(name, kind, column, min_value=length.min, max_value=length.max)


def _expect_labels(found: Expectations, rows: list[Row], declared: Validation) -> None:
    answers = [_parsed(row.answer) for row in rows] if declared.labels else []
    for key, allowed in declared.labels.items():
        entries = [(i, value) for i, answer in enumerate(answers) for value in _labels(answer, key)]
        table = f"label {key}"
        found.tables[table] = Table({"value": [value for _, value in entries]}, [[i] for i, _ in entries])
        name = f"label '{key}' is one of {', '.join(allowed)}"
        found.expect(name, "ExpectColumnValuesToBeInSet", "value", table=table, value_set=list(allowed))
        _expect_balance(found, key, entries, len(rows), declared)


def _expect_balance(
    found: Expectations, key: str, entries: list[tuple[int, str]], n_rows: int, declared: Validation
) -> None:
    having: dict[str, set[int]] = {value: set() for value in declared.labels[key]}
    for i, value in entries:
        having.setdefault(value, set()).add(i)
    counts = [len(members) for members in having.values()]
    said = [f"{value}: {count:,} of {n_rows:,} rows" for value, count in zip(having, counts, strict=True)]
    is_allowed = [value in declared.labels[key] for value in having]
    table = f"counts of label {key}"
    found.tables[table] = Table(
        {
            "share": [count / n_rows for count in counts],
            # A value outside of the set is the label rule's business.
            "rows": [count if known else None for count, known in zip(counts, is_allowed, strict=True)],
            COUNTED: said,
        },
        [sorted(members) for members in having.values()],
    )
    kind = "ExpectColumnValuesToBeBetween"
    if declared.max_label_share < 1:
        name = f"no value of label '{key}' has more than {declared.max_label_share:.4g} of the rows"
        found.expect(name, kind, "share", table=table, shown=COUNTED, max_value=declared.max_label_share)
    if declared.min_label_rows > 0:
        name = f"each value of label '{key}' has at least {declared.min_label_rows:,} rows"
        found.expect(name, kind, "rows", table=table, shown=COUNTED, min_value=declared.min_label_rows)


def _expect_few(found: Expectations, rows: list[Row], groups: list[list[Row]], limit: float, measure: str) -> None:
    places = {id(row): i for i, row in enumerate(rows)}
    columns = found.tables[ROWS].columns
    columns["near-duplicate of"] = [None] * len(rows)
    for group in groups:
        for row in group:
            other = group[1] if row is group[0] else group[0]
            columns["near-duplicate of"][places[id(row)]] = f"nearly repeats line {other.line}"
    blamed = tuple(i for i, text in enumerate(columns["near-duplicate of"]) if text is not None)
    columns["is near-duplicate"] = [0.0 if text is None else 1.0 for text in columns["near-duplicate of"]]
    arguments = {"column": "is near-duplicate", "max_value": limit}
    name = f"near-duplicate rate is at most {limit:.4g} ({measure})"
    found.rules.append(Rule(name, ROWS, "ExpectColumnMeanToBeBetween", arguments, "near-duplicate of", blamed))


def _overlaps(placed: list[Placed], numbers: list[int]) -> list[str | None]:
    """Say per row which row of another split it repeats (or is twin or group member of), or None."""
    members: dict[int, list[Placed]] = defaultdict(list)
    for one, number in zip(placed, numbers, strict=True):
        members[number].append(one)
    return [_overlap(one, members[number]) for one, number in zip(placed, numbers, strict=True)]


def _overlap(one: Placed, family: list[Placed]) -> str | None:
    other = next((member for member in family if member.split != one.split), None)
    return other and f"belongs together with line {other.row.line} in '{other.split}'"


def _twin_problems(rows: list[Row]) -> list[str | None]:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.twin is not None:
            answers[row.twin][row.answer] += 1

    def problem(twin: str) -> str | None:
        found = answers[twin]
        if found.total() != 2:
            return f"twin '{twin}' has {found.total()} row{'s' * (found.total() != 1)}, 2 are needed"
        return None if len(found) == 1 else f"the rows of twin '{twin}' have different answers"

    return [None if row.twin is None else problem(row.twin) for row in rows]


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError, TypeError):
        return None


def _labels(answer: Any, key: str) -> Iterator[str]:
    """Yield the values of a label, each entry of a list by itself, as text."""
    if not isinstance(answer, dict) or key not in answer:
        yield MISSING
        return
    value = answer[key]
    for entry in value if isinstance(value, list) else [value]:
        yield entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
