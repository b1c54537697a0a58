"""Evaluate a suite of params.yaml: ask its model, score the answers, write evaluation/<suite>/."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from pipelines.core.command import run
from pipelines.core.errors import ConfigError
from pipelines.core.files import only_one

if TYPE_CHECKING:
    from pipelines.core.params import Params


def main() -> None:
    """Evaluate one suite and print its metrics; or only answer one runner's share of it, or of every suite."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate", description=__doc__)
    parser.add_argument("--suite", help="name of a suite in params.yaml")
    parser.add_argument("--shard", metavar="I/N", help="only answer the I-th of N shares, into .cache/answers")
    arguments = parser.parse_args()
    if not arguments.suite and not arguments.shard:
        raise ConfigError("--suite NAME is needed; it may be left out only with --shard, which then takes every suite")
    from pipelines.core.github.runner import is_runner, set_outputs
    from pipelines.core.params import load_params

    params = load_params()
    names = [arguments.suite] if arguments.suite else list(params.suites)
    counts = [share(name, params, arguments.shard) if arguments.shard else whole(name, params) for name in names]
    if is_runner() and "DVC_STAGE" not in os.environ:  # a stage's outputs are not those of the step that runs it
        computed, cached = (sum(part) for part in zip(*counts, strict=True))
        set_outputs({"computed": str(computed), "cached": str(cached)})


def whole(suite: str, params: Params) -> tuple[int, int]:
    """Evaluate a suite; return how many answers were computed and how many were cached."""
    from pipelines.evaluation.evaluate import evaluate
    from pipelines.evaluation.progress import shown
    from pipelines.evaluation.summary import as_lines

    with only_one(f"evaluate-{suite}" if suite in params.suites else "evaluate"), shown() as progress:
        outcome = evaluate(suite, params, on_progress=progress)
    for note in outcome.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(as_lines(outcome.summary)))
    print(f"computed {outcome.run['computed']}, cached {outcome.run['cached']} in {outcome.run['seconds']:.1f} s")
    print(f"evaluation/{suite}/metrics.json")
    return outcome.run["computed"], outcome.run["cached"]


def share(suite: str, params: Params, shard: str) -> tuple[int, int]:
    """Answer one runner's share of a suite; return how many answers were computed and how many were cached."""
    from pipelines.evaluation.progress import shown
    from pipelines.evaluation.shards import answer_share, parse_shard

    with only_one(f"evaluate-{suite}" if suite in params.suites else "evaluate"), shown() as progress:
        done = answer_share(suite, params, parse_shard(shard), on_progress=progress)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{suite}: shard {shard}: computed {done.computed}, cached {done.cached}, left to others {done.elsewhere}")
    return done.computed, done.cached


if __name__ == "__main__":
    run(main)
