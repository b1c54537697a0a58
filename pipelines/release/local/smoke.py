"""A few questions that a version must answer well before any user meets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.core.errors import one_line
from pipelines.release.local.asking import ask
from pipelines.release.local.declared import DeclaredAt
from pipelines.release.local.serving_file import TESTER
from pipelines.release.targets import Slot, Smoked

QUESTIONS = 3
TIMEOUT_S = 120.0


def test(url: str, key: str, slot: Slot, declared: DeclaredAt, routes: Sequence[str]) -> Smoked:
    """Ask the first rows of each route's evaluation.

    Args:
        url: The gateway's public address.
        key: Its key.
        slot: Which side is asked.
        declared: What that side runs.
        routes: Which routes.

    Returns:
        Whether every answer came, is not empty, and fits its schema where the prompt declares one.
    """
    n_asked, n_good, problem = 0, 0, ""
    for route in routes:
        for question in declared.questions(route)[:QUESTIONS]:
            n_asked += 1
            body = {"inputs": question.inputs, "user": TESTER[slot]}
            found = ask(f"{url}/v1/predict/{route}", body, key=key, timeout_s=TIMEOUT_S)
            wrong = _wrong(found.value if found else None, declared, route)
            n_good += not wrong
            problem = problem or wrong
    said = f"{n_good} of {n_asked} questions answered well"
    return Smoked(n_asked > 0 and n_good == n_asked, f"{said}; {problem}" if problem else said)


def _wrong(value: Any, declared: DeclaredAt, route: str) -> str:
    if not isinstance(value, dict) or "output" not in value:
        error = value.get("error", {}).get("message", "") if isinstance(value, dict) else ""
        return f"{route}: {one_line(str(error), 120)}" if error else f"{route}: no answer"
    output = value["output"]
    if output in ("", None, [], {}):
        return f"{route}: an empty answer"
    path = declared.answering[route].prompt
    prompt = declared.prompt(path) if path else None
    schema = prompt.schema_of_answer() if prompt else None
    if schema is None:
        return ""
    from jsonschema import Draft202012Validator

    found = next(Draft202012Validator(schema).iter_errors(output), None)
    return f"{route}: an answer that does not fit its schema" if found else ""
