"""Split a data set by content, so that no split knows another's rows, whatever order the file has."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.core.errors import ConfigError
from pipelines.core.files import canonical_json, digest
from pipelines.core.params import Dataset, NearDuplicates, SplitColumn, SplitOverride, Splits
from pipelines.core.rows import Row, read_rows
from pipelines.training.duplicates import Integers, joined, near_duplicate_groups
from pipelines.training.examples import Complaints, Example

SPLITS = ("train", "validation", "test")


class Prepared(NamedTuple):
    """A data set in splits.

    Attributes:
        splits: Rows per split, by id; a split without rows is left out.
        dropped: Rows left out because others repeat them (`repeated: drop`), in the file's order.
        near: Groups of near-duplicates among the rows that stay.
    """

    splits: dict[str, list[Row]]
    dropped: list[Row]
    near: list[list[Row]]


def split(examples: list[Example], dataset: Dataset, *, near: NearDuplicates, seed: int) -> Prepared:
    """Give every row a split by the content of its inputs (never its answer), near-duplicates in one split.

    Rows that are near-duplicates, twins or of one group stand or fall together, also through others; an override
    that fits one of them decides for all. Where shares are declared, the split is a hash of the seed and the inputs: it
    depends neither on the order of rows nor on a random generator, and new rows move old ones only where they stand or
    fall together with them.

    Args:
        examples: Rows and their columns.
        dataset: Declares shares per split, or the column that carries them, and the overrides.
        near: When two rows are near-duplicates.
        seed: Part of the hash.

    Raises:
        ConfigError: Two splits would hold near-duplicates, a row repeats another (both unless the data set says
            `repeated: drop`), a row's split is not declared, or a declared split stays empty.
    """
    path = Path(dataset.path)
    alike = alike_numbers([example.row for example in examples], near)
    numbers = families([example.row for example in examples], alike)
    names = _assigned(examples, numbers, dataset, path, seed)
    leaking = _leaking(numbers, names)
    dropped = leaking | _copies(examples, leaking)
    if dropped and dataset.repeated == "refuse":
        _refuse(examples, numbers, names, path)
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for i, example in enumerate(examples):
        if i not in dropped:
            splits[names[i]].append(example.row)
    _refuse_empty(splits, dataset, path)
    kept = {name: sorted(rows, key=lambda row: row.id) for name, rows in splits.items() if rows}
    stay = [i for i in range(len(examples)) if i not in dropped]
    return Prepared(
        kept, [examples[i].row for i in sorted(dropped)], near_duplicates([examples[i].row for i in stay], alike[stay])
    )


def alike_numbers(rows: list[Row], near: NearDuplicates) -> Integers:
    """Return a number per row, equal where inputs are near-duplicates, also through others; shape (n_rows,)."""
    texts = ["\n".join(str(row.inputs[name]) for name in sorted(row.inputs)) for row in rows]
    return near_duplicate_groups(texts, ngram=near.ngram, similarity=near.similarity)


def families(rows: list[Row], alike: Integers) -> Integers:
    """Return a number per row, equal for rows that one split must hold together.

    Those are near-duplicates, twins and rows of one group, also through others.

    Args:
        rows: Any rows.
        alike: Their `alike_numbers`, shape (n_rows,).
    """
    first: dict[tuple[str, str], int] = {}
    pairs = [
        (first.setdefault((kind, value), i), i)
        for i, row in enumerate(rows)
        for kind, value in (("twin", row.twin), ("group", row.group))
        if value is not None
    ]
    return joined(len(rows), np.array(pairs, np.int64).reshape(-1, 2), alike)


def near_duplicates(rows: list[Row], alike: Integers) -> list[list[Row]]:
    """Return the rows that nearly repeat each other, group by group; a twin is no near-duplicate of its twin.

    The near-duplicate rate of a data set is the share of its rows that are in such a group, all of them counted.

    Args:
        rows: Rows of every split.
        alike: Their `alike_numbers`, shape (n_rows,).

    Returns:
        Groups of two or more rows, each by line, in the order of their first lines.
    """
    groups: dict[int, list[Row]] = {}
    for row, number in zip(rows, alike.tolist(), strict=True):
        groups.setdefault(number, []).append(row)
    repeating = (sorted(group, key=lambda row: row.line) for group in groups.values() if _n_units(group) > 1)
    return sorted(repeating, key=lambda group: group[0].line)


def summarise(name: str, dataset: Dataset, prepared: Prepared, near: NearDuplicates) -> dict[str, Any]:
    """Return what `summary.json` says: counts per split and slice, digests, near-duplicates, dropped rows."""
    rows = [row for split_rows in prepared.splits.values() for row in split_rows]
    return {
        "schema_version": 1,
        "dataset": name,
        "path": dataset.path,
        "digest": digest(sorted(row.id for row in rows)),
        "n": len(rows),
        "n_dropped": len(prepared.dropped),
        "dropped_lines": [row.line for row in prepared.dropped],
        "near_duplicates": {
            **near.model_dump(),
            "rate": sum(map(len, prepared.near)) / len(rows),
            "groups": [[row.line for row in group] for group in prepared.near],
        },
        "splits": {
            split_name: {
                "n": len(split_rows),
                "digest": digest([row.id for row in split_rows]),
                "slices": dict(sorted(Counter(row.slice or "none" for row in split_rows).items())),
            }
            for split_name, split_rows in prepared.splits.items()
        },
    }


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """Read the splits that `scripts.prepare` wrote.

    Raises:
        ConfigError: There is none, or one is not what it wrote.
    """
    files = {name: folder / f"{name}.jsonl" for name in SPLITS}
    splits = {name: read_rows(file) for name, file in files.items() if file.exists() and file.stat().st_size}
    if not splits:
        raise ConfigError(f"{folder}: no prepared rows; run `python -m scripts.prepare --dataset {folder.name}`")
    return splits


def _n_units(group: list[Row]) -> int:
    """Return how many different things a group holds: a row, or the two rows of a twin."""
    return len({row.twin if row.twin is not None else (row.id, row.line) for row in group})


def _assigned(examples: list[Example], numbers: Integers, dataset: Dataset, path: Path, seed: int) -> list[str]:
    """Return the split per row."""
    grouped: dict[int, list[Example]] = {}
    for example, family in zip(examples, numbers.tolist(), strict=True):
        grouped.setdefault(family, []).append(example)
    complaints = Complaints(path)
    found: dict[int, str | None] = {}
    for family, group in grouped.items():
        override = next(
            (override for override in dataset.overrides if any(_fits(override, one) for one in group)), None
        )
        shares = override.splits if override else dataset.splits
        found[family] = _by_content(group, shares, seed) if isinstance(shares, Splits) else None
    names = [
        found[family] or _by_column(example, dataset.splits, complaints)
        for example, family in zip(examples, numbers.tolist(), strict=True)
    ]
    complaints.raise_any()
    return names


def _fits(override: SplitOverride, example: Example) -> bool:
    value = example.columns.get(override.column)
    return value is not None and (override.equals is None or value == override.equals)


def _by_content(group: list[Example], shares: Splits, seed: int) -> str:
    """Return the split of a family: the share in which its smallest content hash falls."""
    smallest = min(hashlib.sha256(canonical_json(one.row.inputs).encode()).hexdigest() for one in group)
    place = int.from_bytes(hashlib.sha256(f"{seed}:{smallest}".encode()).digest()[:8]) / 2**64
    total = 0.0
    for name in SPLITS:
        total += getattr(shares, name)
        if place < total:
            return name
    return next(name for name in reversed(SPLITS) if getattr(shares, name) > 0)  # shares sum to 1 but for rounding


def _by_column(example: Example, splits: Splits | SplitColumn, complaints: Complaints) -> str:
    assert isinstance(splits, SplitColumn)
    value = example.columns.get(splits.column)
    for name in SPLITS:
        if value in getattr(splits, name) and not isinstance(value, bool):
            return name
    shown = canonical_json(value)[:60]
    complaints.add(
        example.row.line,
        f"column '{splits.column}' is {shown}, which no split of params.yaml lists; list it or remove the row",
    )
    return ""


def _leaking(numbers: Integers, names: list[str]) -> set[int]:
    """Return the rows whose family is also in a later split, which is the one that must stay untouched."""
    last: dict[int, int] = {}
    places = [SPLITS.index(name) for name in names]
    for family, place in zip(numbers.tolist(), places, strict=True):
        last[family] = max(place, last.get(family, 0))
    return {i for i, family in enumerate(numbers.tolist()) if places[i] < last[family]}


def _copies(examples: list[Example], leaking: set[int]) -> set[int]:
    """Return all rows but one of each id; which one stays depends on its content, not on its place."""
    rest = [i for i in range(len(examples)) if i not in leaking]
    rest.sort(key=lambda i: canonical_json(examples[i].row._replace(line=0)))
    return {i for before, i in pairwise(rest) if examples[before].row.id == examples[i].row.id}


def _refuse(examples: list[Example], numbers: Integers, names: list[str], path: Path) -> None:
    """Raise for the first line that repeats or leaks.

    Raises:
        ConfigError: Always, if there is such a line.
    """
    cure = "remove one, or set `repeated: drop` for this data set in params.yaml"
    complaints = Complaints(path)
    first: dict[str, int] = {}
    for example in examples:
        if first.setdefault(example.row.id, example.row.line) != example.row.line:
            complaints.add(example.row.line, f"repeats inputs and answer of line {first[example.row.id]}; {cure}")
    latest: dict[int, int] = {}
    for i, family in enumerate(numbers.tolist()):
        if SPLITS.index(names[i]) >= SPLITS.index(names[latest.setdefault(family, i)]):
            latest[family] = i
    for i in sorted(_leaking(numbers, names)):
        other = latest[numbers[i]]
        complaints.add(
            examples[i].row.line,
            f"is in '{names[i]}' but a near-duplicate, twin or group member of line {examples[other].row.line} in "
            f"'{names[other]}', which would leak; {cure}",
        )
    complaints.raise_any()


def _refuse_empty(splits: dict[str, list[Row]], dataset: Dataset, path: Path) -> None:
    for name, rows in splits.items():
        if getattr(dataset.splits, name) and not rows:
            raise ConfigError(
                f"{path}: no row falls into split '{name}', which params.yaml declares; add rows or take it out there"
            )
