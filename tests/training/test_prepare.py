"""Splits: by content, independent of order, near-duplicates and kin together, leaks refused."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.core.params import Dataset, NearDuplicates
from pipelines.core.rows import Row
from pipelines.training.examples import Example, example_id
from pipelines.training.prepare import Prepared, alike_numbers, families, near_duplicates, split, summarise

NEAR = NearDuplicates(ngram=3, similarity=0.8)
HALVES = {"train": 0.5, "test": 0.5}
WORDS = ["amber", "brick", "cloud", "delta", "ember", "flint", "grove", "haven", "ivory", "jolly", "karma", "lunar"]


def text(number: int) -> str:
    """A message of six words that no other number shares many of."""
    return " ".join(random.Random(number).choices(WORDS, k=3)) + f" {number * 7919:09d} {number * 104729:012d}"


def example(message: str, answer: str = "yes", line: int = 1, **columns: Any) -> Example:
    inputs = {"message": message}
    marks = {key: columns[key] for key in ("twin", "group", "slice") if key in columns}
    row = Row(example_id(inputs, answer), inputs, answer, line=line, **marks)
    return Example(row, {"message": message, "answer": answer, **columns})


def numbered(n: int, **columns: Any) -> list[Example]:
    return [example(text(i), line=i + 1, **columns) for i in range(n)]


def declared(**changes: Any) -> Dataset:
    told = {"path": "rows.jsonl", "inputs": {"message": "message"}, "answer": "answer", "splits": HALVES, **changes}
    return Dataset.model_validate(told)


def prepared(examples: list[Example], seed: int = 7, **changes: Any) -> Prepared:
    return split(examples, declared(**changes), near=NEAR, seed=seed)


def where(done: Prepared) -> dict[str, str]:
    return {row.inputs["message"]: name for name, rows in done.splits.items() for row in rows}


def without_lines(done: Prepared) -> dict[str, list[Row]]:
    return {name: [row._replace(line=0) for row in rows] for name, rows in done.splits.items()}


def complaint(examples: list[Example], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(examples, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A few letters make near-duplicates, copies and chains of both likely.
MESSAGES = st.lists(st.tuples(st.text("ab ", min_size=1, max_size=9), st.sampled_from(["yes", "no"])), min_size=1)
# One row that is always in the test, so that no draw leaves a declared split empty.
ANCHORED = {
    "splits": {"test": 1.0},
    "overrides": [{"column": "anchor", "splits": {"test": 1.0}}, {"column": "message", "splits": HALVES}],
    "repeated": "drop",
}


def anchored(rows: list[tuple[str, str]], marks: list[int]) -> list[Example]:
    """Rows of which those with the same mark above 0 are one group."""
    return [
        example(text(0), line=1, anchor="yes"),
        *(
            example(message, answer, line=i + 2, group=f"g{mark}" if (mark := marks[i % len(marks)]) else None)
            for i, (message, answer) in enumerate(rows)
        ),
    ]


MARKS = st.lists(st.integers(0, 3), min_size=1)


@given(rows=MESSAGES, marks=MARKS, order=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_rows_changes_nothing_but_their_line_numbers(
    rows: list[tuple[str, str]], marks: list[int], order: random.Random
) -> None:
    examples = anchored(rows, marks)
    shuffled = order.sample(examples, len(examples))
    assert without_lines(prepared(examples, **ANCHORED)) == without_lines(prepared(shuffled, **ANCHORED))


@given(rows=MESSAGES, marks=MARKS)
@settings(max_examples=200, deadline=None)
def test_every_row_is_in_exactly_one_split_and_no_family_in_two(rows: list[tuple[str, str]], marks: list[int]) -> None:
    examples = anchored(rows, marks)
    done = prepared(examples, **ANCHORED)
    kept = [(row, name) for name, found in done.splits.items() for row in found]
    assert sorted(row.id for row, _ in kept) == sorted({one.row.id for one in examples})
    numbers = families([row for row, _ in kept], alike_numbers([row for row, _ in kept], NEAR)).tolist()
    assert len(set(zip(numbers, (name for _, name in kept), strict=True))) == len(set(numbers))


def test_the_answer_does_not_move_a_row() -> None:
    before = where(prepared(numbered(100)))
    after = where(prepared([example(text(i), f"answer {i}", line=i + 1) for i in range(100)]))
    assert before == after


def test_new_rows_move_no_old_ones() -> None:
    before, after = where(prepared(numbered(100))), where(prepared(numbered(160)))
    assert {message: after[message] for message in before} == before


def test_the_seed_deals_anew() -> None:
    assert where(prepared(numbered(100))) != where(prepared(numbered(100), seed=8))


def test_shares_are_kept_within_what_chance_allows() -> None:
    done = prepared(numbered(2000), splits={"train": 0.74, "validation": 0.04, "test": 0.22})
    for name, share in (("train", 0.74), ("validation", 0.04), ("test", 0.22)):
        assert abs(len(done.splits[name]) - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_rows_of_a_split_are_in_the_order_of_their_ids() -> None:
    for rows in prepared(numbered(50)).splits.values():
        assert [row.id for row in rows] == sorted(row.id for row in rows)


def pairs(n: int, **marks: Any) -> list[Example]:
    """Two rows per number that have nothing but a mark in common; a mark is called with the number."""
    return [
        example(text(1000 * side + i), line=2 * i + side, **{key: mark(i) for key, mark in marks.items()})
        for i in range(1, n)
        for side in (0, 1)
    ]


@pytest.mark.parametrize("mark", ["twin", "group"])
def test_twins_and_groups_stay_together(mark: str) -> None:
    apart = where(prepared(pairs(40)))
    together = where(prepared(pairs(40, **{mark: lambda i: f"m{i}"})))
    assert any(apart[text(i)] != apart[text(1000 + i)] for i in range(1, 40))
    assert all(together[text(i)] == together[text(1000 + i)] for i in range(1, 40))


def test_near_duplicates_stay_together_also_with_other_answers() -> None:
    examples = [example(text(i) + end, end, line=i) for i in range(1, 40) for end in ("", ".")]
    place = where(prepared(examples))
    assert all(place[text(i)] == place[text(i) + "."] for i in range(1, 40))


def test_families_join_through_each_other() -> None:
    # a and b are twins, b and c of one group, c and d near-duplicates: one family of four, at any seed
    examples = [
        example(text(1), line=1, twin="t"),
        example(text(2), line=2, twin="t", group="g"),
        example(text(3), line=3, group="g"),
        example(text(3) + "!", line=4),
        *[example(text(i), line=i) for i in range(5, 40)],
    ]
    for seed in range(8):
        place = where(prepared(examples, seed=seed))
        assert len({place[text(1)], place[text(2)], place[text(3)], place[text(3) + "!"]}) == 1


def test_an_override_decides_for_its_rows_and_the_first_one_wins() -> None:
    examples = [*numbered(30), *[example(text(i), line=i, kind="a", twin=f"t{i}") for i in range(100, 130)]]
    overrides = [
        {"column": "kind", "equals": "a", "splits": {"test": 1.0}},
        {"column": "twin", "splits": {"train": 1.0}},
    ]
    place = where(prepared(examples, overrides=overrides))
    assert {place[text(i)] for i in range(100, 130)} == {"test"}
    assert {place[text(i)] for i in range(30)} == {"train", "test"}
    assert {where(prepared(examples, overrides=overrides[::-1]))[text(i)] for i in range(100, 130)} == {"train"}


def test_an_override_of_one_row_decides_for_its_whole_family() -> None:
    examples = [*numbered(30), example(text(100), line=40, kind="a"), example(text(100) + "!", line=41)]
    place = where(prepared(examples, overrides=[{"column": "kind", "equals": "a", "splits": {"test": 1.0}}]))
    assert place[text(100)] == place[text(100) + "!"] == "test"


def test_an_override_for_another_value_decides_nothing() -> None:
    examples = [example(text(i), line=i + 1, kind="b") for i in range(40)]
    overrides = [{"column": "kind", "equals": "a", "splits": {"test": 1.0}}]
    assert where(prepared(examples, overrides=overrides)) == where(prepared(examples))


FOLDS = {"column": "fold", "train": [0, 1], "test": [2, "x"]}


def test_a_column_can_carry_the_splits() -> None:
    examples = [example(text(i), line=i + 1, fold=fold) for i, fold in enumerate([0, 1, 2, "x"])]
    places = where(prepared(examples, splits=FOLDS))
    assert [places[text(i)] for i in range(4)] == ["train", "train", "test", "test"]


@pytest.mark.parametrize(("value", "shown"), [(3, "3"), (None, "null"), ("0", '"0"'), (True, "true")])
def test_a_value_that_no_split_lists_is_named_with_its_line(value: Any, shown: str) -> None:
    examples = [
        example(text(0), line=1, fold=0),
        example(text(1), line=2, fold=2),
        example(text(2), line=9, fold=value),
    ]
    message = complaint(examples, splits=FOLDS)
    assert message.startswith(f"rows.jsonl:9: column 'fold' is {shown}, which no split of params.yaml lists")


def leaking() -> list[Example]:
    return [
        example(text(0), line=1, fold=0),
        example(text(1), line=2, fold=1),
        example(text(1) + ".", "no", line=3, fold=2),
        example(text(2), line=4, fold=2),
    ]


def test_near_duplicates_in_two_declared_splits_are_refused_with_both_lines() -> None:
    message = complaint(leaking(), splits=FOLDS)
    assert message.startswith(
        "rows.jsonl:2: is in 'train' but a near-duplicate, twin or group member of line 3 in 'test'"
    )
    assert "repeated: drop" in message


def test_leaking_rows_are_dropped_from_training_never_from_the_test() -> None:
    done = prepared(leaking(), splits=FOLDS, repeated="drop")
    assert [row.line for row in done.dropped] == [2]
    assert sorted(row.line for row in done.splits["test"]) == [3, 4]
    assert [row.line for row in done.splits["train"]] == [1]


@pytest.mark.parametrize("mark", ["twin", "group"])
def test_kin_in_two_declared_splits_is_a_leak_as_well(mark: str) -> None:
    examples = [example(text(i), line=i + 1, fold=2 * i, **{mark: "m"}) for i in range(2)]
    assert "which would leak" in complaint(examples, splits=FOLDS)


def test_a_copy_is_refused_with_both_lines() -> None:
    message = complaint([*numbered(10), example(text(4), line=99)])
    assert message.startswith("rows.jsonl:99: repeats inputs and answer of line 5; remove one")


def test_copies_are_dropped_where_that_is_declared_and_one_stays() -> None:
    done = prepared([*numbered(10), example(text(4), line=99), example(text(4), line=98)], repeated="drop")
    assert len(done.dropped) == 2
    assert sum(row.inputs["message"] == text(4) for rows in done.splits.values() for row in rows) == 1


def test_a_copy_in_train_and_test_stays_in_the_test() -> None:
    examples = [*leaking(), example(text(2), line=5, fold=0)]
    done = prepared(examples, splits=FOLDS, repeated="drop")
    assert where(done)[text(2)] == "test"
    assert [row.line for row in done.dropped] == [2, 5]


def test_the_same_message_with_another_answer_is_no_copy() -> None:
    done = prepared([*numbered(10), example(text(4), "another", line=11)])
    assert sum(map(len, done.splits.values())) == 11


def test_a_split_with_a_share_must_not_stay_empty() -> None:
    message = complaint(numbered(3), splits={"train": 0.999999, "validation": 0.000001})
    assert message == (
        "rows.jsonl: no row falls into split 'validation', which params.yaml declares; add rows or take it out there"
    )


def test_a_split_with_declared_values_must_not_stay_empty() -> None:
    examples = [example(text(0), line=1, fold=0)]
    assert "no row falls into split 'test'" in complaint(examples, splits=FOLDS)


def test_a_split_without_a_share_is_left_out() -> None:
    assert list(prepared(numbered(20), splits={"test": 1.0}).splits) == ["test"]


def test_a_twin_is_no_near_duplicate_of_its_twin() -> None:
    twins = [example(text(1), line=1, twin="t").row, example(text(1) + ".", line=2, twin="t").row]
    third = example(text(1) + "..", line=3).row
    assert near_duplicates(twins, alike_numbers(twins, NEAR)) == []
    assert near_duplicates([third, *twins], alike_numbers([third, *twins], NEAR)) == [[*twins, third]]


def test_the_summary_counts_splits_slices_and_near_duplicates() -> None:
    examples = [example(text(i), line=i + 1, slice="ab"[i % 2]) for i in range(18)]
    examples += [example(text(0) + "!", line=19, slice="a"), example(text(20), line=20)]
    done = prepared(examples)
    told = summarise("desk", declared(), done, NEAR)
    assert (told["dataset"], told["path"], told["n"], told["n_dropped"]) == ("desk", "rows.jsonl", 20, 0)
    assert told["near_duplicates"] == {"ngram": 3, "similarity": 0.8, "rate": 0.1, "groups": [[1, 19]]}
    assert sum(part["n"] for part in told["splits"].values()) == 20
    slices = sum((Counter(part["slices"]) for part in told["splits"].values()), Counter())
    assert slices == {"a": 10, "b": 9, "none": 1}


def test_the_digest_tells_other_rows_but_not_another_order() -> None:
    def digest(examples: list[Example]) -> str:
        return str(summarise("desk", declared(), prepared(examples), NEAR)["digest"])

    assert digest(numbered(20)) == digest(numbered(20)[::-1])
    assert digest(numbered(20)) != digest(numbered(21))
