"""`params.yaml`, `gates.yaml` and `dvc.yaml` as models: what each refuses on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.core import dvc_yaml, gates, params
from pipelines.core.declared import Declared, check
from pipelines.core.gates import Gates, load_gates
from pipelines.core.params import Params, SplitColumn, Splits, load_params
from pipelines.core.source import parse

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/example"  # the shipped files may change, what tests say of these may not
MODELS: dict[str, type[Declared]] = {"params.yaml": Params, "gates.yaml": Gates}


def problems(folder: Path, name: str, old: str, new: str) -> list[str]:
    text = (EXAMPLE / name).read_text()
    assert old in text, f"{name} no longer has {old!r}"
    (folder / name).write_text(text.replace(old, new, 1))
    _, found = check(parse(folder / name, shown=name), MODELS[name])
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("params.yaml", "schema_version: 1", "schema_version: 2", "schema_version: input should be 1, found 2"),
        ("params.yaml", "seed: 7", "seed: -1", "seed: input should be greater than or equal to 0, found -1"),
        ("params.yaml", "validation: 0.04", "validation: 0.05", "splits: shares must sum to 1, they sum to 1.01"),
        ("params.yaml", "path: data/triage.jsonl", "path: ../x", "path: a path inside the repository is needed, found"),
        ("params.yaml", "path: data/triage.jsonl", "path: /etc/passwd", "path: a path inside the repository is needed"),
        ("params.yaml", "  triage:\n    path", "  Triage:\n    path", "datasets.Triage: a name of lower-case letters"),
        ("params.yaml", "sha256: b179c9", "sha256: B179c9", "sha256: a SHA-256 of 64 lower-case hex digits is needed"),
        (
            "params.yaml",
            "source: package",
            "source: pckage",
            "models.base.source: must be one of 'package', 'hub', 'dir",
        ),
        ("params.yaml", "min: 4, max: 1200", "min: 1200, max: 4", "input_length: min 1200 is above max 4"),
        ("params.yaml", "dropout: 0.0", "dropout: 1.0", "train.lora.dropout: input should be less than 1, found 1.0"),
        (
            "params.yaml",
            "batch_size: 16",
            "batch_size: 0",
            "train.batch_size: input should be greater than or equal to 1",
        ),
        (
            "params.yaml",
            "learning_rate: 2.0e-3",
            "learning_rate: 2",
            "learning_rate: input should be less than 1, found 2",
        ),
        (
            "params.yaml",
            "precision: auto",
            "precision: bf16",
            "precision: input should be 'auto', 'float32', 'bfloat16'",
        ),
        ("params.yaml", "    price:", "    cost:", "models.base.cost: unknown key"),
        (
            "gates.yaml",
            "{floor: 0.95}",
            "{}",
            "schema_compliance: one of 'floor', 'ceiling' or 'max_regression' is needed",
        ),
        ("gates.yaml", "{floor: 0.95}", "{floor: 0.9, ceiling: 0.8}", "floor 0.9 must be below ceiling 0.8"),
        (
            "gates.yaml",
            "max_regression: 0.08",
            "max_regression: -1",
            "max_regression: input should be greater than or eq",
        ),
        ("gates.yaml", "stage: unit", "stage: units", "gates[0].stage: input should be 'unit', 'quality', 'safety' or"),
        ("gates.yaml", "alpha: 0.05", "alpha: 0.5", "evaluation.alpha: input should be less than 0.5, found 0.5"),
        ("gates.yaml", "required: false", "required: no", "required: true or false is needed, found 'no'"),
        ("gates.yaml", "alpha: 0.05", "alpha: 0.05\n  escalation: {rows: [9, 19]}", "escalation: unknown key"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    found = problems(tmp_path, name, old, new)
    assert any(words in line for line in found), found


def test_a_data_set_may_carry_its_own_splits() -> None:
    value = {"path": "a.jsonl", "inputs": {"x": "text"}, "answer": "label"}
    by_column = params.Dataset.model_validate({**value, "splits": {"column": "fold", "train": (0, 1), "test": (2,)}})
    assert by_column.splits == SplitColumn(column="fold", train=(0, 1), test=(2,))
    by_share = params.Dataset.model_validate({**value, "splits": {"train": 0.5, "test": 0.5}})
    assert by_share.splits == Splits(train=0.5, test=0.5)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ("{column: fold}", "one of 'train', 'validation' or 'test' must list values"),
        ("{column: fold, train: [1], test: [1]}", "value '1' is listed twice; a row can be in one split only"),
        ("{column: fold, trian: [1], test: [2]}", "splits.trian: unknown key (did you mean 'train'?)"),
    ],
)
def test_splits_by_column_must_not_overlap(tmp_path: Path, splits: str, words: str) -> None:
    old = "splits: {train: 0.74, validation: 0.04, test: 0.22}"
    (line,) = problems(tmp_path, "params.yaml", old, f"splits: {splits}")
    assert words in line


def test_no_secret_belongs_into_the_parameters(tmp_path: Path) -> None:
    endpoint = (
        "models:\n  api: {source: endpoint, model: m, base_url: 'https://me:key@host/v1', api_key_variable: sk-123,\n"
        "        price: {prompt_usd: 1, completion_usd: 1}}\n"
    )
    found = problems(tmp_path, "params.yaml", "models:\n", endpoint)
    assert [line.split(":")[2].strip() for line in found] == ["models.api.base_url", "models.api.api_key_variable"]


def test_every_model_has_a_price() -> None:
    declared = load_params(EXAMPLE / "params.yaml")
    assert declared.price("candidate") == declared.candidate.price
    for name in declared.models:
        assert declared.price(name) == declared.models[name].price


def test_the_shipped_files_load() -> None:
    assert load_params(EXAMPLE / "params.yaml").train.base in load_params(EXAMPLE / "params.yaml").models
    assert load_gates(EXAMPLE / "gates.yaml").evaluation.gates


@pytest.mark.parametrize(("name", "schema"), [("params.yaml", params.schema()), ("gates.yaml", gates.schema())])
def test_the_schema_for_editors_accepts_the_shipped_file_and_refuses_a_typo(name: str, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    value = yaml.safe_load((ROOT / name).read_text())
    jsonschema.validate(value, schema)
    with pytest.raises(jsonschema.ValidationError, match="sed"):
        jsonschema.validate({**value, "sed": 1}, schema)


def test_dvc_stages_and_loops_of_stages_are_understood(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(dvc_yaml.schema())
    path = tmp_path / "dvc.yaml"
    path.write_text(
        "stages:\n  a: {cmd: python -m scripts.a, outs: [x, y: {cache: false}]}\n"
        "  b:\n    foreach: [1, 2]\n    do: {cmd: 'python -m scripts.b ${item}', params: [seed, other.yaml: [k]]}\n"
    )
    value, found = check(parse(path), dvc_yaml.DvcFile)
    assert found == []
    assert value is not None
    assert isinstance(value.stages["b"], dvc_yaml.Loop)


def test_persistent_outputs_are_refused_for_they_switch_the_run_cache_off(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text("stages:\n  a:\n    cmd: python -m scripts.a\n    outs:\n    - x: {persist: true}\n")
    _, (problem,) = check(parse(path, shown="dvc.yaml"), dvc_yaml.DvcFile)
    assert str(problem).startswith("dvc.yaml:5: stages.a.outs[0].x.persist: unknown key")
