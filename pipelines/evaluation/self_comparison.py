"""Read a finished run, compare it with itself in every way it allows, and publish the figures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.commit import head
from pipelines.core.errors import ConfigError
from pipelines.core.files import write_json, write_text
from pipelines.core.gates import load_gates
from pipelines.core.params import Params, load_params
from pipelines.evaluation.deciding.judgement import declared_metrics
from pipelines.evaluation.noise import Side, as_markdown, each_against_each, halves, measure
from pipelines.evaluation.results import read_results
from pipelines.evaluation.seeds import trained_with


def publish(seeds: Sequence[int], n_rounds: int, scratch: Path, root: Path = Path()) -> str:
    """Write `evaluation/noise.json` and `evaluation/noise.md`.

    Args:
        seeds: Training seeds; with fewer than two nothing is trained.
        n_rounds: How often the rows are split.
        scratch: An empty folder for what is trained.
        root: The repository, reproduced.

    Returns:
        The Markdown.

    Raises:
        ConfigError: There are no rows, or a declared file is broken.
    """
    params, rules = load_params(root / "params.yaml"), load_gates(root / "gates.yaml").evaluation
    metrics = declared_metrics(params)
    gated = {gate.suite for gate in rules.gates} & params.suites.keys()
    names = [name for name in sorted(gated) if (root / "evaluation" / name / "rows.parquet").is_file()]
    if not names:
        raise ConfigError("evaluation/: no gated suite has rows; run `python -m scripts.reproduce` first")
    side = {name: read_results(root / "evaluation" / name, metrics[name]) for name in names}
    rng = np.random.default_rng(params.seed)
    found = [measure("Random halves of the rows", halves(side, n_rounds=n_rounds, rng=rng), metrics, rules)]
    repeats = _repeats(params, names, scratch / "repeats", root)
    found.append(measure("Repeats of the same questions", each_against_each(repeats), metrics, rules))
    trained = []
    for seed in seeds:
        (scratch / str(seed)).mkdir(parents=True)
        trained.append(trained_with(seed, params, metrics, scratch / str(seed), root))
    what = f"The same recipe trained with seeds {', '.join(map(str, seeds))}"
    found.append(measure(what, each_against_each(trained), metrics, rules))
    told = [noise for noise in found if noise is not None]
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    known = {"schema_version": 1, "created": created, "commit": head(root)[0], "seeds": list(seeds)}
    write_json(root / "evaluation/noise.json", {**known, "comparisons": [noise._asdict() for noise in told]})
    text = as_markdown(told)
    write_text(root / "evaluation/noise.md", text)
    return text


def _repeats(params: Params, names: Sequence[str], folder: Path, root: Path) -> list[Side]:
    """Return the rows of each repeat as if it were a run of its own; of greedy answers all repeats are one."""
    metrics = declared_metrics(params)
    asked = {name: params.suites[name].repeats for name in names if params.suites[name].repeats > 1}
    sides: list[Side] = []
    for repeat in range(min(asked.values(), default=0)):
        side = {}
        for name in asked:
            place = folder / str(repeat) / name
            place.mkdir(parents=True)
            table = pq.read_table(root / "evaluation" / name / "rows.parquet")
            pq.write_table(table.filter(pc.equal(table["repeat"], repeat)), place / "rows.parquet")
            write_text(place / "run.json", (root / "evaluation" / name / "run.json").read_text(encoding="utf-8"))
            side[name] = read_results(place, metrics[name])
        sides.append(side)
    return sides
