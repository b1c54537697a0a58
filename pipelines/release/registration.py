"""Register the candidate in MLflow's model registry, with everything that leads back to it, once per decision."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core import records
from pipelines.core.commit import head
from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.files import read_json
from pipelines.core.params import Params
from pipelines.evaluation.track import LOCAL_STORE, Record, collect, give_up_in_time, log

CANDIDATE = Path("models/candidate")
DIGEST = "gatehouse.input_digest"
LOCK = "gatehouse.dvc_lock_sha256"


class Registered(NamedTuple):
    """What the registry knows.

    Attributes:
        run_id: The MLflow run.
        version: Number of the version.
        is_new: Whether this call made it.
    """

    run_id: str
    version: str
    is_new: bool


def register(params: Params, root: Path = Path(), *, git_remote: str | None = "origin") -> Registered:
    """Record the run and add a version of `track.model_name`; a version of the same input digest is kept.

    Args:
        params: The declared parameters.
        root: The repository, decided.
        git_remote: Where the records of decisions lie: an approval stands there.

    Raises:
        ConfigError: There is no decision yet, or no `dvc.lock`.
        ServiceError: MLflow cannot be reached or refuses.
    """
    commit, is_dirty = head(root)
    record = collect(root, params.model_dump(mode="json", by_alias=True), commit, is_dirty=is_dirty)
    if LOCK not in record.tags:
        raise ConfigError("dvc.lock: no such file, so no weights to register; run `python -m scripts.reproduce`")
    record.tags.update(_lineage(root, record, git_remote))
    record.files.update(_candidate(root))
    where = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
    give_up_in_time()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
        if found := _version_of(client, params.track.model_name, record.tags[DIGEST]):
            return Registered(str(found.run_id), str(found.version), is_new=False)
        run_id = log(record, params.track.experiment)
        return _add(client, params.track.model_name, run_id, record)
    except (MlflowException, OSError) as error:
        cause = one_line(str(error).splitlines()[0], 300)
        raise ServiceError(f"MLflow at {where}: {cause}; start the server or unset MLFLOW_TRACKING_URI") from None


def _lineage(root: Path, record: Record, git_remote: str | None) -> dict[str, str]:
    """Return the tags that a version has beyond those of its run: who approved, and each prompt's digest."""
    tags = {}
    for run_file in sorted(root.glob("evaluation/*/run.json")):
        run = read_json(run_file)
        if isinstance(run.get("prompt"), dict):
            tags[f"gatehouse.{run['suite']}.prompt_digest"] = str(run["prompt"].get("digest", ""))
    kept = records.read(record.tags[DIGEST], root, git_remote)
    approval: Any = read_json(root / "evaluation/decision.json").get("approval")
    if approval is None and kept is not None and kept.approval is not None:
        approval = kept.approval.model_dump()
    if kept is not None and (number := kept.pull_request or kept.replaces):
        tags["gatehouse.pull_request"] = str(number)
    tags["gatehouse.approval"] = json.dumps(approval, ensure_ascii=False, sort_keys=True) if approval else "none"
    return tags


def _candidate(root: Path) -> dict[Path, str]:
    """Return the candidate's files that are here; where only a verdict's evidence is, DVC holds the weights."""
    return {path: "candidate" for path in sorted((root / CANDIDATE).glob("*")) if path.is_file()}


def _version_of(client: Any, name: str, digest: str) -> Any:
    """Return the first version that was made of the same inputs, or None."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST}` = '{digest}'")
    return min(found, key=lambda one: int(one.version), default=None)


def _add(client: Any, name: str, run_id: str, record: Record) -> Registered:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    folder = "candidate" if "candidate" in record.files.values() else "declared"
    source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{folder}"
    tags = {key: value for key, value in record.tags.items() if key.startswith("gatehouse.")}
    made = client.create_model_version(name, source, run_id, tags=tags)
    return Registered(run_id, str(made.version), is_new=True)
