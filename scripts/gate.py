"""Decide what becomes of the candidate: pass 0, a gate says no 3, a person must decide 4, no evidence 2."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> int:
    """Fetch the baseline, decide, write `evaluation/decision.json`, print the gates and the verdict."""
    parser = argparse.ArgumentParser(prog="python -m scripts.gate", description=__doc__)
    parser.add_argument("--baseline", default="auto", help="auto (the last release), none, or a Git reference")
    arguments = parser.parse_args()

    from pipelines.core.files import only_one
    from pipelines.evaluation.deciding.judgement import judge, table

    with only_one("gate"):
        judged = judge(arguments.baseline, Path())
    print(table(judged.decision, judged.baseline))
    return judged.exit_code


if __name__ == "__main__":
    run(main)
