"""Time the declared number of single, uncached requests and write evaluation/latency/."""

import argparse
import sys

from pipelines.core.command import run


def main() -> None:
    """Measure latency and print its quantiles."""
    parser = argparse.ArgumentParser(prog="python -m scripts.latency", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure although the same model was timed here before")
    arguments = parser.parse_args()
    from pipelines.core.files import only_one
    from pipelines.core.params import load_params
    from pipelines.evaluation.progress import shown
    from pipelines.evaluation.summary import as_lines
    from pipelines.evaluation.timings import measure_once

    with only_one("latency"), shown() as progress:
        outcome = measure_once(load_params(), is_fresh=arguments.fresh, on_progress=progress)
    for note in outcome.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(as_lines(outcome.summary)))
    print("evaluation/latency/metrics.json")


if __name__ == "__main__":
    run(main)
