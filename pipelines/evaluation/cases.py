"""An answered example, as everything that scores, judges and writes it down sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.core.errors import ServiceError
from pipelines.core.params import Price
from pipelines.core.rows import Row
from pipelines.llm.answers import Answer
from pipelines.llm.cost import cost_usd

NAN = float("nan")
Value = float | None
"""A row's value of a metric: a number, NaN where it is missing, None where the metric does not apply."""


class Case(NamedTuple):
    """One answered example.

    Attributes:
        row: The example.
        repeat: Which of several answers to it.
        output: The answer; empty in an error.
        state: `scored`, `model_error` (scores worst), `infra_error` (missing) or `judge_error` (no grade).
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cost_usd: At the declared price.
        gold_nll: Mean negative log-likelihood per token of the gold answer, in nats, or None.
        error: One line for people, empty if scored.
    """

    row: Row
    repeat: int
    output: str
    state: str
    prompt_tokens: float
    completion_tokens: float
    cost_usd: float
    gold_nll: float | None = None
    error: str = ""


def as_case(row: Row, answer: Answer, price: Price) -> Case:
    """Put a row and its answer together; the cost is that of the declared price."""
    cost = cost_usd(price, answer.prompt_tokens, answer.completion_tokens)
    counts = answer.prompt_tokens, answer.completion_tokens, cost
    return Case(row, 0, answer.text, answer.state, *counts, error=answer.error)


def refuse_outage(name: str, answers: Sequence[Answer]) -> None:
    """Stop where not one request was answered: there is nothing to judge.

    Raises:
        ServiceError: Every answer is an `infra_error`; the message is the first one's.
    """
    if all(answer.state == "infra_error" for answer in answers):
        raise ServiceError(f"suite '{name}': none of {len(answers)} requests was answered: {answers[0].error}")
