"""The simulations of a rollout run, and judge as the gateway does: with few runs, whose figures nobody reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def said(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1: a figure beyond its bound
    return done.stdout


def test_the_canary_s_simulation_comes_to_the_shipped_function_s_verdicts() -> None:
    found = {one["what"]: one["gatehouse"] for one in json.loads(said("canary", "--runs", "2", "--json"))["figures"]}
    assert found["looks at which verdict() and this simulation disagree, of 1,000"] == 0
    exact = found[
        "1 % limit, true 1.0%: rolled back (exact)"
    ]  # computed, not drawn: the bound holds at any number of runs
    assert 0 < exact <= 0.05 / 3


def test_a_simulated_ladder_ends_for_every_candidate() -> None:
    lines = said("ladder", "--runs", "1").splitlines()
    ends = {line[:29].strip(): line[29:].split(" 1 ")[0] for line in lines[1:]}
    assert (ends["healthy"], ends["answers cut to broken JSON"]) == ("released", "rolled back")
