"""Fine-tune the base model on the prepared rows and write models/candidate/; goes on where a killed run stopped."""

import argparse
import contextlib
import sys

from pipelines.core.command import run


def main() -> None:
    """Train and print the losses."""
    argparse.ArgumentParser(prog="python -m scripts.train", description=__doc__).parse_args()
    from pipelines.core.files import only_one
    from pipelines.core.params import load_params
    from pipelines.training.launch import is_worker, launch

    params = load_params()
    # Of several processes the one that starts the others holds the lock.
    with contextlib.nullcontext() if is_worker() else only_one("train"):
        if params.train.processes > 1 and not is_worker():
            launch(params.train.processes, "scripts.train")
            return
        from pipelines.training.train import train

        outcome = train(params)
    if outcome.n_left_out:
        print(f"note: {outcome.n_left_out} rows are longer than train.max_tokens and were left out", file=sys.stderr)
    if outcome.resumed_at:
        print(f"note: went on from step {outcome.resumed_at} of an interrupted run", file=sys.stderr)
    record = outcome.record
    print(f"models/candidate: {record['steps']} steps, {record['rows']} rows, {record['seconds']:.0f} s")


if __name__ == "__main__":
    run(main)
