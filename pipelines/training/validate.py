"""Hold prepared rows against their declared expectations with Great Expectations, and show what offends."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.core.errors import one_line
from pipelines.core.params import Dataset, NearDuplicates, Validation
from pipelines.core.rows import Row
from pipelines.llm.prompts import load_prompt
from pipelines.training.expectations import COUNTED, Expectations, Placed, Rule, Table, expectations

MOST_ROWS = 100  # offending rows kept per expectation; their number is always whole
SENTENCES = ("ExpectColumnValuesToBeNull", "ExpectColumnMeanToBeBetween")  # what they show is written for people
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Offence:
    """A row that breaks an expectation: where it stands, what was found, and what the row says."""

    place: str
    split: str
    found: str
    text: str


@dataclass(frozen=True)
class Result:
    """One expectation and what became of it."""

    name: str
    expectation: str
    is_met: bool
    observed: str
    n_offending: int
    rows: tuple[Offence, ...]


@dataclass(frozen=True)
class Validated:
    """Every expectation of one data set."""

    dataset: str
    path: str
    n_rows: dict[str, int]
    results: tuple[Result, ...]

    def failed(self) -> list[Result]:
        """Return the expectations that are not met."""
        return [result for result in self.results if not result.is_met]

    def as_json(self) -> dict[str, Any]:
        """Return what `data/validation/<dataset>/results.json` says."""
        return {
            "schema_version": 1,
            "dataset": self.dataset,
            "path": self.path,
            "is_valid": not self.failed(),
            "n_rows": self.n_rows,
            "engine": f"great-expectations {version('great-expectations')}",
            "expectations": [asdict(result) for result in self.results],
        }


def validate(
    name: str,
    splits: dict[str, list[Row]],
    dataset: Dataset,
    declared: Validation,
    *,
    near: NearDuplicates,
    schema: dict[str, Any] | None,
) -> Validated:
    """Check every expectation of a data set.

    Args:
        name: The data set's name.
        splits: Its prepared rows; at least one row.
        dataset: What the columns mean, and the raw file that messages point into.
        declared: Its section under `validate` in params.yaml.
        near: When two rows are near-duplicates.
        schema: JSON Schema of gold answers, or None.

    Returns:
        All results; an expectation that cannot be evaluated is not met.
    """
    placed = sorted(
        (Placed(split, row) for split, rows in splits.items() for row in rows),
        key=lambda one: (one.row.line, one.row.id),
    )
    problem_of = None if schema is None else problem_by_schema(schema)
    written = expectations(placed, dataset, declared, near=near, problem_of=problem_of)
    results = evaluate(written, placed, dataset.path)
    return Validated(name, dataset.path, {split: len(rows) for split, rows in splits.items()}, results)


def evaluate(written: Expectations, placed: list[Placed], path: str) -> tuple[Result, ...]:
    """Let Great Expectations check every rule.

    Args:
        written: Rules and the tables they look at.
        placed: The rows that the tables' entries concern.
        path: The raw file, for messages.

    Returns:
        One result per rule, in their order.
    """
    return tuple(
        _result(rule, found, written.tables[rule.table], placed, path)
        for rule, found in zip(written.rules, _run(written), strict=True)
    )


def schema_of(declared: Validation) -> dict[str, Any] | None:
    """Return the JSON Schema that gold answers must satisfy, or None where the prompt asks for text.

    Raises:
        ConfigError: The prompt is missing or wrong.
    """
    return load_prompt(Path(declared.prompt)).schema_of_answer()


def problem_by_schema(schema: dict[str, Any]) -> Callable[[str], str | None]:
    """Return a function that says what is wrong with a JSON answer, or None."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator(schema)

    def problem(answer: str) -> str | None:
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError, TypeError) as error:
            return f"not JSON ({error})"
        worst = best_match(validator.iter_errors(value))
        return None if worst is None else f"{worst.json_path}: {worst.message}"

    return problem


def as_html(validated: Validated) -> str:
    """Return one page that shows every expectation, light and dark, with nothing from outside."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("validation.html.j2").render(
        validated=validated, engine=validated.as_json()["engine"]
    )


def _run(written: Expectations) -> list[Any]:
    """Return Great Expectations' result per rule, in the rules' order."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # it would report to its maker
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import great_expectations as gx  # here, for it takes seconds that other commands need not pay
        import pandas as pd

        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        source = context.data_sources.add_pandas("prepared")
        results: dict[int, Any] = {}
        for table_name, table in written.tables.items():
            numbers = [i for i, rule in enumerate(written.rules) if rule.table == table_name]
            batch = (
                source.add_dataframe_asset(table_name)
                .add_batch_definition_whole_dataframe("all")
                .get_batch(
                    {"dataframe": pd.DataFrame({name: _series(values) for name, values in table.columns.items()})}
                )
            )
            for i in numbers:
                rule = written.rules[i]
                expectation = getattr(gx.expectations, rule.kind)(**rule.arguments)
                results[i] = batch.validate(expectation, result_format="COMPLETE")
    return [results[i] for i in range(len(written.rules))]


def _series(values: list[Any]) -> Any:
    import pandas as pd

    is_numeric = all(isinstance(value, int | float) for value in values)
    return pd.Series(values, dtype="float64" if is_numeric and values else object)


def _result(rule: Rule, found: Any, table: Table, placed: list[Placed], path: str) -> Result:
    """Translate one result; anything but a plain success is a failure."""
    is_met = bool(found.success)
    entries = [] if is_met else [*found.result.get("unexpected_index_list", []), *rule.blamed]
    shown = table.columns[rule.shown]
    offences = [(i, shown[entry]) for entry in entries for i in table.concerned[entry]]
    is_sentence = rule.shown == COUNTED or rule.kind in SENTENCES
    rows = tuple(_offence(placed[i], value, is_sentence, path) for i, value in offences[:MOST_ROWS])
    return Result(rule.name, rule.kind, is_met, _observed(rule, found, table, len(entries)), len(offences), rows)


def _observed(rule: Rule, found: Any, table: Table, n_entries: int) -> str:
    if "observed_value" in found.result:
        return f"{found.result['observed_value']:.6g}"
    if "element_count" not in found.result:
        return "cannot be evaluated"
    if rule.shown == COUNTED:
        # Of counts, the one nearest to the limit tells more than how many are beyond it.
        values = table.columns[rule.arguments["column"]]
        known = [(value, i) for i, value in enumerate(values) if value is not None]
        entry = (max if "max_value" in rule.arguments else min)(known)[1]
        return one_line(str(table.columns[COUNTED][entry]), 80)
    return f"{n_entries:,} of {found.result['element_count']:,} offend"


def _offence(one: Placed, value: Any, is_sentence: bool, path: str) -> Offence:
    found = str(value) if is_sentence else repr(value)
    text = " / ".join(str(text) for text in one.row.inputs.values())
    return Offence(f"{path}:{one.row.line}", one.split, one_line(found, 300), one_line(text, 300))
