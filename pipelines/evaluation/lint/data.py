"""Raw data files: every declared column must be there and hold what its declaration says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipelines.core.declared import nearest
from pipelines.core.params import Dataset, Params, SplitColumn
from pipelines.core.source import Key, Problem
from pipelines.evaluation.lint.project import MOST_PER_FILE, File, Finding, Project, Rows
from pipelines.evaluation.lint.sample import expected_rows, fits

ATTACK_KEYS: dict[str, type] = {"obeyed_text": list, "obeyed_answer": dict, "personal_data": list}


def check_data(project: Project, params: File[Params]) -> Iterator[Finding]:
    """Find columns that are missing, rows of the wrong shape, and splits that will be empty."""
    for name, dataset in params.model.datasets.items():
        rows = project.rows.get(name)
        if not rows:
            continue
        missing = list(_missing_columns(params, name, dataset, rows))
        yield from missing
        if not missing:
            broken = [Problem(dataset.path, line, key, text) for line, key, text in _broken_rows(dataset, rows)]
            yield from (Finding(problem, is_error=True) for problem in broken[:MOST_PER_FILE])
            if len(broken) > MOST_PER_FILE:
                rest = len(broken) - MOST_PER_FILE
                yield Finding(Problem(dataset.path, None, "", f"{rest} more rows are wrong"), is_error=True)
            yield from _check_overrides(params, name, dataset, rows)
    for name, suite in params.model.suites.items():
        yield from _check_split(project, params, ("suites", name, "split"), suite.dataset, suite.split)
    yield from _check_split(project, params, ("train", "dataset"), params.model.train.dataset, "train")


def _missing_columns(params: File[Params], name: str, dataset: Dataset, rows: Rows) -> Iterator[Finding]:
    present = {column for _, row in rows for column in row}
    key: tuple[Key, ...] = ("datasets", name)
    declared: list[tuple[tuple[Key, ...], str | None]] = [
        *((("inputs", variable), column) for variable, column in dataset.inputs.items()),
        *(((field,), getattr(dataset, field)) for field in ("id", "slice", "twin", "group", "attack")),
        *((("overrides", index, "column"), override.column) for index, override in enumerate(dataset.overrides)),
    ]
    if isinstance(dataset.answer, str):
        declared.append((("answer",), dataset.answer))
    else:
        declared.extend((("answer", field), column) for field, column in dataset.answer.items())
    if isinstance(dataset.splits, SplitColumn):
        declared.append((("splits", "column"), dataset.splits.column))
    for place, column in declared:
        if column is not None and column not in present:
            yield params.error(
                (*key, *place), f"no row of {dataset.path} has '{column}'{nearest(column, sorted(present))}"
            )


def _broken_rows(dataset: Dataset, rows: Rows) -> Iterator[tuple[int, str, str]]:
    """Yield line, column and what is wrong with it."""
    ids = Counter(str(row.get(dataset.id)) for _, row in rows) if dataset.id else Counter[str]()
    twins = Counter(str(row.get(dataset.twin)) for _, row in rows) if dataset.twin else Counter[str]()
    answers = [dataset.answer] if isinstance(dataset.answer, str) else list(dataset.answer.values())
    for line, row in rows:
        for column in dataset.inputs.values():
            if not _is_text(row.get(column)):
                yield line, column, f"text is needed, found {_kind(row.get(column))}"
        for column in answers:
            if row.get(column) in (None, "", {}):
                yield line, column, "the gold answer is missing"
        for column in filter(None, (dataset.slice, dataset.twin, dataset.group, dataset.id)):
            if isinstance(row.get(column), dict | list | float | bool):
                yield line, column, f"a word or a whole number is needed, found {_kind(row[column])}"
        if dataset.id and row.get(dataset.id) is None:
            yield line, dataset.id, "the identifier is missing"
        elif dataset.id and ids[str(row[dataset.id])] > 1:
            yield (
                line,
                dataset.id,
                f"{row[dataset.id]!r:.60} stands in {ids[str(row[dataset.id])]} rows; ids are unique",
            )
        if dataset.twin and row.get(dataset.twin) is not None and twins[str(row[dataset.twin])] != 2:
            found = twins[str(row[dataset.twin])]
            yield line, dataset.twin, f"{row[dataset.twin]!r:.60} stands in {found} rows; twins are two"
        if dataset.attack and row.get(dataset.attack) is not None:
            yield from ((line, dataset.attack, text) for text in _broken_attack(row[dataset.attack]))


def _broken_attack(attack: Any) -> Iterator[str]:
    if not isinstance(attack, dict):
        yield f"an object is needed, found {_kind(attack)}"
        return
    for key, value in attack.items():
        if key not in ATTACK_KEYS:
            yield f"unknown key '{key}'{nearest(key, list(ATTACK_KEYS))}"
        elif not isinstance(value, ATTACK_KEYS[key]) or not value:
            yield f"'{key}' must be a {'list of texts' if ATTACK_KEYS[key] is list else 'JSON object'} with content"
        elif isinstance(value, list) and not all(map(_is_text, value)):
            yield f"'{key}' must hold texts only"


def _check_overrides(params: File[Params], name: str, dataset: Dataset, rows: Rows) -> Iterator[Finding]:
    for index, override in enumerate(dataset.overrides):
        if not any(fits(override, row) for _, row in rows):
            seen = sorted({str(row.get(override.column)) for _, row in rows if row.get(override.column) is not None})
            hint = nearest(str(override.equals), seen)
            yield params.error(("datasets", name, "overrides", index), f"fits no row of {dataset.path}{hint}")


def _check_split(
    project: Project, params: File[Params], key: tuple[Key, ...], name: str, split: str
) -> Iterator[Finding]:
    dataset, rows = params.model.datasets.get(name), project.rows.get(name)
    if dataset is not None and rows and expected_rows(dataset, rows, split) < 1:
        yield params.error(
            key, f"the split '{split}' of data set '{name}' will have no rows; see datasets.{name}.splits"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else "empty text" if isinstance(value, str) else names[type(value)]
