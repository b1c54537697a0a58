"""What a run of the stages took: which were computed, and for how long training and GPUs were busy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, write_json
from pipelines.core.markdown import code
from pipelines.core.stages import Outcome

ALWAYS = "machine"
"""The stage that runs every time, so that nobody counts it as work."""


class Cost(NamedTuple):
    """What a run took, in seconds of stages that were computed: none of it where everything came from caches.

    Attributes:
        gpu_seconds: Of stages that computed on a GPU, times how many they had.
        train_seconds: Of training.
    """

    gpu_seconds: float
    train_seconds: float


def cost(outcome: Outcome, root: Path = Path()) -> Cost:
    """Add up what the computed stages took, and add it to `.gatehouse/stages.json`."""
    gpu = sum(seconds * _gpus(name, root) for name, seconds in outcome.stage_seconds.items())
    found = Cost(round(gpu, 1), round(outcome.stage_seconds.get("train", 0.0), 1))
    write_json(root / ".gatehouse/stages.json", {"schema_version": 1, **outcome._asdict(), **found._asdict()})
    return found


def _gpus(stage: str, root: Path) -> int:
    """Return how many GPUs a stage computed on, as its own record says."""
    kind, _, suite = stage.partition("@")
    try:
        if kind == "train":
            environment = read_json(root / "models/candidate/training.json")["environment"]
            return int(environment["gpus"]) if environment["gpu"] else 0
        if kind in ("evaluate", "latency"):
            return int("cuda" in read_json(root / "evaluation" / (suite or kind) / "run.json")["engine"]["device"])
    except (ConfigError, KeyError, TypeError, ValueError):
        pass
    return 0


def table(outcome: Outcome, took: Cost) -> str:
    """Return what became of each stage, as Markdown."""
    lines = ["### Stages", "", "| stage | | seconds |", "|---|---|---:|"]
    for name, what in outcome.stages.items():
        seconds = outcome.stage_seconds.get(name)
        lines.append(f"| {code(name)} | {what} | {'' if seconds is None else f'{seconds:.1f}'} |")
    return "\n".join([*lines, "", f"Training {took.train_seconds:.0f} s, on GPUs {took.gpu_seconds:.0f} s."])
