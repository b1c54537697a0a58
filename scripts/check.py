"""Validate every declared file at once: params.yaml, gates.yaml, dvc.yaml, prompts/, data files and schemas/."""

import argparse
from pathlib import Path

from pipelines.core.command import run

MOST_LINES = 200


def main() -> int:
    """Print every problem as `file:line: key: what is wrong`; return 2 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository (default: this one)")
    root = parser.parse_args().root
    from pipelines.evaluation.lint.findings import find
    from pipelines.evaluation.lint.schemas import stale

    problems, warnings, project = find(root)
    problems += stale(root)
    for line in problems[:MOST_LINES]:
        print(line)
    if len(problems) > MOST_LINES:
        print(f"... and {len(problems) - MOST_LINES} more problems")
    for line in warnings[:MOST_LINES]:
        print(f"warning: {line}")
    if problems:
        if project.params is None or project.gates is None:
            print("Some files could not be understood; how they fit together is checked once these lines are mended.")
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)} found")
        return 2
    n_rows = sum(map(len, project.rows.values()))
    print(f"ok: parameters, gates, stages, {len(project.prompts)} prompts and {n_rows:,} rows of data fit together")
    return 0


if __name__ == "__main__":
    run(main)
