"""Execute pull-request.yml with act, beside the same commands typed by hand in a clean clone.

    python -m benchmarks.pull_request [--json] [--rounds N]

A two-layer model answers, so that what is left is overhead: jobs, checkouts, actions, artifacts. Set-up is the same
environment for both and costs neither. Each round changes the reply prompt anew; a second push then changes
documentation only and must find every answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipelines.core.command import run
from tests.act.changes import DOCS, wording
from tests.act.conftest import start
from tests.act.project import REPOSITORY, Project, Pull, handed_over
from tests.conftest import build_tiny_model
from tests.standin.github import GitHub


def main() -> None:
    """Run both ways, print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pull_request", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        build_tiny_model(folder / "model")
        (folder / "base").mkdir()
        print("evaluating main once ...", file=sys.stderr)
        start(folder / "base", folder / "model")
        rounds = [one_round(folder, at) for at in range(arguments.rounds)]
    figures = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    if arguments.json:
        print(json.dumps({key: round(value, 2) for key, value in figures.items()}))
        return
    for key, value in figures.items():
        print(f"{key:<28} {value:8.1f}   {', '.join(f'{one[key]:.1f}' for one in rounds)}")


def one_round(folder: Path, at: int) -> dict[str, float]:
    """Time one pull request by act and by hand, its second push, and the verdict."""
    change = wording(f"number {at}, warm")
    with GitHub(REPOSITORY) as github:
        made = folder / f"round-{at}"
        made.mkdir()
        project = Project(made, folder / "base", github)
        pull = project.open(change)
        pull.announce()
        by_hand = timed(lambda: commands(project, pull, made / "by-hand"))
        by_act = timed(pull.compute)
        judged = timed(lambda: pull.judge("success"))
        first = handed_over(project, project_run(pull))
        pull.push(DOCS)
        pull.announce()
        again = timed(pull.compute)
        second = handed_over(project, project_run(pull))
    return {
        "workflow_seconds": by_act,
        "by_hand_seconds": by_hand,
        "overhead_seconds": by_act - by_hand,
        "verdict_seconds": judged,
        "second_push_seconds": again,
        "stages_computed": sum(what == "computed" for name, what in first.items() if name != "machine"),
        "stages_computed_again": sum(what == "computed" for name, what in second.items() if name != "machine"),
        "trained": float(first["train"] == "computed"),
    }


def project_run(pull: Pull) -> Any:
    """Return what `handed_over` wants of the last run: its number."""
    return argparse.Namespace(number=pull.last_run)


def commands(project: Project, pull: Pull, clone: Path) -> None:
    """Type what pull-request.yml types, in a clean clone, against a copy of main's remote."""
    subprocess.run(["git", "clone", "--quiet", str(project.folder / "origin"), str(clone)], check=True)
    subprocess.run(["git", "fetch", "--quiet", "origin", pull.merge], cwd=clone, check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", pull.merge], cwd=clone, check=True)
    own = project.folder / "own"
    own.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"}
    for verb, *arguments in (
        ("check",),
        ("plan", "--base", project.main),
        ("reproduce", "--pull", str(project.remote), "--push", str(own)),
        ("hand_over", "--to", "hand-over"),
    ):
        command = [sys.executable, "-m", f"scripts.{verb}", *arguments]
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{verb}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def timed(work: Any) -> float:
    """Return the seconds that a call takes; a run of act that fails ends the benchmark."""
    begin = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - begin
    if done is not None and done.conclusion != "success":
        raise SystemExit(done.log[-4000:])
    return seconds


if __name__ == "__main__":
    run(main)
