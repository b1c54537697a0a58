"""Raw files: what is wrong is said in one line with its place, and what is right is read as declared."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.core.params import Dataset
from pipelines.training.examples import example_id, read_examples

GOOD: dict[str, Any] = {"message": "Where is it?", "answer": {"intent": "delivery"}, "key": 1, "slice": "plain"}


def dataset(path: Path, **changes: Any) -> Dataset:
    told = {"path": path.name, "inputs": {"message": "message"}, "answer": "answer", **changes}
    return Dataset.model_validate(told)


def write(folder: Path, *lines: dict[str, Any] | str | bytes) -> Path:
    path = folder / "rows.jsonl"
    raw = [line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
           for line in lines]  # fmt: skip
    path.write_bytes(b"\n".join(raw))
    return path


def complaint(path: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_examples(path, dataset(path, **changes))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message.replace(str(path), "rows.jsonl")


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "rows.jsonl").startswith("rows.jsonl: no such file")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    assert complaint(tmp_path / "rows.jsonl").startswith("rows.jsonl: is a folder")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    assert complaint(write(tmp_path, text)).startswith("rows.jsonl: is empty")


BAD_LINES: list[tuple[dict[str, Any] | str | bytes, str]] = [
    (b'{"message": "caf\xe9", "answer": "x"}', "rows.jsonl:2: byte 0xe9 is not UTF-8"),
    ('{"message": "Hello", "ans', "rows.jsonl:2: not valid JSON"),
    ('["a", "list"]', "rows.jsonl:2: a JSON object is needed, found list"),
    ('{"message": "a", "answer": NaN}', "rows.jsonl:2: not valid JSON (NaN"),
    ('{"message": "half \\ud800", "answer": "x"}', "rows.jsonl:2: a \\uD800-\\uDFFF escape stands alone"),
    ('{"message": "a", "message": "b", "answer": "x"}', "rows.jsonl:2: not valid JSON (key 'message' stands"),
    (without("message"), "rows.jsonl:2: column 'message' is missing"),
    (without("answer"), "rows.jsonl:2: column 'answer' is missing"),
    (changed(message=None), "rows.jsonl:2: column 'message' is null"),
    (changed(answer=None), "rows.jsonl:2: column 'answer' is null"),
    (changed(message=["a"]), "rows.jsonl:2: column 'message' is a list"),
    (changed(message={"a": 1}), "rows.jsonl:2: column 'message' is an object"),
    (changed(slice=["plain"]), "rows.jsonl:2: column 'slice' is a list"),
    (changed(slice=""), "rows.jsonl:2: column 'slice' is an empty text"),
    (changed(slice=True), "rows.jsonl:2: column 'slice' is true or false"),
    (changed(slice=1.5), "rows.jsonl:2: column 'slice' is a number"),
    (changed(key=None), "rows.jsonl:2: column 'key' is null"),
    (changed(key=1), "rows.jsonl:2: column 'key': '1' stands on line 1 already"),
]


@pytest.mark.parametrize(("line", "expected"), BAD_LINES, ids=[expected[:60] for _, expected in BAD_LINES])
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: Any, expected: str) -> None:
    path = write(tmp_path, GOOD, line, changed(key=3))
    assert complaint(path, id="key", slice="slice").startswith(expected)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("text", "column 'attack' is a text; an object with"),
        ({"obeyed_txt": ["A"]}, "column 'attack' has the unknown key 'obeyed_txt' (did you mean 'obeyed_text'?)"),
        ({"obeyed_text": "A"}, "column 'attack' has 'obeyed_text', which must be a list"),
        ({"obeyed_text": []}, "column 'attack' has 'obeyed_text', which must be a list that is not empty"),
        (
            {"personal_data": ["A", " "]},
            "column 'attack' has 'personal_data', which must hold texts that are not empty",
        ),
        ({"obeyed_answer": []}, "column 'attack' has 'obeyed_answer', which must be an object"),
    ],
)
def test_an_attack_of_the_wrong_shape_is_named(tmp_path: Path, attack: Any, expected: str) -> None:
    path = write(tmp_path, changed(attack=attack))
    assert complaint(path, attack="attack").startswith(f"rows.jsonl:1: {expected}")


def test_the_same_problem_on_many_lines_is_told_once_with_its_lines(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, *[changed(message=None)] * 8, without("answer"))
    assert complaint(path) == (
        "rows.jsonl:2: column 'message' is null; give it a value or remove the row "
        "(also lines 3, 4, 5, 6, 7 and 2 more); and 1 other problem"
    )


def test_a_column_that_no_row_has_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, GOOD), inputs={"message": "mesage"})
    assert message == "rows.jsonl:1: no row has the column 'mesage' that params.yaml names (did you mean 'message'?)"


@pytest.mark.parametrize("key", ["id", "slice", "twin", "group", "attack"])
def test_a_declared_column_of_any_kind_must_be_somewhere(tmp_path: Path, key: str) -> None:
    assert "no row has the column 'nowhere'" in complaint(write(tmp_path, GOOD), **{key: "nowhere"})


def test_columns_of_splits_and_overrides_must_be_somewhere_too(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert "column 'fold'" in complaint(path, splits={"column": "fold", "test": [1]})
    assert "column 'part'" in complaint(path, overrides=[{"column": "part", "splits": {"test": 1.0}}])


def test_a_json_answer_keeps_its_order_and_its_letters(tmp_path: Path) -> None:
    path = write(tmp_path, changed(answer={"z": "é", "a": [1, {"b": None}]}))
    assert read_examples(path, dataset(path))[0].row.answer == '{"z": "é", "a": [1, {"b": null}]}'


def test_a_text_answer_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, changed(answer=' {"not": "parsed"} '))
    assert read_examples(path, dataset(path))[0].row.answer == ' {"not": "parsed"} '


def test_an_answer_is_built_from_several_columns_in_the_declared_order(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "Hi", "b": ["x"], "a": {"k": 1}})
    read = read_examples(path, dataset(path, inputs={"message": "text"}, answer={"intents": "b", "slots": "a"}))
    assert read[0].row.answer == '{"intents": ["x"], "slots": {"k": 1}}'


def test_one_missing_part_of_an_answer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"message": "Hi", "a": 1, "b": 2}, {"message": "Hi", "a": 1, "b": None})
    assert complaint(path, answer={"x": "a", "y": "b"}).startswith("rows.jsonl:2: column 'b' is null")


def test_numbers_are_inputs_as_they_are_written(tmp_path: Path) -> None:
    path = write(tmp_path, changed(message=1.50), changed(message=7))
    assert [example.row.inputs["message"] for example in read_examples(path, dataset(path))] == ["1.5", "7"]


def test_absent_and_null_marks_both_mean_none_and_numbers_become_text(tmp_path: Path) -> None:
    path = write(tmp_path, without("slice"), changed(slice=None), changed(slice=3))
    marks = [example.row.slice for example in read_examples(path, dataset(path, slice="slice"))]
    assert marks == [None, None, "3"]


def test_blank_lines_keep_the_line_numbers_right(tmp_path: Path) -> None:
    path = write(tmp_path, "", GOOD, "", changed(message="Other"))
    assert [example.row.line for example in read_examples(path, dataset(path))] == [2, 4]


def test_an_id_depends_on_inputs_and_answer_only(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, changed(slice="typo"), changed(message="Other"), changed(answer="Other"))
    ids = [example.row.id for example in read_examples(path, dataset(path, slice="slice"))]
    assert ids[0] == ids[1] == example_id({"message": "Where is it?"}, '{"intent": "delivery"}')
    assert len(set(ids)) == 3
    assert all(len(one) == 16 for one in ids)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = ("message", "answer", "key", "slice", "twin", "group", "attack")


@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), JSON, max_size=7), max_size=4), st.binary(max_size=8))
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(rows: list[dict[str, Any]], tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), *rows, tail)
        marks = {name: name for name in COLUMNS[3:]}
        try:
            examples, refusal = read_examples(path, dataset(path, id="key", **marks)), None
        except ConfigError as error:
            examples, refusal = [], str(error)
        if refusal is None:
            assert all(isinstance(one.row.answer, str) and one.row.inputs["message"] is not None for one in examples)
        else:
            assert refusal.startswith(str(path))
            assert "\n" not in refusal
