"""Ask a model everything in a suite, score the answers, and write rows, metrics and a record of the run."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.core.files import digest
from pipelines.core.params import Classifier, Params
from pipelines.evaluation.cases import Case, Value, as_case, refuse_outage
from pipelines.evaluation.catalogue import Metric, of_suite
from pipelines.evaluation.classifiers import classify
from pipelines.evaluation.embeddings import semantic_similarity
from pipelines.evaluation.judging import judge_all
from pipelines.evaluation.metrics import compare, score
from pipelines.evaluation.progress import Progress, told
from pipelines.evaluation.record import Outcome, run_record, write
from pipelines.evaluation.suite import Opened, Plan, opened, read_plan, request
from pipelines.llm.answers import AnswerCache, Request


def evaluate(name: str, params: Params, *, root: Path = Path(), on_progress: Progress | None = None) -> Outcome:
    """Evaluate a suite and replace `evaluation/<name>/`, as a whole or not at all.

    Args:
        name: A suite of `params.yaml`.
        params: The declared parameters.
        root: Folder of the project.
        on_progress: Told how far it is.

    Raises:
        ConfigError: Something declared is missing or does not fit.
        ServiceError: Not one request was answered.
    """
    started = time.monotonic()
    plan = read_plan(name, params, root)
    metrics = of_suite(plan.suite)
    pairs = [(row, repeat) for row in plan.rows for repeat in range(plan.suite.repeats)]
    requests = [request(plan, row, repeat) for row, repeat in pairs]
    with opened(plan.suite.model, params, root) as model:
        answers = model.answerer.answer(requests, on_progress=told(on_progress, "answers", len(requests)))
        refuse_outage(name, answers)
        golds = [row.answer for row, _ in pairs] if "gold_perplexity" in metrics else None
        nats = _gold_nll(model, requests, golds, on_progress)
        run = run_record(plan, metrics, [row.id for row in plan.rows], model)
        notes = model.notes
    cases = [
        as_case(row, answer, plan.price)._replace(repeat=repeat, gold_nll=nll)
        for (row, repeat), answer, nll in zip(pairs, answers, nats, strict=True)
    ]
    columns = _scored(plan, cases, metrics)
    judged = judge_all(plan, params, cases, on_progress)
    n_cached = sum(answer.is_cached for answer in answers)
    spent = (case.cost_usd for case, answer in zip(cases, answers, strict=True) if not answer.is_cached)
    run |= {
        "judges": {**_digests(plan.suite.classifiers), **judged.digests},
        "calibration": judged.calibration,
        "computed": len(answers) - n_cached,
        "cached": n_cached,
        "seconds": round(time.monotonic() - started, 3),
        "cost_usd": sum(spent) + judged.spent_usd,
    }
    columns |= judged.columns
    summary = write(run, metrics, judged.cases, answers, columns, folder=root / "evaluation" / name)
    return Outcome(summary, run, (*notes, *judged.notes))


def _scored(plan: Plan, cases: list[Case], metrics: dict[str, Metric]) -> dict[str, list[Value]]:
    """Return the column of every metric but the judges', shape (n_cases,)."""
    columns = score(
        cases,
        plan.suite.metrics,
        schema=plan.prompt.schema_of_answer(),
        semantic_similarity=lambda outputs, golds: semantic_similarity(outputs, golds, plan.scores),
    )
    questions = ["\n".join(case.row.inputs.values()) for case in cases if case.state == "scored"]
    for name, classifier in plan.suite.classifiers.items():
        probabilities = functools.partial(_probabilities, classifier, questions, plan.scores)
        columns[name] = compare(cases, metrics[name], probabilities)
    return columns


def _probabilities(
    classifier: Classifier, questions: Sequence[str], cache: AnswerCache, outputs: Sequence[str], _: Sequence[str]
) -> list[float]:
    return classify(classifier, questions, outputs, cache)


def _digests(classifiers: dict[str, Classifier]) -> dict[str, str]:
    # A classifier grades as a judge does: scores of two different ones cannot be compared.
    return {name: digest(one.model_dump(mode="json")) for name, one in classifiers.items()}


def _gold_nll(
    model: Opened, requests: list[Request], golds: list[str] | None, on_progress: Progress | None
) -> Sequence[float | None]:
    """Return the mean nats per token of each gold answer, shape (n_requests,); None where nobody asks."""
    if golds is None or model.engine is None:
        return [None] * len(requests)
    return model.engine.gold_nll(requests, golds, on_progress=told(on_progress, "perplexity", len(requests)))
