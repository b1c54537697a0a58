"""Run the stages of dvc.yaml with a DVC remote: take over what it holds, compute the rest, push what came out."""

import argparse
import json

from pipelines.core.command import run
from pipelines.core.errors import ConfigError


def main() -> None:
    """Reproduce, and say which stages were computed, which came from caches, and what it took."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reproduce", description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to end with, such as train or evaluate@reply (default: all)")
    parser.add_argument("--until", metavar="STAGE", help="every stage that dvc.yaml declares up to this one")
    parser.add_argument("--pull", metavar="URL", action="append", default=[], help="remote to take from (repeatable)")
    parser.add_argument("--push", metavar="URL", help="remote that gets the outputs and the run cache")
    parser.add_argument(
        "--take-over", nargs="?", const="true", default="false", choices=("true", "false"),
        help="take the outputs that this tree's recorded decision names by SHA-256, wherever they lie below --pull",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.until and arguments.targets:
        raise ConfigError("--until STAGE and targets are two ways to say the same; give one")
    # A workflow's variable may be empty, or hold a URL per line.
    pull, push = [url.strip() for text in arguments.pull for url in text.splitlines() if url.strip()], arguments.push
    does_take_over = arguments.take_over == "true"
    if does_take_over and not pull:
        raise ConfigError("--take-over needs --pull URL: the remote that holds what the decision names")
    from pipelines.core.files import only_one
    from pipelines.core.github.runner import add_summary, set_outputs
    from pipelines.core.stages import until
    from pipelines.review.cost import ALWAYS, cost, table
    from pipelines.review.reproduction import run_stages

    with only_one("reproduce"):
        if does_take_over:
            from pipelines.review.takeover import take_over

            print(take_over(pull))
        targets = until(arguments.until) if arguments.until else arguments.targets
        outcome = run_stages(targets=targets, pull=pull, push=push or None)
        took = cost(outcome)
    computed = [name for name, what in outcome.stages.items() if what == "computed" and name != ALWAYS]
    print(f"\n{len(computed)} of {len(outcome.stages)} stages computed in {outcome.seconds:.0f} s")
    add_summary(table(outcome, took))
    outputs = {"stages": json.dumps(outcome.stages), "computed": str(len(computed))}
    set_outputs(outputs | {name: f"{value:g}" for name, value in took._asdict().items()})


if __name__ == "__main__":
    run(main)
