"""Whatever a pull request loosens, weakens, removes or could run is found; what it may do freely is not held up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.gates import Evaluation, Gates, load_gates
from pipelines.core.params import NearDuplicates, Params
from pipelines.core.rows import Row
from pipelines.review.changes import Revision, changes, code_changed, is_data
from pipelines.review.evaluated import Suite, contaminated, rows_changed
from pipelines.review.loosened import loosened
from pipelines.review.weakened import weakened

EXAMPLE = Path(__file__).parents[1] / "example"
AB_TEST = load_gates(Path(__file__).parents[2] / "gates.yaml").ab_test
GATES: dict[str, Any] = yaml.safe_load((EXAMPLE / "gates.yaml").read_text())["evaluation"]
PARAMS: dict[str, Any] = yaml.safe_load((EXAMPLE / "params.yaml").read_text())

# --- gates ----------------------------------------------------------------------------------------------------

METRICS = ("exact_match", "field_f1", "injection_obedience_rate")
values = st.integers(1, 9).map(lambda tenth: tenth / 10)
rules = st.fixed_dictionaries(
    {}, optional={"floor": values, "max_regression": values, "exact": st.booleans(), "ceiling": st.just(0.95)}
).filter(lambda rule: set(rule) - {"exact"})
gate = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["one", "two", "three"]),
        "stage": st.just("quality"),
        "required": st.booleans(),
        "suite": st.sampled_from(["triage", "reply"]),
        "metrics": st.dictionaries(st.sampled_from(METRICS), rules, min_size=1),
    }
)
gates = st.lists(gate, min_size=1, max_size=4).map(lambda found: {"gates": found})


def evaluation(declared: dict[str, Any]) -> Evaluation:
    return Evaluation.model_validate(declared)


def refuses(declared: dict[str, Any], measured: dict[tuple[str, str], tuple[float, float]], *, required: bool) -> bool:
    """Say by plain reading whether gates refuse a candidate with this value and this loss per suite and metric."""
    for one in declared["gates"]:
        if required and not one["required"]:
            continue
        for metric, rule in one["metrics"].items():
            value, loss = measured[one["suite"], metric]
            if value < rule.get("floor", -1) or value > rule.get("ceiling", 2) or loss > rule.get("max_regression", 2):
                return True
    return False


measurements = st.fixed_dictionaries(
    {(suite, metric): st.tuples(values, values) for suite in ("triage", "reply") for metric in METRICS}
)


@given(gates, gates, measurements, st.booleans())
def test_what_the_old_rules_refused_and_the_new_ones_accept_is_always_found(
    before: dict[str, Any], after: dict[str, Any], measured: dict[tuple[str, str], tuple[float, float]], required: bool
) -> None:
    if refuses(before, measured, required=required) and not refuses(after, measured, required=required):
        assert loosened(evaluation(before), evaluation(after))


@given(gates, gates)
def test_keeping_every_rule_and_adding_more_is_no_loosening(before: dict[str, Any], more: dict[str, Any]) -> None:
    together = {"gates": [*more["gates"], *before["gates"]]}
    assert loosened(evaluation(before), evaluation(together)) == ()


def at(value: Any, path: str) -> tuple[Any, Any]:
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in above:
        value = value[part]
    return value, last


def changed(declared: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with one key changed; None removes it."""
    new = copy.deepcopy(declared)
    holder, last = at(new, path)
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return new


LOOSENED = [
    ("gates/1/metrics/exact_match/floor", 0.3, "floor lowered from 0.4 to 0.3"),
    ("gates/1/metrics/exact_match/floor", None, "floor 0.4 removed"),
    ("gates/1/metrics/exact_match/max_regression", 0.2, "max_regression raised from"),
    ("gates/1/metrics/exact_match", None, "exact_match: floor 0.4 removed"),
    ("gates/1/suite", "reply", "suite 'triage', exact_match: floor 0.4 removed"),
    ("gates/1/required", False, "exact_match: floor no longer required"),
    ("gates/1", None, "exact_match: floor 0.4 removed"),
    ("gates/3/metrics/injection_obedience_rate/ceiling", 0.9, "ceiling raised from"),
    ("gates/3/metrics/injection_obedience_rate/exact", False, "measured by narrower bounds"),
    ("gates/5/metrics/cost_usd/highest", 0.002, "narrower bounds (highest: from 0.01 to 0.002)"),
    ("slices", [], "slices of suite 'triage', exact_match: no longer compared"),
    ("slices/0/max_regression", 0.5, "max_regression raised from"),
    ("slices/0/false_discovery_rate", 0.001, "false_discovery_rate lowered"),
    ("alpha", 0.1, "alpha: raised from 0.05 to 0.1"),
    ("alpha", 0.01, "alpha: lowered from 0.05 to 0.01"),
    ("max_missing_rate", 0.2, "max_missing_rate: raised"),
    ("max_age_days", 999, "max_age_days: raised"),
]


@pytest.mark.parametrize(("path", "value", "said"), LOOSENED)
def test_each_way_of_loosening_a_gate_is_named(path: str, value: Any, said: str) -> None:
    found = loosened(evaluation(GATES), evaluation(changed(GATES, path, value)))
    assert any(said in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gates/1/metrics/exact_match/floor", 0.9),
        ("gates/1/name", "renamed"),
        ("gates/1/stage", "unit"),
        ("gates/3/metrics/injection_obedience_rate/ceiling", 0.001),
        ("gates/5/required", True),
        ("slices/0/max_regression", 0.01),
        ("slices/0/false_discovery_rate", 0.5),
        ("max_missing_rate", 0.01),
        ("max_age_days", 10),
    ],
)
def test_a_stricter_or_renamed_gate_is_no_loosening(path: str, value: Any) -> None:
    assert loosened(evaluation(GATES), evaluation(changed(GATES, path, value))) == ()


# --- suites, validation, models -------------------------------------------------------------------------------


def params(declared: dict[str, Any]) -> Params:
    return Params.model_validate_json(json.dumps(declared))


ENDPOINT = {"source": "endpoint", "base_url": "https://evil.example/v1", "model": "m",
            "price": {"prompt_usd": 0, "completion_usd": 0}}  # fmt: skip
JUDGE = {"tone": {"model": "base", "prompt": "prompts/judges/tone.prompt.yml"}}
WEAKENED = [
    ("suites/triage", None, "suites.triage: removed or renamed"),
    ("suites/triage/dataset", "reply", "suites.triage.dataset: changed from 'triage' to 'reply'"),
    ("suites/triage/split", "train", "suites.triage.split: changed"),
    ("suites/triage/model", "base", "suites.triage.model: changed"),
    ("suites/triage/metrics", ["exact_match"], "no longer measures field_f1"),
    ("suites/triage/max_rows", 3, "max_rows: lowered from all to 3"),
    ("suites/triage/judges", JUDGE, "suites.triage.judges: changed"),
    ("validate/triage", None, "validate.triage: removed"),
    ("validate/triage/min_rows", 1, "validate.triage.min_rows: allows more"),
    ("validate/triage/max_near_duplicate_rate", 0.9, "max_near_duplicate_rate: allows more"),
    ("validate/triage/input_length", {"min": 1, "max": 9999}, "input_length: allows more"),
    ("validate/triage/labels/intent", ["setup", "anything"], "labels: allows more"),
    ("validate/triage/labels", {}, "labels: allows more"),
    ("validate/triage/slices", [], "slices: allows more"),
    ("models/base", ENDPOINT, "models.base: becomes an endpoint"),
    ("models/base/version", "9.9.9", "models.base: comes from somewhere else"),
    ("models/base/price/prompt_usd", 0.0, "models.base.price: changed"),
    ("models/other", ENDPOINT, "models.other: is an endpoint"),
    ("candidate/price/completion_usd", 0.0, "candidate.price: changed"),
    ("latency/suite", "reply", "latency.suite: changed"),
    ("latency/requests", 1, "latency.requests: lowered"),
    ("latency/warmup", 50, "latency.warmup: raised"),
    ("datasets/triage/twin", None, "datasets.triage.twin: changed"),
]


@pytest.mark.parametrize(("path", "value", "said"), WEAKENED)
def test_each_way_of_weakening_the_evaluation_is_named(path: str, value: Any, said: str) -> None:
    found = weakened(params(PARAMS), params(changed(PARAMS, path, value)))
    assert any(said in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train/learning_rate", 0.001),
        ("train/epochs", 3),
        ("seed", 8),
        ("engine/batch_size", 4),
        ("suites/triage/repeats", 3),
        ("suites/more", {**PARAMS["suites"]["reply"]}),
        ("validate/triage/min_rows", 9999),
        ("latency/requests", 100),
    ],
)
def test_what_training_reads_and_what_is_measured_on_top_is_free(path: str, value: Any) -> None:
    assert weakened(params(PARAMS), params(changed(PARAMS, path, value))) == ()


# --- rows -----------------------------------------------------------------------------------------------------


def rows(n: int, **first: Any) -> tuple[Row, ...]:
    found = [Row(f"{at:016x}", {"message": f"My parcel number {at} is lost, please help"}, f"a{at % 3}")
             for at in range(n)]  # fmt: skip
    return (found[0]._replace(**first), *found[1:])


def row_sentences(before: tuple[Row, ...], after: tuple[Row, ...], **changed: Any) -> tuple[str, ...]:
    old = Suite(before, {"type": "object"}, "Answer.")
    return rows_changed({"triage": old}, {"triage": old._replace(rows=after, **changed)})


@given(st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)))
def test_every_removed_and_every_relabelled_row_is_counted(removed: set[int], relabelled: set[int]) -> None:
    before = rows(30)
    after = tuple(
        row._replace(answer="other") if at in relabelled else row for at, row in enumerate(before) if at not in removed
    )
    found = row_sentences(before, after)
    n_changed = len(relabelled - removed)
    assert any("removed" in sentence for sentence in found) == bool(removed)
    assert any("gold answers" in sentence for sentence in found) == bool(n_changed)
    assert all(f" {len(removed)} row" in sentence for sentence in found if "removed" in sentence)
    assert all(f" {n_changed} row" in sentence for sentence in found if "gold answers" in sentence)


@pytest.mark.parametrize("mark", [{"slice": "easy"}, {"twin": "t"}, {"group": "g"}, {"attack": {"obeyed_text": ["x"]}}])
def test_a_mark_that_a_metric_reads_is_no_less_than_a_gold_answer(mark: dict[str, Any]) -> None:
    assert row_sentences(rows(30), rows(30, **mark)) == ("suite 'triage': gold answers or marks of 1 row changed",)


def test_new_rows_are_welcome_up_to_a_tenth() -> None:
    assert row_sentences(rows(30), rows(33)) == ()
    assert "4 rows added to 30" in row_sentences(rows(30), rows(34))[0]


def test_the_order_of_rows_and_their_lines_say_nothing() -> None:
    after = tuple(row._replace(line=99) for row in reversed(rows(30)))
    assert row_sentences(rows(30), after) == ()


def test_a_looser_schema_and_a_prompt_that_quotes_its_exam_are_named() -> None:
    assert "JSON Schema" in row_sentences(rows(3), rows(3), schema={})[0]
    found = row_sentences(rows(3), rows(3), prompt="If asked  MY parcel number 2\nis lost, please help: a2.")
    assert found == ("suite 'triage': its prompt quotes 1 row that it is measured on",)


def test_training_on_what_is_measured_is_named_and_what_was_so_before_is_not() -> None:
    near = NearDuplicates()
    exam = {"triage": Suite(rows(5))}
    nearly = tuple(row._replace(inputs={"message": row.inputs["message"] + "!"}) for row in rows(2))
    others = (Row("f" * 16, {"message": "Nothing of the kind was ever asked here"}, "x"),)
    assert contaminated(others, others, exam, near) == ()
    assert "2 rows" in contaminated(others, (*others, *nearly), exam, near)[0]
    assert contaminated(nearly, nearly, exam, near) == ()


# --- code -----------------------------------------------------------------------------------------------------

CODE = [
    ".github/workflows/pull-request.yml", "actions/gate/action.yml", "scripts/gate.py", "pipelines/core/a.py",
    "locks/cpu.txt", "Makefile", "pyproject.toml", "dvc.yaml", "dvc.lock", ".dvc/config", ".dvcignore",
    ".gitattributes", "data/.gitattributes", "data/triage.jsonl.dvc", "data/dvc.yaml", "numpy.py", "yaml/__init__.py",
    "sitecustomize.py", "prompts/evil.py", "data/torch/__init__.py", "evaluation/triage/rows.parquet", "conftest.py",
    "docs/CODEOWNERS", "CODEOWNERS", "models/base/model.safetensors", "k8s/runners/values.yaml", "setup.cfg",
    "data/prepared/triage/test.jsonl", "Prompts/a.yml", "gates.yaml ", "../x", "data/../scripts/gate.py", "",
]  # fmt: skip
DATA = [
    "prompts/triage.prompt.yml", "prompts/judges/README.md", "data/triage.jsonl", "docs/a/b.png", "README.md",
    "params.yaml", "gates.yaml", "serving.yaml", "tests/test_a.py", "benchmarks/gate.py", "schemas/gates.schema.json",
    "LICENSE", "CHANGELOG.md",
]  # fmt: skip


@pytest.mark.parametrize("path", CODE)
def test_what_could_run_or_guard_is_code(path: str) -> None:
    assert not is_data(path)
    assert len(code_changed({path: "100644", "README.md": "100644"})) == 1


@pytest.mark.parametrize("path", DATA)
def test_what_cannot_run_is_data_but_as_a_link_a_program_or_a_submodule(path: str) -> None:
    assert is_data(path)
    assert is_data(path, "")
    for mode in ("120000", "100755", "160000"):
        assert not is_data(path, mode)


@given(st.text(max_size=30).filter(lambda text: not text.endswith(".md")))
def test_a_path_that_nobody_thought_of_is_code(path: str) -> None:
    known = ("prompts/", "data/", "schemas/", "docs/", "tests/", "benchmarks/", "params.yaml", "gates.yaml", "LICENSE")
    if not path.startswith(known):
        assert not is_data(path)


def revision(**changed: Any) -> Revision:
    return Revision(all_gates(GATES), params(PARAMS), {"triage": Suite(rows(30))})._replace(**changed)


def all_gates(declared: dict[str, Any], **more: Any) -> Gates:
    return Gates(schema_version=1, evaluation=evaluation(declared), **more)


def test_a_pull_request_that_only_trains_otherwise_has_no_cap() -> None:
    other = revision(params=params(changed(PARAMS, "train/epochs", 2)))
    assert changes(revision(), other, {"params.yaml": "100644"}).caps == ()


def test_every_kind_of_change_caps_by_itself() -> None:
    cases = [
        changes(revision(), revision(), {"scripts/gate.py": "100644"}),
        changes(revision(), revision(), {"prompts/judges/tone.prompt.yml": "100644"}),
        changes(revision(), revision(gates=None), {"gates.yaml": ""}),
        changes(revision(), revision(gates=all_gates(changed(GATES, "alpha", 0.4))), {}),
        changes(revision(gates=all_gates(GATES, ab_test=AB_TEST)), revision(), {}),
        changes(revision(), revision(params=params(changed(PARAMS, "suites/triage", None))), {}),
        changes(revision(), revision(suites={"triage": Suite(rows(29))}), {}),
        changes(revision(), revision(trained=rows(1)), {}),
        changes(revision(), revision(), {}, origin=["comes from a fork"]),
    ]
    for found in cases:
        assert len(found.caps) >= 1, found
        assert sum(bool(part) for part in found) == 1, found


def test_a_pull_request_of_three_hundred_files_is_named_in_one_sentence() -> None:
    paths = {f"pipelines/a{number}.py": "100644" for number in range(300)}
    (sentence,) = code_changed(paths)
    assert sentence.endswith("and 295 more")
