"""Train and evaluate the same recipe with another seed, in a folder beside the repository's own results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.errors import ConfigError, GatehouseError
from pipelines.core.files import write_text
from pipelines.core.params import Params
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.results import Results, read_results

CODE = Path(__file__).parent.parent.parent
SHARED = ("data", "prompts", ".cache")


def trained_with(
    seed: int, params: Params, metrics: Mapping[str, Mapping[str, Metric]], folder: Path, root: Path = Path()
) -> dict[str, Results]:
    """Train with another seed on the same split, and evaluate every suite that asks the candidate.

    Args:
        seed: In place of the declared one; data and its split stay as they are.
        params: The declared parameters.
        metrics: Declared metrics by suite.
        folder: An empty folder for models and rows.
        root: The repository, reproduced.

    Returns:
        The rows by suite; a suite that asks another model is left out, since no seed changes it.

    Raises:
        ConfigError: There is nothing to train, or the repository was not reproduced.
        GatehouseError: Training or evaluation stopped; it has printed why.
    """
    suites = [name for name, suite in params.suites.items() if suite.model == "candidate"]
    if not suites:
        raise ConfigError("params.yaml: no suite asks the candidate, so that seeds compare nothing; leave --seeds out")
    declared: Any = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    write_text(folder / "params.yaml", yaml.safe_dump({**declared, "seed": seed}, sort_keys=False))
    for name in SHARED:
        (root / name).mkdir(exist_ok=True)
        (folder / name).symlink_to((root / name).resolve(), target_is_directory=True)
    (folder / "models").mkdir()
    for name in params.models:
        (folder / "models" / name).symlink_to((root / "models" / name).resolve(), target_is_directory=True)
    _run(folder, "train")
    for name in suites:
        _run(folder, "evaluate", "--suite", name)
    shutil.rmtree(folder / "models/candidate")  # nobody asks it again, and seeds add up
    return {name: read_results(folder / "evaluation" / name, metrics[name]) for name in suites}


def _run(folder: Path, script: str, *arguments: str) -> None:
    # The outputs of a workflow's step are not those of a script inside it.
    environment = {key: value for key, value in os.environ.items() if key not in ("GITHUB_OUTPUT", "GITHUB_ACTIONS")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CODE), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", f"scripts.{script}", *arguments]
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if code:
        error = GatehouseError(f"`{script}` stopped the run; its message is above")
        error.exit_code = code if code > 0 else 1
        raise error
