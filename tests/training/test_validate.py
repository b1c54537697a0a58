"""Expectations: each one at, just above and just below its limit, run by Great Expectations itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.core.params import Dataset, NearDuplicates, Validation
from pipelines.core.rows import Row
from pipelines.training.examples import example_id
from pipelines.training.expectations import ROWS, Expectations, Placed, Table
from pipelines.training.validate import Result, Validated, as_html, evaluate, problem_by_schema, schema_of, validate

NEAR = NearDuplicates(ngram=3, similarity=0.8)
ALLOWED = {"intent": ["fault", "cancel"]}
SCHEMA = {"type": "object", "properties": {"intent": {"enum": ["fault", "cancel"]}}, "required": ["intent"]}


def message(number: int) -> str:
    """A text that shares few of its grams with any other number's."""
    return f"{number * 7919:09d} {number * 104729:012d}"


def row(number: int, *, intent: str = "fault", line: int | None = None, **changes: Any) -> Row:
    made = Row("", {"message": message(number)}, json.dumps({"intent": intent}), line=number if line is None else line)
    made = made._replace(**changes)
    return made._replace(id=changes.get("id", example_id(made.inputs, made.answer)))


def rows(n: int, **changes: Any) -> list[Row]:
    return [row(number, **changes) for number in range(1, n + 1)]


def checked(
    splits: list[Row] | dict[str, list[Row]], *, twin: str | None = None, schema: Any = None, **declared: Any
) -> Validated:
    told = {"path": "data/desk.jsonl", "inputs": {"message": "message"}, "answer": "answer", "twin": twin}
    return validate(
        "desk",
        splits if isinstance(splits, dict) else {"train": splits},
        Dataset.model_validate(told),
        Validation.model_validate({"prompt": "a.prompt.yml", "max_near_duplicate_rate": 1.0, **declared}),
        near=NEAR,
        schema=schema,
    )


def failed(*arguments: Any, **declared: Any) -> list[str]:
    return [result.name for result in checked(*arguments, **declared).failed()]


def only(validated: Validated) -> Result:
    assert len(validated.failed()) == 1, [result.name for result in validated.failed()]
    return validated.failed()[0]


def test_good_data_meets_every_expectation() -> None:
    done = checked(
        {"train": rows(6), "test": [row(7, intent="cancel", slice="plain"), row(8, slice="plain")]},
        labels=ALLOWED, max_label_share=0.9, min_label_rows=1, schema=SCHEMA, twin="twin",
    )  # fmt: skip
    assert done.failed() == []
    assert done.as_json()["is_valid"] is True
    assert done.as_json()["n_rows"] == {"train": 6, "test": 2}
    assert len(done.results) > 10


@pytest.mark.parametrize(("n", "is_met"), [(4, False), (5, True), (6, True)])
def test_the_number_of_rows_counts_from_its_limit_on(n: int, is_met: bool) -> None:
    assert failed(rows(n), min_rows=5) == ([] if is_met else ["at least 5 rows"])


@pytest.mark.parametrize(("length", "is_met"), [(3, False), (4, True), (5, True), (7, True), (8, True), (9, False)])
@pytest.mark.parametrize("part", ["input", "answer"])
def test_lengths_hold_at_both_limits(part: str, length: int, is_met: bool) -> None:
    made = row(1, inputs={"message": "é" * length}) if part == "input" else row(1, answer="é" * length)
    column = "input 'message'" if part == "input" else "answer"
    found = failed([made], **{f"{part}_length": {"min": 4, "max": 8}})
    assert found == ([] if is_met else [f"{column} has 4 to 8 characters"])


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u00a0"])
def test_blank_texts_are_found_in_inputs_and_answers(blank: str) -> None:
    assert "input 'message' is not empty or blank" in failed([row(1, inputs={"message": blank})])
    assert "answer is not empty or blank" in failed([row(1, answer=blank)])


@pytest.mark.parametrize("text", ["x", "\nx", "x\n", " x "])
def test_a_single_letter_is_not_blank(text: str) -> None:
    assert failed([row(1, inputs={"message": text}, answer=text)]) == []


def test_nulls_are_found() -> None:
    bad: Any = None
    assert "input 'message' is never null" in failed([*rows(2), row(3, inputs={"message": bad}, id="x")])
    assert "answer is never null" in failed([*rows(2), row(3, answer=bad, id="x")])


def test_other_types_than_text_are_found() -> None:
    bad: Any = 7
    assert "input 'message' is a text" in failed([*rows(2), row(3, inputs={"message": bad})])


def test_what_cannot_be_evaluated_is_not_met() -> None:
    written = Expectations({ROWS: Table({"text": ["x"]}, [[0]])})
    written.expect("a column that is not there", "ExpectColumnValuesToBeNull", "nowhere", shown="text")
    written.expect("the mean of a text", "ExpectColumnMeanToBeBetween", "text", max_value=1)
    found = evaluate(written, [Placed("train", row(1))], "data/desk.jsonl")
    assert [(result.is_met, result.observed) for result in found] == [(False, "cannot be evaluated")] * 2


def test_a_repeated_id_is_found_on_both_lines() -> None:
    result = only(checked([row(1), row(2, id="same"), row(3, id="same")]))
    assert result.name == "no two rows have the same inputs and answer"
    assert [offence.place for offence in result.rows] == ["data/desk.jsonl:2", "data/desk.jsonl:3"]


def test_a_label_outside_of_its_set_is_found_with_its_line_and_split() -> None:
    result = only(checked({"train": rows(3), "test": [row(9, intent="refnud")]}, labels=ALLOWED))
    assert result.name == "label 'intent' is one of fault, cancel"
    assert result.observed == "1 of 4 offend"
    offence = result.rows[0]
    assert (offence.place, offence.split, offence.found) == ("data/desk.jsonl:9", "test", "'refnud'")
    assert offence.text == message(9)


@pytest.mark.parametrize("answer", ['{"other": 1}', '["fault"]', "no json", '{"intent": 1}', '{"intent": null}'])
def test_a_label_that_is_missing_or_no_text_is_outside_of_the_set(answer: str) -> None:
    assert failed([*rows(2), row(3, answer=answer)], labels=ALLOWED) == ["label 'intent' is one of fault, cancel"]


def test_each_entry_of_a_list_is_a_label() -> None:
    good, bad = '{"intent": ["fault", "cancel"]}', '{"intent": ["fault", "refnud"]}'
    assert failed([row(1, answer=good), row(2, answer='{"intent": []}')], labels=ALLOWED) == []
    assert failed([row(1, answer=good), row(2, answer=bad)], labels=ALLOWED) == [
        "label 'intent' is one of fault, cancel"
    ]


def mixed(n_fault: int, n_cancel: int) -> list[Row]:
    return [row(i, intent="fault" if i <= n_fault else "cancel") for i in range(1, n_fault + n_cancel + 1)]


@pytest.mark.parametrize(("n_fault", "is_met"), [(6, True), (7, True), (8, False)])
def test_the_largest_share_of_a_label_holds_at_its_limit(n_fault: int, is_met: bool) -> None:
    done = checked(mixed(n_fault, 10 - n_fault), labels=ALLOWED, max_label_share=0.7)
    assert [result.name for result in done.failed()] == (
        [] if is_met else ["no value of label 'intent' has more than 0.7 of the rows"]
    )
    share = next(result for result in done.results if "has more than" in result.name)
    assert share.observed == f"fault: {n_fault} of 10 rows"
    assert share.n_offending == (0 if is_met else n_fault)


@pytest.mark.parametrize(("n_cancel", "is_met"), [(0, False), (2, False), (3, True), (4, True)])
def test_the_rarest_value_of_a_label_holds_at_its_limit(n_cancel: int, is_met: bool) -> None:
    done = checked(mixed(6, n_cancel), labels=ALLOWED, min_label_rows=3)
    assert [result.name for result in done.failed()] == (
        [] if is_met else ["each value of label 'intent' has at least 3 rows"]
    )
    fewest = next(result for result in done.results if "has at least" in result.name)
    assert fewest.observed == f"cancel: {n_cancel} of {6 + n_cancel} rows"


def test_a_value_outside_of_the_set_need_not_be_frequent() -> None:
    found = failed([*mixed(3, 3), row(9, intent="refnud")], labels=ALLOWED, min_label_rows=3)
    assert found == ["label 'intent' is one of fault, cancel"]


@pytest.mark.parametrize("found", ["plane", None])
def test_a_slice_outside_of_the_set_is_found(found: str | None) -> None:
    result = only(checked([row(1, slice="plain"), row(2, slice=found)], slices=["plain", "typo"]))
    assert result.name == "slice is one of plain, typo"
    assert [offence.place for offence in result.rows] == ["data/desk.jsonl:2"]


def test_without_declared_slices_any_slice_will_do() -> None:
    assert failed([row(1, slice="plain"), row(2, slice=None)]) == []


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('{"intent": "soon"}', "$.intent: 'soon' is not one of ['fault', 'cancel']"),
        ("{}", "$: 'intent' is a required property"),
        ("[]", "$: [] is not of type 'object'"),
        ('{"intent": "fault"', "not JSON (Expecting ',' delimiter: line 1 column 19 (char 18))"),
    ],
)
def test_a_gold_answer_against_its_schema_is_found_with_the_reason(answer: str, found: str) -> None:
    result = only(checked([row(1), row(2, answer=answer)], schema=SCHEMA))
    assert result.name.startswith("gold answers satisfy the jsonSchema")
    assert [(offence.place, offence.found) for offence in result.rows] == [("data/desk.jsonl:2", found)]


def test_an_answer_nested_beyond_all_reason_is_no_traceback() -> None:
    assert "not JSON" in str(problem_by_schema(SCHEMA)("[" * 200_000))


@pytest.mark.parametrize(("limit", "is_met"), [(0.19, False), (0.2, True), (0.21, True)])
def test_the_near_duplicate_rate_holds_at_its_limit(limit: float, is_met: bool) -> None:
    # 2 of 10 rows are near-duplicates of each other
    data = [*rows(9), row(10, inputs={"message": message(4) + "!"})]
    done = checked(data, max_near_duplicate_rate=limit)
    rate = next(result for result in done.results if result.name.startswith("near-duplicate rate"))
    assert rate.is_met is is_met
    assert rate.observed == "0.2"
    if not is_met:
        told = [(offence.place, offence.found) for offence in rate.rows]
        assert told == [
            ("data/desk.jsonl:4", "nearly repeats line 10"),
            ("data/desk.jsonl:10", "nearly repeats line 4"),
        ]


def test_declared_twins_are_no_near_duplicates() -> None:
    twins = [row(1, twin="t"), row(2, inputs={"message": message(1) + "!"}, twin="t")]
    assert failed(twins, max_near_duplicate_rate=0.0, twin="twin") == []


@pytest.mark.parametrize("kin", [{"twin": "t"}, {"group": "g"}, {}])
def test_a_row_that_belongs_to_one_of_another_split_is_found_on_both_sides(kin: dict[str, Any]) -> None:
    other = row(2, **kin) if kin else row(2, inputs={"message": message(1) + "!"})
    result = only(checked({"train": [row(1, **kin), row(5)], "test": [other, row(6)]}))
    assert result.name == "no split repeats rows of another"
    assert [(offence.place, offence.split, offence.found) for offence in result.rows] == [
        ("data/desk.jsonl:1", "train", "belongs together with line 2 in 'test'"),
        ("data/desk.jsonl:2", "test", "belongs together with line 1 in 'train'"),
    ]


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["fault"], "twin 't' has 1 row, 2 are needed"),
        (["fault", "fault"], None),
        (["fault", "cancel"], "the rows of twin 't' have different answers"),
        (["fault"] * 3, "twin 't' has 3 rows, 2 are needed"),
    ],
)
def test_twins_are_two_rows_with_one_answer(answers: list[str], found: str | None) -> None:
    done = checked([row(i + 1, intent=intent, twin="t") for i, intent in enumerate(answers)], twin="twin")
    assert [offence.found for result in done.failed() for offence in result.rows] == (
        [] if found is None else [found] * len(answers)
    )


def test_many_offending_rows_are_counted_in_full_and_shown_in_part() -> None:
    result = only(checked([*rows(3), *[row(i, intent="refnud") for i in range(10, 160)]], labels=ALLOWED))
    assert (result.n_offending, len(result.rows)) == (150, 100)


def test_a_prompt_without_a_schema_binds_no_answers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "name: a\nmessages: [{role: user, content: hello}]\nx-gatehouse: {version: 1, inputs: {}}\n"
    (tmp_path / "a.prompt.yml").write_text(text)
    assert schema_of(Validation(prompt="a.prompt.yml")) is None


def test_the_page_shows_hostile_rows_as_text_and_loads_nothing() -> None:
    hostile = '<img src=x onerror="alert(1)">\u202e\x1b[31m'
    page = as_html(checked([row(1, inputs={"message": hostile}, slice="</td><script>")], slices=["plain"]))
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img src=x onerror=" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "data/desk.jsonl:1" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "prefers-color-scheme: dark" in page


def test_a_page_of_good_data_says_so() -> None:
    page = as_html(checked(rows(3)))
    assert "expectations are met." in page
    assert "not met" not in page


def test_the_result_is_json_and_the_same_each_time() -> None:
    data = [*rows(3), row(4, intent="refnud")]
    first, second = (json.dumps(checked(data, labels=ALLOWED).as_json(), allow_nan=False) for _ in range(2))
    assert first == second
    assert json.loads(first)["is_valid"] is False
