"""Looks at a rollout by the shipped gates, from counters that are given as a few numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.core.gates import load_gates
from pipelines.core.rollout import Rollout
from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.judge import RolloutJudge
from pipelines.release.looks import Look, Rung, Told, told

ROOT = Path(__file__).parents[2]
NAMES = ("staging", "smoke", "deploy", "A/B test", "5 %", "10 %", "25 %", "50 %", "100 %", "champion")


def shipped() -> Rollout:
    gates = load_gates(ROOT / "gates.yaml")
    assert gates.canary is not None
    assert gates.canary.local is not None
    return gates.canary.local


def arm(n: float, errors: float = 0, bad_json: float = 0, slow: float = 0) -> Arm:
    return Arm(requests=n, errors=errors, schema_failures=bad_json, users=n, latency=((30.0, n - slow),))


def counters(errors: float = 0) -> Counters:
    return Counters((Epoch(50, arm(106, errors, 7, 1), arm(104, 1, 6)), Epoch(5, arm(4), arm(60, 0, 3))))


def verdict_of(found: Counters, stage: int = 0) -> dict[str, Any]:
    judged = RolloutJudge(shipped()).judge({"canary": json.loads(found.to_json())}, {"kind": "canary", "index": stage})
    return {**json.loads(json.dumps(judged.as_json())), "name": judged.name}


def told_of(errors: float = 0) -> Told:
    found = counters(errors)
    return told(verdict_of(found), {"canary": json.loads(found.to_json())})


def look(at: int = 4, **changes: Any) -> Look:
    rungs = tuple(Rung(name, "done" if i < at else "now" if i == at else "next") for i, name in enumerate(NAMES))
    values: dict[str, Any] = {
        "tag": "v1.1.0", "instead": "v1.0.0", "rungs": rungs, "stage": NAMES[at], "weight": 0.05, "told": told_of(),
        "total_s": 221.0, "elapsed_s": 41.0, "most_s": 180.0,
    }  # fmt: skip
    return Look(**{**values, **changes})
