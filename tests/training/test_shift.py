"""What moved between the baseline's data and the new data."""

from __future__ import annotations

import json
import random

from pipelines.core.rows import Row
from pipelines.training.shift import as_json, compare_rows


def rows(n: int, *, seed: int = 0, cancel: float = 0.2, longer: int = 0) -> list[Row]:
    """Rows with two labels in given shares, and messages of 20 to 80 characters (plus `longer`)."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        intent = "cancel" if draw.random() < cancel else "fault"
        answer = json.dumps({"intent": intent, "tags": ["a", "b"] if draw.random() < 0.5 else []})
        message = "x" * (draw.randint(20, 80) + longer)
        made.append(Row(f"{seed}-{i}", {"message": message}, answer, draw.choice(["plain", "typo"])))
    return made


def verdicts(before: list[Row], after: list[Row]) -> dict[str, str]:
    return {shift.column: shift.verdict for shift in compare_rows(before, after)}


def test_other_rows_of_the_same_kind_have_not_shifted() -> None:
    found = verdicts(rows(800), rows(800, seed=1))
    assert found == {
        "answer (characters)": "unchanged",
        "answer.intent": "unchanged",
        "answer.tags has a": "unchanged",
        "answer.tags has b": "unchanged",
        "message (characters)": "unchanged",
        "slice": "unchanged",
    }


def test_a_label_that_became_more_frequent_is_named_with_both_shares_and_comes_first() -> None:
    shift = compare_rows(rows(800), rows(800, seed=1, cancel=0.5))[0]
    assert (shift.column, shift.verdict) == ("answer.intent", "shifted")
    assert {change.value for change in shift.changes} == {"cancel", "fault"}
    cancel = next(change for change in shift.changes if change.value == "cancel")
    assert 0.15 < cancel.before < 0.25
    assert 0.45 < cancel.after < 0.55
    assert shift.sentence().startswith("answer.intent: cancel ")


def test_longer_messages_are_told_by_their_medians() -> None:
    shift = compare_rows(rows(800), rows(800, seed=1, longer=40))[0]
    assert (shift.column, shift.verdict) == ("message (characters)", "shifted")
    assert shift.median_before is not None
    assert shift.median_after is not None
    assert 30 < shift.median_after - shift.median_before < 50
    assert shift.sentence() == f"message (characters): median {shift.median_before:g} -> {shift.median_after:g}"


def test_too_few_rows_say_so_instead_of_shifting() -> None:
    assert set(verdicts(rows(199), rows(800, seed=1, cancel=0.9)).values()) == {"insufficient"}


def test_the_order_of_rows_makes_no_difference() -> None:
    before, after = rows(300), rows(300, seed=1, cancel=0.5)
    assert compare_rows(before, after) == compare_rows(before[::-1], after[::-1])


def test_a_key_with_free_text_is_compared_by_its_length() -> None:
    def told(n: int, words: int) -> list[Row]:
        return [Row(str(i), {"m": "same"}, json.dumps({"note": f"{i} " + "word " * words})) for i in range(n)]

    found = {shift.column: shift for shift in compare_rows(told(300, 2), told(300, 9))}
    assert found["answer.note"].verdict == "shifted"
    assert found["answer.note"].median_after == 49.0  # three digits, a space, nine words of five


def test_text_answers_are_compared_by_length_only() -> None:
    texts = [Row(str(i), {"m": "hello"}, "Thank you for writing.") for i in range(250)]
    assert verdicts(texts, texts) == {"answer (characters)": "unchanged", "m (characters)": "unchanged"}


def test_a_column_that_only_one_side_has_is_left_out() -> None:
    plain = [Row(str(i), {"m": "hello"}, "yes") for i in range(250)]
    sliced = [row._replace(slice="plain") for row in plain]
    assert "slice" not in verdicts(plain, sliced)


def test_no_rows_at_all_are_insufficient() -> None:
    assert set(verdicts([], rows(300)).values()) == {"insufficient"}


def test_the_result_is_json() -> None:
    told = as_json(compare_rows(rows(300), rows(300, seed=1, cancel=0.6)))
    assert json.loads(json.dumps(told, allow_nan=False)) == json.loads(json.dumps(told))
    assert told[0]["verdict"] == "shifted"
    assert set(told[0]["drift"]) >= {"p_value", "adjusted_p", "psi", "psi_floor", "n_reference", "n_current"}
