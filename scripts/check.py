"""Validate every declared file at once: params, gates, dvc, serving.yaml, prompts/, data files and schemas/."""

import argparse
from pathlib import Path
from typing import Literal

from pipelines.core.command import is_runner, point, run

MOST_LINES = 200


def main() -> int:
    """Print every problem as `file:line: key: what is wrong`; return 2 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository (default: this one)")
    root = parser.parse_args().root
    from pipelines.core.github.runner import add_summary, set_outputs
    from pipelines.core.markdown import block
    from pipelines.evaluation.lint.findings import find
    from pipelines.evaluation.lint.schemas import stale, written
    from pipelines.release.declaration import problems as rollout_problems
    from pipelines.review.declarations import problems as settings_problems
    from pipelines.serving.config import schema
    from pipelines.serving.references import problems as serving_problems

    problems, warnings, project = find(root)
    problems += stale(root) + rollout_problems(root) + settings_problems(root)
    if (root / "serving.yaml").exists():
        params, gates = project.params and project.params.model, project.gates and project.gates.model
        problems += serving_problems(root, params, gates) + stale(root, written({"serving": schema()}))
    if is_runner():
        set_outputs({"problems": str(len(problems))})
    for line in problems[:MOST_LINES]:
        show("error", line, root)
    if len(problems) > MOST_LINES:
        print(f"... and {len(problems) - MOST_LINES} more problems")
    for line in warnings[:MOST_LINES]:
        show("warning", line, root)
    if problems:
        add_summary(f"**The declared files do not fit together**\n\n{block(chr(10).join(problems[:MOST_LINES]))}")
        if project.params is None or project.gates is None:
            print("Some files could not be understood; how they fit together is checked once these lines are mended.")
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)} found")
        return 2
    n_rows = sum(map(len, project.rows.values()))
    print(f"ok: parameters, gates, stages, {len(project.prompts)} prompts and {n_rows:,} rows of data fit together")
    return 0


def show(level: Literal["error", "warning"], line: str, root: Path) -> None:
    """Print a problem, on a runner as an annotation at its file and line."""
    if is_runner():
        point(level, line, "" if root == Path() else str(root))
    else:
        print(line if level == "error" else f"{level}: {line}")


if __name__ == "__main__":
    run(main)
