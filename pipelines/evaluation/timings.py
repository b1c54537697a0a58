"""Times kept for the same model, prompt, code and machine, so that changed data alone measures nothing again."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest, read_json, sha256
from pipelines.core.folders import replacing_folder
from pipelines.core.machine import describe
from pipelines.core.params import Params
from pipelines.evaluation.catalogue import LATENCY_SUITE
from pipelines.evaluation.latency import measure
from pipelines.evaluation.progress import Progress
from pipelines.evaluation.record import Outcome
from pipelines.evaluation.suite import CACHE, Plan, read_plan
from pipelines.llm.identity import engine_digest

# What times the requests, beside the engine.
CODE = ("latency.py", "suite.py")
PARTS = ("rows.parquet", "metrics.json", "run.json")


def measure_once(
    params: Params, *, root: Path = Path(), is_fresh: bool = False, on_progress: Progress | None = None
) -> Outcome:
    """Time the declared requests, unless they were timed before for the same model on the same kind of machine.

    Times taken by other code of the engine, or with other libraries, are measured anew. An endpoint is timed each time:
    its declaration does not say which model or machine answers there.

    Args:
        params: The declared parameters.
        root: Folder of the project.
        is_fresh: Measure in any case.
        on_progress: Told how far it is.

    Raises:
        ConfigError: Something declared is missing or does not fit.
        ServiceError: Not one request was answered.
    """
    plan = read_plan(params.latency.suite, params, root)
    kept = root / CACHE / "latency" / _key(plan, params)
    folder = root / "evaluation" / LATENCY_SUITE
    is_local = plan.card.kind != "endpoint"
    if is_local and not is_fresh and (found := _read(kept)):
        _copy(kept, folder)
        when = found.run["created"][:10]
        return found._replace(notes=(f"taken from {when}: same model, prompt and kind of machine",))
    outcome = measure(params, root=root, on_progress=on_progress)
    if is_local:
        _copy(folder, kept)
    return outcome


def _key(plan: Plan, params: Params) -> str:
    return digest(
        {
            "model": plan.card.digest,
            "prompt": sha256(plan.root / plan.suite.prompt),
            "engine": params.engine.model_dump(),
            "code": [engine_digest(), *(sha256(Path(__file__).with_name(name)) for name in CODE)],
            "latency": params.latency.model_dump(),
            "price": plan.price.model_dump(),
            "machine": describe()._asdict(),
        }
    )


def _read(kept: Path) -> Outcome | None:
    """Return what was kept, or None; a broken entry counts as none."""
    try:
        if not all((kept / part).is_file() for part in PARTS):
            return None
        return Outcome(read_json(kept / "metrics.json"), read_json(kept / "run.json"), ())
    except ConfigError:
        return None


def _copy(source: Path, target: Path) -> None:
    with replacing_folder(target) as new:
        for part in PARTS:
            shutil.copyfile(source / part, new / part)
