"""Have every judge of a suite grade the answers, and hold it against the answers that people labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelines.core.params import Judge, Params
from pipelines.evaluation.cases import NAN, Case, Value
from pipelines.evaluation.judge import Grade, Judged, calibrate, grade, judge_digest, read_calibration
from pipelines.evaluation.progress import Progress, told
from pipelines.evaluation.suite import Plan, opened
from pipelines.llm.prompts import load_prompt


class Verdicts(NamedTuple):
    """What the judges of a suite said.

    Attributes:
        cases: The cases; one that a judge could not grade is a `judge_error`.
        columns: Score of each judge by its name, shape (n_cases,).
        digests: Digest of each judge.
        calibration: How often each calibrated judge agrees with people.
        spent_usd: At endpoints, in this run.
        notes: What the user must be told.
    """

    cases: list[Case]
    columns: dict[str, list[Value]]
    digests: dict[str, str]
    calibration: dict[str, dict[str, int]]
    spent_usd: float
    notes: tuple[str, ...]


def judge_all(plan: Plan, params: Params, cases: list[Case], on_progress: Progress | None = None) -> Verdicts:
    """Grade every answer that there is with every judge of a suite.

    Args:
        plan: The suite.
        params: The declared parameters, in which judges find their models.
        cases: Answered examples; a `model_error` gets 0 unasked, an `infra_error` is missing.
        on_progress: Told how far it is.

    Raises:
        ConfigError: A judge's model, prompt or calibration is missing or does not fit.
    """
    found = Verdicts(list(cases), {}, {}, {}, 0.0, ())
    for name, judge in plan.suite.judges.items():
        found = _judge(found, name, judge, plan, params, on_progress)
    return found


def _judge(
    found: Verdicts, name: str, judge: Judge, plan: Plan, params: Params, on_progress: Progress | None
) -> Verdicts:
    prompt = load_prompt(plan.root / judge.prompt)
    labelled = read_calibration(plan.root / judge.calibration) if judge.calibration else []
    # A case that another judge could not grade is still an answer.
    asked = [at for at, case in enumerate(found.cases) if case.state in ("scored", "judge_error")]
    judged = [_judged(found.cases[at]) for at in asked] + [row.judged for row in labelled]
    with opened(judge.model, params, plan.root) as model:
        grades = grade(judged, prompt, model.answerer, on_progress=told(on_progress, f"judge {name}", len(judged)))
        identity, notes, spent_usd = model.answerer.identity, model.notes, model.spent_usd
    calibration: dict[str, Any] = {}
    if labelled:
        calibration[name] = calibrate([row.label for row in labelled], grades[len(asked) :])._asdict()
    cases, column = _graded(found.cases, asked, grades[: len(asked)])
    return Verdicts(
        cases,
        found.columns | {name: column},
        found.digests | {name: judge_digest(prompt, identity)},
        found.calibration | calibration,
        found.spent_usd + spent_usd,
        (*found.notes, *notes),
    )


def _judged(case: Case) -> Judged:
    return Judged(case.row.id, case.row.inputs, case.output, case.row.answer, case.repeat)


def _graded(cases: list[Case], asked: Sequence[int], grades: Sequence[Grade]) -> tuple[list[Case], list[Value]]:
    """Return the cases with their new states, and the judge's column, shape (n_cases,)."""
    cases = list(cases)
    column: list[Value] = [NAN if case.state == "infra_error" else 0.0 for case in cases]
    for at, given in zip(asked, grades, strict=True):
        column[at] = NAN if given.score is None else given.score
        if given.state == "judge_error":
            cases[at] = cases[at]._replace(state="judge_error", error=cases[at].error or given.error)
    return cases, column
