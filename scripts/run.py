"""The main job: data -> validate -> train -> evaluate -> gate -> report, computing only what changed."""

import argparse
import json
import subprocess
import sys
import time

from pipelines.core.command import run
from pipelines.core.errors import ConfigError


def main() -> int:
    """Run every stage, decide, report, record; return the verdict's exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.run", description=__doc__)
    parser.add_argument("--baseline", default="auto", help="auto (the last release), none, or a Git reference")
    parser.add_argument("--no-track", action="store_true", help="do not record the run in MLflow")
    arguments = parser.parse_args()
    from pathlib import Path

    from pipelines.core.files import only_one
    from pipelines.core.stages import reproduce

    started = time.monotonic()
    with only_one("run"):
        step("check")
        outcome = reproduce()
        verdict_code = step("gate", "--baseline", arguments.baseline, accept=(0, 2, 3, 4))
        if not Path("evaluation/decision.json").exists():  # 2 is a verdict (no evidence) or a broken file
            raise ConfigError("`gate` stopped the run; its message is above")
        step("report")
        failure: ConfigError | None = None
        if not arguments.no_track:
            try:
                step("track")
            except ConfigError as error:
                failure = error  # the verdict stands, whether MLflow knows it or not
        computed = [name for name, what in outcome.stages.items() if what == "computed" and name != "machine"]
        decision = json.loads(Path("evaluation/decision.json").read_text(encoding="utf-8"))
    print(f"\n{len(computed)} of {len(outcome.stages)} stages computed in {time.monotonic() - started:.0f} s")
    print(f"verdict: {decision['verdict']}\nevaluation/report.md\nevaluation/report.html", flush=True)
    if failure:
        raise failure
    return verdict_code


def step(name: str, *arguments: str, accept: tuple[int, ...] = (0,)) -> int:
    """Run one cheap job in a process of its own, as the actions do.

    Raises:
        ConfigError: It ended with a code that is not accepted; it has printed why.
    """
    code = subprocess.run([sys.executable, "-m", f"scripts.{name}", *arguments], check=False).returncode
    if code not in accept:
        error = ConfigError(f"`{name}` stopped the run; its message is above")
        error.exit_code = code if code > 0 else 1
        raise error
    return code


if __name__ == "__main__":
    run(main)
