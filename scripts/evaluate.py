"""Evaluate a suite of params.yaml: ask its model, score the answers, write evaluation/<suite>/."""

import argparse
import sys

from pipelines.core.command import run


def main() -> None:
    """Evaluate one suite and print its metrics."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate", description=__doc__)
    parser.add_argument("--suite", required=True, help="name of a suite in params.yaml")
    suite = parser.parse_args().suite
    from pipelines.core.files import only_one
    from pipelines.core.params import load_params
    from pipelines.evaluation.evaluate import evaluate
    from pipelines.evaluation.progress import shown
    from pipelines.evaluation.summary import as_lines

    params = load_params()
    with only_one(f"evaluate-{suite}" if suite in params.suites else "evaluate"), shown() as progress:
        outcome = evaluate(suite, params, on_progress=progress)
    for note in outcome.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(as_lines(outcome.summary)))
    print(f"computed {outcome.run['computed']}, cached {outcome.run['cached']} in {outcome.run['seconds']:.1f} s")
    print(f"evaluation/{suite}/metrics.json")


if __name__ == "__main__":
    run(main)
