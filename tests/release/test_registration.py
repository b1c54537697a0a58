"""Register a decided candidate in a real MLflow registry: one version per decision, with what leads back to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
import pytest

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import sha256, write_json
from pipelines.core.params import Params, load_params
from pipelines.release.registration import register

EXAMPLE = Path(__file__).parent.parent / "example/params.yaml"
DIGEST = "ab" * 32
APPROVAL = {"user": "olivia", "at": "2026-11-20T10:00:00Z", "why": "the new tone is wanted"}


@pytest.fixture
def params() -> Params:
    return load_params(EXAMPLE)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A decided repository as the working folder, and the address of its registry."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    where = f"sqlite:///{tmp_path}/registry.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
    decide(DIGEST)
    return where


def decide(digest: str) -> None:
    Path("evaluation").mkdir(exist_ok=True)
    write_json(Path("evaluation/decision.json"), {"verdict": "pass", "input_digest": digest, "approval": APPROVAL})


def test_the_same_decision_is_one_version_and_another_is_the_next(store: str, params: Params) -> None:
    first, again = register(params, git_remote=None), register(params, git_remote=None)
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.run_id, again.version) == (first.run_id, first.version) == (first.run_id, "1")
    decide("cd" * 32)
    assert register(params, git_remote=None).version == "2"


def test_a_version_names_its_inputs_its_lock_its_verdict_and_who_approved(store: str, params: Params) -> None:
    made = register(params, git_remote=None)
    client = mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
    tags = client.get_model_version(params.track.model_name, made.version).tags
    assert tags["gatehouse.input_digest"] == DIGEST
    assert tags["gatehouse.dvc_lock_sha256"] == sha256(Path("dvc.lock"))
    assert tags["gatehouse.verdict"] == "pass"
    assert '"user": "olivia"' in tags["gatehouse.approval"]


def test_without_a_lock_there_are_no_weights_to_register(store: str, params: Params) -> None:
    Path("dvc.lock").unlink()
    with pytest.raises(ConfigError, match=r"^dvc\.lock: no such file"):
        register(params, git_remote=None)


def test_a_registry_that_cannot_be_opened_is_one_line(
    store: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceError, match=r"^MLflow at http://127\.0\.0\.1:9: ") as caught:
        register(params, git_remote=None)
    assert "\n" not in str(caught.value)
