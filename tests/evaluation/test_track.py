from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import ServiceError
from pipelines.core.files import write_json, write_text
from pipelines.evaluation.track import Record, collect, log


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_json(tmp_path / "evaluation/decision.json", {"verdict": "pass", "input_digest": "ab" * 32})
    write_json(
        tmp_path / "evaluation/triage/run.json",
        {"suite": "triage", "model": {"digest": "m1"}, "dataset": {"digest": "d1"}},
    )
    metric = {"value": 0.75, "lower": 0.7, "upper": 0.8}
    write_json(tmp_path / "evaluation/triage/metrics.json", {"metrics": {"exact_match": metric}})
    write_json(
        tmp_path / "models/candidate/training.json", {"loss": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]}
    )
    write_text(tmp_path / "prompts/triage.prompt.yml", "name: triage\n")
    write_text(tmp_path / "dvc.lock", "stages: {}\n")
    return tmp_path


def test_a_run_arrives_in_mlflow_with_intervals_curve_lineage_and_files(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(finished)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = collect(Path(), {"train": {"learning_rate": 0.002}}, "c0ffee", is_dirty=True)
    run_id = log(record, "gatehouse")

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished}/mlflow.db")
    run = client.get_run(run_id)
    assert run.data.metrics["triage.exact_match"] == 0.75
    assert run.data.metrics["triage.exact_match.lower"] == 0.7
    assert run.data.params["train.learning_rate"] == "0.002"
    assert run.data.tags["gatehouse.verdict"] == "pass"
    assert run.data.tags["gatehouse.triage.model_digest"] == "m1"
    assert run.data.tags["gatehouse.git_dirty"] == "true"
    assert len(run.data.tags["gatehouse.dvc_lock_sha256"]) == 64
    assert [point.value for point in client.get_metric_history(run_id, "train.loss")] == [2.5, 1.5]
    assert (finished / "mlruns" / run_id / "artifacts/declared/prompts/triage.prompt.yml").exists()
    assert (finished / "mlruns" / run_id / "artifacts/triage/run.json").exists()


def test_a_server_that_is_down_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceError, match=r"MLflow at http://127\.0\.0\.1:9: .*unset MLFLOW_TRACKING_URI"):
        log(Record({}, {}, [], {"gatehouse.verdict": "pass"}, {}), "gatehouse")
