from __future__ import annotations

from pathlib import Path
from typing import Any

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


def only_run(folder: Path) -> Any:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == "gatehouse"]
    [run] = client.search_runs([experiment.experiment_id])
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Its path: MLflow keeps a connection by the text of the address, wherever the process has gone meanwhile.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_names_that_mlflow_forbids_are_written_in_a_form_that_it_takes(here: Path) -> None:
    names = ["inputs.message (raw)", "inputs.a/b", "inputs.a%b", "x" * 400, "y" * 399 + "1", "y" * 399 + "2"]
    verdict = {"gatehouse.verdict": "pass"}
    log(Record(dict.fromkeys(names, "1"), {"a&b.exact_match": 1.0}, [], verdict, {}), "gatehouse")
    data = only_run(here).data
    assert len(data.params) == len(names)
    assert "inputs.message _28_raw_29_" in data.params
    assert data.metrics == {"a_26_b.exact_match": 1.0}


def test_a_store_that_is_no_database_is_one_clear_line(here: Path) -> None:
    write_text(here / "mlflow.db", "no database\n" * 100)
    with pytest.raises(ServiceError, match=r"mlflow\.db: .*file is not a database; see what is wrong .*--no-track"):
        log(Record({}, {}, [], {"gatehouse.verdict": "pass"}, {}), "gatehouse")


def test_a_run_that_cannot_be_recorded_whole_has_failed(here: Path) -> None:
    record = Record({}, {}, [], {"gatehouse.verdict": "pass"}, {here / "gone.txt": ""})
    with pytest.raises(ServiceError, match=r"gone\.txt.*--no-track") as caught:
        log(record, "gatehouse")
    assert "MLFLOW_TRACKING_URI" not in str(caught.value)
    assert only_run(here).info.status == "FAILED"


def test_a_run_whose_recording_is_interrupted_was_killed(here: Path) -> None:
    class Interrupting(dict[Path, str]):
        def items(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log(Record({}, {}, [], {"gatehouse.verdict": "pass"}, Interrupting()), "gatehouse")
    assert only_run(here).info.status == "KILLED"
