"""Which rows a metric applies to, which values are missing, and what a failure scores."""

import math

import pytest

from pipelines.core.params import Dataset
from pipelines.core.rows import Row
from pipelines.evaluation.cases import Case
from pipelines.evaluation.catalogue import METRICS, ROW_METRICS, unmet
from pipelines.evaluation.metrics import score

GOLD = '{"intent": "fault", "product": "hub"}'
SCHEMA = {"type": "object", "required": ["intent"]}


def case(name, output, *, state="scored", gold=GOLD, twin=None, attack=None, repeat=0, nll=None):
    return Case(Row(name, {"message": "m"}, gold, twin=twin, attack=attack), repeat, output, state, 10, 5, 0.25, nll)


def overlap(outputs, golds):
    return [float(output == gold) / 2 for output, gold in zip(outputs, golds, strict=True)]


def is_missing(value):
    return value is not None and math.isnan(value)


def test_every_row_metric_of_the_catalogue_is_computed():
    columns = score([case("a", GOLD)], ROW_METRICS, schema=SCHEMA, semantic_similarity=overlap)
    assert list(columns) == list(ROW_METRICS)


def test_an_answered_row_has_a_value_wherever_a_metric_applies():
    attack = {"obeyed_text": ["BANANA"], "personal_data": ["4111"]}
    columns = score([case("a", GOLD, attack=attack, nll=math.log(3))], ROW_METRICS, schema=SCHEMA,
                    semantic_similarity=overlap)  # fmt: skip
    assert {name: column[0] for name, column in columns.items()} == {
        "exact_match": 1.0,
        "schema_compliance": 1.0,
        "injection_obedience_rate": 0.0,
        "personal_data_leak_rate": 0.0,
        "bias_gap_rate": None,
        "field_f1": 1.0,
        "token_f1": 1.0,
        "rouge_l": 1.0,
        "bleu": pytest.approx(1.0),
        "chrf": pytest.approx(1.0),
        "semantic_similarity": 0.5,
        "gold_perplexity": pytest.approx(3.0),
        "prompt_tokens": 10.0,
        "completion_tokens": 5.0,
        "cost_usd": 0.25,
    }


def test_an_outage_is_missing_everywhere_it_would_apply_and_null_elsewhere():
    attack = {"obeyed_text": ["BANANA"]}
    columns = score([case("a", "", state="infra_error", attack=attack, nll=1.0)], ROW_METRICS, schema=SCHEMA,
                    semantic_similarity=overlap)  # fmt: skip
    null = {name for name, column in columns.items() if column[0] is None}
    assert null == {"personal_data_leak_rate", "bias_gap_rate"}
    assert all(is_missing(column[0]) for name, column in columns.items() if name not in null)


def test_a_model_error_scores_the_worst_of_each_range_and_what_was_spent():
    attack = {"obeyed_text": ["BANANA"], "personal_data": ["x"]}
    names = [name for name in ROW_METRICS if name != "bias_gap_rate"]
    columns = score([case("a", "", state="model_error", attack=attack, nll=math.log(3))], names, schema=SCHEMA,
                    semantic_similarity=overlap)  # fmt: skip
    spent = {"prompt_tokens": 10.0, "completion_tokens": 5.0, "cost_usd": 0.25, "gold_perplexity": pytest.approx(3.0)}
    for name in names:
        assert columns[name] == [spent.get(name, METRICS[name].worst)], name
    assert columns["injection_obedience_rate"] == [1.0]
    assert columns["semantic_similarity"] == [-1.0]


def test_field_f1_does_not_apply_to_a_text_gold():
    columns = score([case("a", "yes", gold="yes"), case("b", GOLD)], ["field_f1", "exact_match"])
    assert columns == {"field_f1": [None, 1.0], "exact_match": [1.0, 1.0]}


def test_twins_are_compared_within_their_repeat():
    cases = [
        case("a", '{"i": 1}', twin="t", repeat=0),
        case("b", '{"i": 1}', twin="t", repeat=0),
        case("a", '{"i": 1}', twin="t", repeat=1),
        case("b", '{"i": 2}', twin="t", repeat=1),
    ]
    assert score(cases, ["bias_gap_rate"])["bias_gap_rate"] == [0.0, None, 1.0, None]


@pytest.mark.parametrize(("states", "expected"), [(("scored", "infra_error"), None), (("scored", "model_error"), 1.0)])
def test_a_pair_with_an_outage_is_missing_and_one_with_a_model_error_differs(states, expected):
    cases = [case(name, GOLD, twin="t", state=state) for name, state in zip("ab", states, strict=True)]
    first, second = score(cases, ["bias_gap_rate"])["bias_gap_rate"]
    assert second is None
    assert is_missing(first) if expected is None else first == expected


def test_a_gold_answer_without_a_likelihood_is_missing_and_an_endless_one_stays_finite():
    cases = [case("a", GOLD), case("b", GOLD, nll=float("nan")), case("c", GOLD, nll=1e6)]
    first, second, third = score(cases, ["gold_perplexity"])["gold_perplexity"]
    assert is_missing(first)
    assert is_missing(second)
    assert math.isfinite(third)


@pytest.mark.parametrize(
    ("metric", "needed"),
    [
        ("injection_obedience_rate", "`attack` column"),
        ("bias_gap_rate", "`twin` column"),
        ("schema_compliance", "jsonSchema"),
        ("gold_perplexity", "a local model"),
    ],
)
def test_a_metric_says_what_its_suite_lacks(metric, needed):
    bare = Dataset(path="data/x.jsonl", inputs={"message": "message"}, answer="answer")
    full = bare.model_copy(update={"attack": "attack", "twin": "twin"})
    assert needed in (unmet(METRICS[metric], bare, has_schema=False, is_local=False) or "")
    assert unmet(METRICS[metric], full, has_schema=True, is_local=True) is None
