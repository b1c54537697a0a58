"""Prompt files against the suites that use them, and against their own test data."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.core.declared import nearest
from pipelines.core.params import Params
from pipelines.evaluation.lint.project import File, Finding, Project
from pipelines.llm.prompts import Prompt


def check_prompts(project: Project, params: File[Params]) -> Iterator[Finding]:
    """Find prompts that nobody uses, and test data that does not fill its prompt."""
    model = params.model
    used = {suite.prompt for suite in model.suites.values()} | {model.train.prompt}
    used |= {judge.prompt for suite in model.suites.values() for judge in suite.judges.values()}
    used |= {rules.prompt for rules in model.validate_.values()}
    names: dict[str, str] = {}
    for path, prompt in project.prompts.items():
        if path not in used:
            yield prompt.warning((), "is used by no suite, judge or training")
        first = names.setdefault(prompt.model.name, path)
        if first != path:
            yield prompt.error(("name",), f"{first} has the name '{prompt.model.name}' too; names are unique")
        suite = prompt.model.gatehouse.suite
        if suite is not None and suite not in model.suites:
            hint = nearest(suite, list(model.suites))
            yield prompt.error(("x-gatehouse", "suite"), f"unknown suite '{suite}'{hint}")
        elif suite is not None and model.suites[suite].prompt != path:
            yield prompt.error(("x-gatehouse", "suite"), f"suite '{suite}' uses {model.suites[suite].prompt}")
        yield from _check_test_data(prompt)


def _check_test_data(prompt: File[Prompt]) -> Iterator[Finding]:
    kinds: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}
    inputs = prompt.model.gatehouse.inputs
    for index, row in enumerate(prompt.model.test_data):
        for name, kind in inputs.items():
            if name not in row:
                yield prompt.error(("testData", index), f"no value for {{{{{name}}}}}")
            elif not isinstance(row[name], kinds[kind]) or (kind == "number" and isinstance(row[name], bool)):
                yield prompt.error(
                    ("testData", index, name), f"x-gatehouse.inputs says {kind}, found {row[name]!r:.60}"
                )
        for name in row:
            if name not in inputs and name != "expected":
                hint = nearest(name, [*inputs, "expected"])
                yield prompt.error(("testData", index, name), f"is no variable of this prompt{hint}")
