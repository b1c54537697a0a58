"""JSON answers: strict parsing, schema compliance, exact match and field F1."""

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.evaluation.structured import (
    NotJson,
    PairCounts,
    count_pairs,
    exact_match,
    field_f1,
    is_json,
    parse_json,
    schema_compliance,
)

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["fault", "refund"]}, "urgent": {"type": "boolean"}},
    "required": ["intent"],
    "additionalProperties": False,
}
SETS = {"type": "object", "properties": {"intents": {"type": "array", "items": {}, "uniqueItems": True}}}


@pytest.mark.parametrize("text", ['{"intent": "fault"}', ' \n{"urgent": true, "intent": "refund"}\t'])
def test_an_answer_that_fits_complies(text):
    assert schema_compliance([text], SCHEMA) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fault",
        '{"intent": "fault"',
        '{"intent": "fault"} Hope that helps!',
        'Sure: {"intent": "fault"}',
        '```json\n{"intent": "fault"}\n```',
        '{"intent": "fault", "intent": "fault"}',
        '{"intent": "broken"}',
        '{"urgent": true}',
        '{"intent": "fault", "product": "hub"}',
        '{"intent": "fault", "urgent": 1}',
        '{"intent": "fault", "urgent": NaN}',
        '{"intent": "fault"}{"intent": "fault"}',
        '\N{NO-BREAK SPACE}{"intent": "fault"}',
        "[" * 5000,
    ],
)
def test_an_answer_that_is_not_exactly_one_fitting_value_does_not_comply(text):
    assert schema_compliance([text], SCHEMA) == [0.0]


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "[1,]", "{'a': 1}", "[" * 101 + "]" * 101])
def test_what_json_does_not_know_is_not_json(text):
    with pytest.raises(NotJson):
        parse_json(text)


def test_a_schema_that_points_outside_itself_is_refused_and_never_fetched():
    with pytest.raises(ConfigError, match=r"cannot resolve 'https://example\.com/x\.json'"):
        schema_compliance(["{}"], {"$ref": "https://example.com/x.json"})


def test_the_order_of_keys_is_free_and_the_order_of_a_list_is_not():
    assert exact_match(['{"b": 1, "a": [1, 2]}'], ['{"a": [1, 2], "b": 1}']) == [1.0]
    assert exact_match(['{"a": [2, 1]}'], ['{"a": [1, 2]}']) == [0.0]


def test_a_list_that_the_schema_calls_unique_is_a_set():
    answer, gold = '{"intents": ["b", "a"]}', '{"intents": ["a", "b"]}'
    assert exact_match([answer], [gold], SETS) == [1.0]
    assert exact_match(['{"intents": ["a"]}'], [gold], SETS) == [0.0]


def test_numbers_are_compared_by_value_and_never_with_booleans_or_text():
    assert exact_match(['{"a": 1.0}', '{"a": true}', '{"a": "1"}'], ['{"a": 1}'] * 3) == [1.0, 0.0, 0.0]


def test_text_is_compared_without_case_and_spacing():
    assert exact_match(["Yes,  please", "yes please"], ["yes, please"] * 2) == [1.0, 0.0]


def test_an_answer_that_is_no_json_does_not_match_a_json_gold():
    assert exact_match(['{"a": 1, "a": 1}', "a: 1"], ['{"a": 1}'] * 2) == [0.0, 0.0]


def test_field_f1_counts_pairs():
    gold = '{"intent": "fault", "product": "hub", "urgency": "low"}'
    # two of three right: 2*2/(2*2 + 1 wrong + 1 missed)
    assert field_f1(['{"intent": "fault", "product": "hub", "urgency": "high"}'], [gold]) == [pytest.approx(2 / 3)]
    # one of one given: 2*1/(2*1 + 0 + 2)
    assert field_f1(['{"intent": "fault"}'], [gold]) == [pytest.approx(0.5)]
    assert field_f1(["fault hub low", gold], [gold] * 2) == [0.0, 1.0]


def test_a_list_counts_one_pair_per_element_in_any_order():
    # {a, b} of {b, c, d}: 2*1/(2*1 + 1 + 2)
    assert field_f1(['{"intents": ["a", "b"]}'], ['{"intents": ["d", "c", "b"]}']) == [pytest.approx(0.4)]


def test_nothing_asked_and_nothing_said_is_right_but_gibberish_is_not():
    assert field_f1(['{"intents": []}', "none", '{"intents": ["a"]}'], ['{"intents": []}'] * 3) == [1.0, 0.0, 0.0]


def test_pairs_sum_to_micro_f1():
    counts = [count_pairs('{"i": ["a", "b"]}', '{"i": ["a"]}'), count_pairs("?", '{"i": ["a", "c"]}')]
    assert counts == [PairCounts(1, 1, 0), PairCounts(0, 0, 2)]
    # 2*1/(2*1 + 1 + 2)
    assert PairCounts(*map(sum, zip(*counts, strict=True))).f1 == pytest.approx(0.4)


def test_inner_objects_count_by_their_leaves():
    assert count_pairs('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1}, "c": 2}') == PairCounts(1, 1, 1)


def test_only_objects_and_arrays_are_json_golds():
    assert [is_json(text) for text in ('{"a": 1}', "[]", "12", '"yes"', "yes")] == [True, True, False, False, False]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_every_value_matches_itself_however_it_is_written(value):
    written, spaced = json.dumps(value), json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    assert exact_match([spaced], [written]) == [1.0]
    assert field_f1([spaced], [written]) == [1.0]


@given(st.text(), st.text())
def test_no_text_breaks_a_metric(answer, gold):
    assert exact_match([answer], [gold])[0] in (0.0, 1.0)
    assert schema_compliance([answer], SCHEMA)[0] in (0.0, 1.0)
    assert 0 <= field_f1([answer], ['{"a": 1}'])[0] <= 1


def test_ten_thousand_different_rows_take_seconds():
    draw = random.Random(0)
    golds = [json.dumps({"intent": draw.choice(["fault", "refund"]), "note": draw.random()}) for _ in range(10_000)]
    started = time.process_time()
    for metric in (lambda o, g: schema_compliance(o, SCHEMA), exact_match, field_f1):
        assert len(metric(golds[::-1], golds)) == 10_000
    assert time.process_time() - started < 15
