"""What a pull request does to the rows that a suite is measured on: removed, relabelled, diluted, or given away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.core.files import canonical_json
from pipelines.core.params import NearDuplicates
from pipelines.core.rows import Row
from pipelines.training.prepare import alike_numbers

DILUTION = 0.1
"""Share of new rows from which on a floor says little about the rows that were there."""
QUOTED_CHARACTERS = 20
"""Shorter texts stand in a prompt by chance."""


class Suite(NamedTuple):
    """One suite at one revision, as far as rows go.

    Attributes:
        rows: What it is measured on, by id.
        schema: JSON Schema of an answer, which `schema_compliance` measures against, or None.
        prompt: Text of its prompt file.
    """

    rows: tuple[Row, ...]
    schema: Any = None
    prompt: str = ""


def rows_changed(before: Mapping[str, Suite], after: Mapping[str, Suite]) -> tuple[str, ...]:
    """Say which suites are no longer measured on the rows, with the gold answers, that they were.

    Args:
        before: Suites of main.
        after: Suites of the pull request; one that is not there is somebody else's complaint.
    """
    found: list[str] = []
    for name, old in before.items():
        if name in after:
            found += _of_suite(name, old, after[name])
    return tuple(found)


def _of_suite(name: str, old: Suite, new: Suite) -> Iterable[str]:
    was, now = _by_input(old.rows), _by_input(new.rows)
    removed = [key for key in was if key not in now]
    if removed:
        yield f"suite '{name}': {_rows(len(removed))} of {len(was):,} removed from what it is measured on"
    changed = [key for key in was if key in now and set(was[key]) != set(now[key])]
    if changed:
        yield f"suite '{name}': gold answers or marks of {_rows(len(changed))} changed"
    n_added = sum(key not in was for key in now)
    if n_added > DILUTION * len(was):
        yield f"suite '{name}': {_rows(n_added)} added to {len(was):,}, so that a floor is measured on other rows"
    if canonical_json(old.schema) != canonical_json(new.schema):
        yield f"suite '{name}': the JSON Schema of an answer changed, which schema_compliance measures against"
    quoted = _quoted(new, old.prompt)
    if quoted:
        yield f"suite '{name}': its prompt quotes {_rows(quoted)} that it is measured on"


def contaminated(
    before: Sequence[Row], after: Sequence[Row], evaluated: Mapping[str, Suite], near: NearDuplicates
) -> tuple[str, ...]:
    """Say which suites are measured on rows that the model has newly been trained on, or nearly.

    Args:
        before: Training and validation rows of main.
        after: Those of the pull request.
        evaluated: Suites of the pull request.
        near: What main takes for the same.
    """
    found = []
    for name, suite in evaluated.items():
        n_before, n_after = (_n_alike(suite.rows, rows, near) for rows in (before, after))
        if n_after > n_before:
            found.append(f"suite '{name}': {_rows(n_after)} that it is measured on are among the rows trained on")
    return tuple(found)


def _by_input(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return what is said of each input: the gold answer, and every mark that a metric or an interval reads."""
    found: dict[str, list[str]] = {}
    for row in rows:
        said = canonical_json([row.answer, row.attack, row.slice, row.twin, row.group])
        found.setdefault(canonical_json(row.inputs), []).append(said)
    return found


def _quoted(suite: Suite, known: str) -> int:
    prompt, before = _plain(suite.prompt), _plain(known)
    texts = ([_plain(value) for value in row.inputs.values()] for row in suite.rows)
    return sum(
        any(len(text) >= QUOTED_CHARACTERS and text in prompt and text not in before for text in row) for row in texts
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _n_alike(rows: Sequence[Row], trained: Sequence[Row], near: NearDuplicates) -> int:
    if not rows or not trained:
        return 0
    numbers = alike_numbers([*rows, *trained], near).tolist()
    known = set(numbers[len(rows) :])
    return sum(number in known for number in numbers[: len(rows)])


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
