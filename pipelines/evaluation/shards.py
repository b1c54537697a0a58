"""Answer one runner's share of a suite into the answer cache, where the evaluation finds it later."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.params import EndpointModel, Params
from pipelines.evaluation.cases import refuse_outage
from pipelines.evaluation.progress import Progress, told
from pipelines.evaluation.suite import opened, read_plan, request
from pipelines.llm.answers import Request, Shard, cache_key


class Share(NamedTuple):
    """What one runner did.

    Attributes:
        computed: Answers asked of the model.
        cached: Answers that were known before.
        elsewhere: Answers left to the other runners.
        notes: What its user must be told.
    """

    computed: int
    cached: int
    elsewhere: int
    notes: tuple[str, ...]


def parse_shard(text: str) -> Shard:
    """Read `I/N`.

    Raises:
        ConfigError: It is not the I-th of N, counted from 1.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(f"--shard: 1/3, 2/3 or 3/3 is needed for one of three, found {one_line(repr(text), 60)}")
    return Shard(int(found[1]), int(found[2]))


def answer_share(
    name: str, params: Params, shard: Shard, *, root: Path = Path(), on_progress: Progress | None = None
) -> Share:
    """Ask the suite's model what falls to one of several runners; nothing under `evaluation/` changes.

    Args:
        name: A suite of `params.yaml`.
        params: The declared parameters. A spend limit is divided by the number of runners, each in a folder of its own.
        shard: Which runner this is.
        root: Folder of the project.
        on_progress: Told how far it is.

    Raises:
        ConfigError: Something declared is missing or does not fit.
        ServiceError: Not one request was answered.
    """
    plan = read_plan(name, params, root)
    pairs = [(row, repeat) for row in plan.rows for repeat in range(plan.suite.repeats)]
    requests = [request(plan, row, repeat) for row, repeat in pairs]
    golds = [row.answer for row, _ in pairs]
    model = plan.suite.model
    with opened(model, _with_share_of_budget(params, model, shard), root, shard) as answerer:
        if answerer.engine is None:  # an endpoint knows no batches: each request stands alone
            requests = _alone(requests, answerer.answerer.identity, shard)
        answers = answerer.answerer.answer(requests, on_progress=told(on_progress, "answers", len(requests)))
        if answerer.engine is None:
            refuse_outage(name, answers)
        elif "gold_perplexity" in plan.suite.metrics:
            progress = told(on_progress, "perplexity", len(requests))
            answerer.engine.gold_nll(requests, golds, on_progress=progress)
        n_cached = sum(answer.is_cached for answer in answers)
        n_computed = sum(answer.state != "infra_error" for answer in answers) - n_cached
        return Share(n_computed, n_cached, len(pairs) - n_cached - n_computed, answerer.notes)


def _alone(requests: list[Request], identity: str, shard: Shard) -> list[Request]:
    keys = [cache_key(identity, one) for one in requests]
    mine = shard.keys([[key] for key in dict.fromkeys(keys)])
    return [one for one, key in zip(requests, keys, strict=True) if key in mine]


def _with_share_of_budget(params: Params, model: str, shard: Shard) -> Params:
    declared = params.models.get(model)
    if not isinstance(declared, EndpointModel):
        return params
    part = declared.model_copy(update={"max_spend_usd": declared.max_spend_usd / shard.of})
    return params.model_copy(update={"models": {**params.models, model: part}})
