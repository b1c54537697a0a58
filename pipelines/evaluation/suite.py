"""What a suite asks of which model: read and checked before anything expensive starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError
from pipelines.core.params import EndpointModel, Params, Price, Suite
from pipelines.core.rows import Row, read_rows
from pipelines.evaluation.catalogue import METRICS, ROW_METRICS, unmet
from pipelines.llm.answers import AnswerCache, Answerer, Request, Shard
from pipelines.llm.local_model import ModelCard, read_card
from pipelines.llm.prompts import Prompt, load_prompt, render

if TYPE_CHECKING:
    from pipelines.llm.client import Client
    from pipelines.llm.engine import Engine

CACHE = Path(".cache")


class Plan(NamedTuple):
    """A suite, ready to be asked.

    Attributes:
        name: Of the suite.
        suite: As declared.
        rows: In order of their ids, at most `max_rows`.
        prompt: That renders them.
        card: Of the model that answers.
        price: Of its tokens.
        root: Folder of the project.
    """

    name: str
    suite: Suite
    rows: list[Row]
    prompt: Prompt
    card: ModelCard
    price: Price
    root: Path

    @property
    def scores(self) -> AnswerCache:
        """Where what models say about answers is kept."""
        return AnswerCache(self.root / CACHE / "scores")


class Opened(NamedTuple):
    """An answerer, and the engine or the client it is."""

    answerer: Answerer
    precision: str | None
    device: str
    engine: Engine | None = None
    client: Client | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user must be told: a spend limit reached, an endpoint down, guessed tokens."""
        return tuple(self.client.notes) if self.client else ()

    @property
    def spent_usd(self) -> float:
        """What was charged so far, where anybody charges."""
        return self.client.budget.spent_usd if self.client else 0.0


def read_plan(name: str, params: Params, root: Path = Path()) -> Plan:
    """Read and check everything that a suite needs, but for the model's weights.

    Args:
        name: A suite of `params.yaml`.
        params: The declared parameters.
        root: Folder of the project.

    Raises:
        ConfigError: The suite, its data, prompt, metrics or model is missing or does not fit.
    """
    if name not in params.suites:
        raise ConfigError(f"params.yaml: suites: unknown suite '{name}'{nearest(name, list(params.suites))}")
    suite = params.suites[name]
    card = read_card(root / "models" / suite.model)
    prompt = load_prompt(root / suite.prompt)
    _check_metrics(name, suite, params, prompt, is_local=card.kind != "endpoint")
    path = root / "data/prepared" / suite.dataset / f"{suite.split}.jsonl"
    if not path.exists():
        raise ConfigError(f"{path}: no such file; run `python -m scripts.prepare`")
    if path.stat().st_size == 0:
        raise ConfigError(
            f"{path}: is empty, suite '{name}' has nothing to measure; change `splits` of datasets.{suite.dataset}"
        )
    rows = sorted(read_rows(path), key=lambda row: row.id)[: suite.max_rows]
    _check_rows(path, rows, prompt, suite)
    return Plan(name, suite, rows, prompt, card, params.price(suite.model), root)


def _check_metrics(name: str, suite: Suite, params: Params, prompt: Prompt, *, is_local: bool) -> None:
    for index, metric in enumerate(suite.metrics):
        place = f"params.yaml: suites.{name}.metrics[{index}]"
        if metric not in ROW_METRICS:
            raise ConfigError(f"{place}: unknown metric '{metric}'{nearest(metric, list(ROW_METRICS))}")
        has_schema = prompt.schema_of_answer() is not None
        if lack := unmet(METRICS[metric], params.datasets[suite.dataset], has_schema=has_schema, is_local=is_local):
            raise ConfigError(f"{place}: {lack}; drop the metric or add it")


def _check_rows(path: Path, rows: list[Row], prompt: Prompt, suite: Suite) -> None:
    seen: set[str] = set()
    for row in rows:
        for variable in prompt.variables():
            if variable not in row.inputs:
                raise ConfigError(
                    f"{suite.prompt}: {{{{{variable}}}}} is filled by no column "
                    f"(line {row.line} of the data has {', '.join(row.inputs)}); "
                    f"map one in params.yaml under datasets.{suite.dataset}.inputs"
                )
        if row.id in seen:
            raise ConfigError(f"{path}: id {row.id} stands there twice; run `python -m scripts.prepare`")
        seen.add(row.id)


def request(plan: Plan, row: Row, repeat: int = 0) -> Request:
    """Render one row into the request that evaluation and timing share."""
    decoding = plan.prompt.model_parameters
    return Request(
        id=row.id,
        messages=tuple(render(plan.prompt, row.inputs)),
        max_tokens=decoding.max_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        repeat=repeat,
        wants_json=plan.prompt.wants_json(),
    )


@contextlib.contextmanager
def opened(model: str, params: Params, root: Path = Path(), shard: Shard | None = None) -> Iterator[Opened]:
    """Open a model, and end its connections afterwards.

    Args:
        model: `candidate`, or a name under `models`.
        params: The declared parameters.
        root: Folder of the project.
        shard: Which batches a local model answers; None is all.

    Raises:
        ConfigError: The model cannot be loaded, or is an endpoint that `params.yaml` no longer declares as one.
    """
    folder, cache = root / "models" / model, AnswerCache(root / CACHE / "answers")
    if read_card(folder).kind != "endpoint":
        from transformers.utils import logging

        from pipelines.llm import local_model
        from pipelines.llm.engine import Engine

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        loaded = local_model.load(folder, precision=params.engine.precision, device=params.engine.device)
        engine = Engine(loaded, batch_size=params.engine.batch_size, cache=cache, shard=shard)
        yield Opened(engine, loaded.precision, loaded.device, engine=engine)
        return
    from pipelines.llm.client import Client
    from pipelines.llm.spending import Ledger

    declared = params.models.get(model)
    if not isinstance(declared, EndpointModel):
        raise ConfigError(f"{folder / 'model.json'}: is an endpoint, params.yaml declares none; fetch the model again")
    ledger = Ledger.of(declared, root / CACHE / "spend")
    with Client(declared, cache=cache, ledger=ledger) as client:
        yield Opened(client, None, "endpoint", client=client)
