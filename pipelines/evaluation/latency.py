"""Time single, uncached requests: the only figures of latency that there are."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.core.errors import ConfigError
from pipelines.core.params import Params
from pipelines.core.rows import Row
from pipelines.evaluation.cases import NAN, as_case, refuse_outage
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS
from pipelines.evaluation.progress import Progress
from pipelines.evaluation.record import Outcome, run_record, write
from pipelines.evaluation.suite import Plan, opened, read_plan, request
from pipelines.llm.answers import Answer


def measure(params: Params, *, root: Path = Path(), on_progress: Progress | None = None) -> Outcome:
    """Time the declared number of requests, one after the other, and replace `evaluation/latency/`.

    The first `warmup` requests are asked and not counted: they pay for what happens once (connections, kernels,
    the shared beginning of the prompts).

    Args:
        params: The declared parameters.
        root: Folder of the project.
        on_progress: Told how far it is.

    Raises:
        ConfigError: Something declared is missing or does not fit.
        ServiceError: Not one request was answered.
    """
    started = time.monotonic()
    declared = params.latency
    plan = read_plan(declared.suite, params, root)
    if LATENCY_SUITE in params.suites:
        raise ConfigError(f"params.yaml: suites.{LATENCY_SUITE}: this name belongs to the timed requests; use another")
    chosen = spread_over_lengths(plan, declared.requests)
    requests = [request(plan, row) for row in chosen]
    answers: list[Answer] = []
    with opened(plan.suite.model, params, root) as model:
        for position in range(declared.warmup):
            model.answerer.time_one(requests[position % len(requests)])
        for asked in requests:
            answers.append(_timed(model.answerer.time_one(asked)))
            if on_progress:
                on_progress("timed requests", len(answers), 0, len(requests))
    refuse_outage(LATENCY_SUITE, answers)
    cases = [as_case(row, answer, plan.price) for row, answer in zip(unique_ids(chosen), answers, strict=True)]
    metrics = {name: METRICS[name] for name in LATENCY_METRICS}
    run = run_record(plan, metrics, [case.row.id for case in cases], model) | {
        "suite": LATENCY_SUITE,
        "judges": {},
        "computed": len(answers),
        "cached": 0,
        "seconds": round(time.monotonic() - started, 3),
        "cost_usd": sum(case.cost_usd for case in cases),
    }
    summary = write(run, metrics, cases, answers, {}, folder=root / "evaluation" / LATENCY_SUITE)
    return Outcome(summary, run, model.notes)


def spread_over_lengths(plan: Plan, n: int) -> list[Row]:
    """Choose rows that stand for the whole range of prompt lengths: evenly spaced by length, ties by id.

    Args:
        plan: The suite.
        n: How many; with fewer rows than that, rows are chosen again in turn.

    Returns:
        The rows, in an order that does not rise with length, so that a machine slowing down hits all lengths alike.
    """
    rows = sorted(plan.rows, key=lambda row: (sum(map(len, row.inputs.values())), row.id))
    spaced = [rows[round(at * (len(rows) - 1) / max(1, n - 1))] for at in range(n)] if len(rows) >= n else rows
    in_turn = [spaced[at % len(spaced)] for at in range(n)]
    return [in_turn[at * _stride(n) % n] for at in range(n)]


def _stride(n: int) -> int:
    """Return a step near the golden section of n that shares no factor with it, so that it visits every place once."""
    return next(step for step in range(max(1, round(n * 0.618)), 2 * n + 1) if math.gcd(step, n) == 1)


def unique_ids(rows: Sequence[Row]) -> list[Row]:
    """Number the second and later timing of a row in its id: the unit is the request."""
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        seen[row.id] += 1
        found.append(row if seen[row.id] == 1 else row._replace(id=f"{row.id}.{seen[row.id]}"))
    return found


def _timed(answer: Answer) -> Answer:
    """Mark the times of a request that was not answered as missing."""
    return answer._replace(latency_ms=NAN, ttft_ms=NAN) if answer.state == "infra_error" else answer
