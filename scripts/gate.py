"""Decide what becomes of the candidate: pass 0, a gate says no 3, a person must decide 4, no evidence 2."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> int:
    """Fetch the baseline, decide, write `evaluation/decision.json`, print the gates and the verdict."""
    parser = argparse.ArgumentParser(prog="python -m scripts.gate", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder with gates.yaml and evaluation/")
    parser.add_argument("--baseline", default="auto", help="auto (the last release), none, or a Git reference")
    parser.add_argument("--context", type=Path, help="what is known of a pull request, as scripts.receive wrote it")
    arguments = parser.parse_args()

    from pipelines.core.files import only_one
    from pipelines.core.github.runner import annotate, is_runner, set_outputs
    from pipelines.core.source import parse
    from pipelines.evaluation.deciding.judgement import judge, table
    from pipelines.evaluation.deciding.pointing import point
    from pipelines.review.context import read_context

    root = arguments.root
    # What is judged in a context is laid out beside the repository, which is this folder.
    cap = read_context(arguments.context).cap if arguments.context else None
    with only_one("gate", root=root):
        judged = judge(arguments.baseline, root, repository=Path() if cap else root, cap=cap)
    print(table(judged.decision, judged.baseline))
    if is_runner():
        set_outputs({"verdict": judged.decision.verdict})
        if judged.decision.gates:
            for level, line, title, message in point(judged.decision, parse(root / "gates.yaml")):
                annotate(level, message, path="gates.yaml", line=line, title=title)
    return judged.exit_code


if __name__ == "__main__":
    run(main)
