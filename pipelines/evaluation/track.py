"""Record a finished run in MLflow: what went in, what came out, and what was decided."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ServiceError, one_line
from pipelines.core.files import digest, read_json, sha256

LOCAL_STORE = "sqlite:///mlflow.db"
LOCAL_ARTIFACTS = "mlruns"
FILES = ("params.yaml", "gates.yaml", "dvc.yaml", "dvc.lock")
# MLflow takes letters, digits and these; a slash would make a folder of a name.
FORBIDDEN = re.compile(r"[^\w.\- :]")
LONGEST_NAME = 250
EVIDENCE = ("decision.json", "report.md", "report.html")


class Record(NamedTuple):
    """One run as MLflow keeps it.

    Attributes:
        params: Hyperparameters and other declared values, by dotted key.
        metrics: Values and interval bounds by `suite.metric`, `suite.metric.lower`, `suite.metric.upper`.
        curve: Training loss by step.
        tags: Verdict, digests, Git commit, hash of dvc.lock.
        files: Path of every file to keep: where it belongs among the artifacts.
    """

    params: dict[str, str]
    metrics: dict[str, float]
    curve: list[tuple[int, float]]
    tags: dict[str, str]
    files: dict[Path, str]


def collect(root: Path, declared: dict[str, Any], commit: str, *, is_dirty: bool) -> Record:
    """Collect what a finished run left in `root`.

    Args:
        root: The project's folder.
        declared: `params.yaml` as plain values.
        commit: Git commit of the working tree, or `unknown`.
        is_dirty: Whether the working tree differs from it.

    Raises:
        ConfigError: There is no decision yet.
    """
    decision = read_json(root / "evaluation/decision.json")
    tags = {
        "gatehouse.verdict": decision["verdict"],
        "gatehouse.input_digest": decision["input_digest"],
        "gatehouse.git_commit": commit,
        "gatehouse.git_dirty": str(is_dirty).lower(),
        "mlflow.source.git.commit": commit,
    }
    lock = root / "dvc.lock"
    if lock.exists():
        tags["gatehouse.dvc_lock_sha256"] = sha256(lock)
    metrics: dict[str, float] = {}
    files = {root / name: "declared" for name in FILES if (root / name).exists()}
    files |= dict.fromkeys(sorted(root.glob("prompts/**/*.prompt.yml")), "declared/prompts")
    files |= {root / "evaluation" / name: "" for name in EVIDENCE if (root / "evaluation" / name).exists()}
    for run_file in sorted(root.glob("evaluation/*/run.json")):
        folder, run = run_file.parent, read_json(run_file)
        suite = run["suite"]
        tags[f"gatehouse.{suite}.model_digest"] = run["model"]["digest"]
        tags[f"gatehouse.{suite}.data_digest"] = run["dataset"]["digest"]
        metrics |= dict(_values(suite, read_json(folder / "metrics.json")["metrics"]))
        files |= {path: suite for path in sorted(folder.iterdir()) if path.is_file()}
    curve: list[tuple[int, float]] = []
    training = root / "models/candidate/training.json"
    if training.exists():
        record = read_json(training)
        curve = [(point["step"], point["loss"]) for point in record["loss"] if point.get("loss") is not None]
        files[training] = "training"
    return Record(dict(_flatten(declared)), metrics, curve, tags, files)


def log(record: Record, experiment: str) -> str:
    """Write a record to the server in `MLFLOW_TRACKING_URI`, or to a SQLite file and a folder here.

    A run that is not recorded whole ends as FAILED, or as KILLED after Ctrl-C.

    Returns:
        The run's id.

    Raises:
        ServiceError: The server cannot be reached or refuses.
    """
    give_up_in_time()
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    where = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
    try:
        client = mlflow.MlflowClient(tracking_uri=where)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = Path(LOCAL_ARTIFACTS).resolve().as_uri() if where == LOCAL_STORE else None
            identity = client.create_experiment(experiment, artifact_location=location)
        else:
            identity = found.experiment_id
        run_id: str = client.create_run(identity, run_name=record.tags["gatehouse.verdict"]).info.run_id
        with _ending(client, run_id):
            _fill(client, run_id, record)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        message = one_line((str(error).splitlines() or [""])[0], 300)
        raise ServiceError(f"MLflow at {where}: {message}; {_cure(error, where)}") from None
    return run_id


def _fill(client: Any, run_id: str, record: Record) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = 0
    metrics = [Metric(_name(name), value, now, 0) for name, value in record.metrics.items()]
    metrics += [Metric("train.loss", loss, now, step) for step, loss in record.curve]
    params = [Param(_name(name), value[:6000]) for name, value in record.params.items()]
    tags = [RunTag(_name(name), value) for name, value in record.tags.items()]
    for start in range(0, max(len(metrics), len(params), 1), 100):  # a batch may carry so many
        part = slice(start, start + 100)
        client.log_batch(run_id, metrics=metrics[part], params=params[part], tags=tags if start == 0 else [])
    for path, folder in record.files.items():
        client.log_artifact(run_id, str(path), folder or None)


@contextlib.contextmanager
def _ending(client: Any, run_id: str) -> Iterator[None]:
    """End a run as what became of it; none stays behind as one that still goes on."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # Where this fails as well, the first error is the one to show.
        with contextlib.suppress(Exception) if status != "FINISHED" else contextlib.nullcontext():
            client.set_terminated(run_id, status)


def _cure(error: Exception, where: str) -> str:
    if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
        return "it refuses what it was sent; `--no-track` leaves it out"
    if where.startswith(("http://", "https://")):
        return "start the server or unset MLFLOW_TRACKING_URI"
    return "see what is wrong there, or leave recording out with `--no-track`"


def _name(name: str) -> str:
    """Return a name that MLflow takes: what it forbids as its code point, what is too long cut, with a digest."""
    plain = FORBIDDEN.sub(lambda found: f"_{ord(found[0]):x}_", name)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 17]}_{digest(name)[:16]}"


def give_up_in_time() -> None:
    """Let MLflow's client say in seconds that a server is down; its defaults retry for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def _values(suite: str, metrics: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, metric in metrics.items():
        for key, suffix in (("value", ""), ("lower", ".lower"), ("upper", ".upper")):
            if metric.get(key) is not None:
                yield f"{suite}.{name}{suffix}", float(metric[key])


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)
