"""The whole job in a repository of its own: real Git, DVC and MLflow, real training of a two-layer model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.files import sha256

ROOT = Path(__file__).parent.parent
CODE = (
    "pipelines",
    "scripts",
    "prompts",
    "dvc.yaml",
    "gates.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
)
pytestmark = pytest.mark.slow


class Repository:
    """A clone in small: this code, a tiny base model."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        for name in (*CODE, "schemas"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, target)
        shutil.copytree(model, folder / "vendor/tiny")
        shutil.copytree(
            ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("prepared", "validation", "parts")
        )
        weights = {"model.safetensors": sha256(model / "model.safetensors")}
        price = {"prompt_usd": 1.0, "completion_usd": 2.0}
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["models"]["base"] = {
            "source": "directory", "path": "vendor/tiny", "sha256": weights, "license": "Apache-2.0", "price": price,
        }  # fmt: skip
        params["train"]["epochs"] = 0.2
        params["engine"]["device"] = "cpu"
        self.write_params(params)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@example.com")
        self.commit("Start")

    def write_params(self, params: Any) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def change_params(self, *keys: str, to: Any) -> None:
        params = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        place = params
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        self.write_params(params)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = self.folder.parent / "home"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(home), "PYTHONPATH": ""}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as activated
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def stale(self) -> set[str]:
        """Return the names of the stages that DVC would run, `machine` aside, which always runs."""
        done = self.run("dvc", "status", "--json")
        assert done.returncode == 0, done.stderr
        return {name for name in json.loads(done.stdout) if name != "machine"}

    def decision(self) -> Any:
        return json.loads((self.folder / "evaluation/decision.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Repository:
    return Repository(tmp_path_factory.mktemp("clone") / "project", tiny_model)


@pytest.fixture(scope="module")
def first(repository: Repository) -> subprocess.CompletedProcess[str]:
    return repository.run("scripts.run")


def test_the_first_run_ends_with_a_verdict_and_two_reports(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    # A random model answers nothing well, so its gates must say no.
    assert first.returncode == 3, first.stdout + first.stderr
    assert first.stdout.splitlines()[-3:] == ["verdict: fail", "evaluation/report.md", "evaluation/report.html"]
    assert repository.decision()["baseline"]["state"] == "none"
    assert "Traceback" not in first.stdout + first.stderr
    assert (repository.folder / "evaluation/report.html").stat().st_size > 10_000
    assert (repository.folder / "mlflow.db").exists()


def test_a_run_that_cannot_be_recorded_still_shows_its_verdict(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    database = repository.folder / "mlflow.db"
    kept = database.read_bytes()
    database.write_text("no database\n" * 100, encoding="utf-8")
    try:
        result = repository.run("scripts.run")
    finally:
        database.write_bytes(kept)
    assert result.returncode == 5, result.stdout + result.stderr
    assert result.stdout.splitlines()[-3:] == ["verdict: fail", "evaluation/report.md", "evaluation/report.html"]
    assert "`track` stopped the run" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_second_run_computes_nothing(repository: Repository, first: subprocess.CompletedProcess[str]) -> None:
    before = (repository.folder / "evaluation/triage/rows.parquet").read_bytes()
    again = repository.run("scripts.run")
    assert again.returncode == 3, again.stderr
    assert "\n0 of 10 stages computed" in again.stdout
    assert (repository.folder / "evaluation/triage/rows.parquet").read_bytes() == before


def test_a_prompt_that_no_training_renders_trains_nothing(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    path = repository.folder / "prompts/reply.prompt.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("warm, plain", "brief, warm"), encoding="utf-8")
    try:
        stale = repository.stale()
    finally:
        path.write_text(text, encoding="utf-8")
    assert "evaluate@reply" in stale
    assert not {"train", "evaluate@triage", "latency", "prepare@triage", "fetch@base"} & stale


def test_another_version_of_a_library_trains_and_measures_anew(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    path = repository.folder / ".gatehouse/libraries.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(text) | {"torch": "9.9.9"}, indent=2) + "\n", encoding="utf-8")
    try:
        assert repository.stale() == {"train", "evaluate@triage", "evaluate@reply", "latency"}
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_prompt_that_training_renders_trains(repository: Repository, first: subprocess.CompletedProcess[str]) -> None:
    path = repository.folder / "prompts/triage.prompt.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Label the", "Classify the"), encoding="utf-8")
    try:
        assert {"train", "evaluate@triage"} <= repository.stale()
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "value", "is_trained"),
    [
        (("candidate", "price", "prompt_usd"), 3.0, False),
        (("track", "experiment"), "other", False),
        (("train", "learning_rate"), 0.001, True),
    ],
)
def test_only_what_training_reads_trains(
    repository: Repository, first: subprocess.CompletedProcess[str], keys: tuple[str, ...], value: Any, is_trained: bool
) -> None:
    path = repository.folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    try:
        params = yaml.safe_load(text)
        params.setdefault(keys[0], {})
        repository.write_params(params)
        repository.change_params(*keys, to=value)
        assert ("train" in repository.stale()) == is_trained
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("module", ["evaluation/report.py", "evaluation/gate.py", "evaluation/baseline.py"])
def test_code_of_gate_and_report_makes_no_stage_stale(
    repository: Repository, first: subprocess.CompletedProcess[str], module: str
) -> None:
    path = repository.folder / "pipelines" / module
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n# changed\n", encoding="utf-8")
    try:
        assert repository.stale() == set()
    finally:
        path.write_text(text, encoding="utf-8")


def test_the_last_release_becomes_the_baseline_and_rows_are_compared_in_pairs(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    repository.commit("Release")
    repository.git("tag", "--annotate", "v0.1.0", "--message", "First")
    repository.change_params("train", "learning_rate", to=0.0005)
    done = repository.run("scripts.run")
    assert done.returncode == 3, done.stderr
    decision = repository.decision()
    assert decision["baseline"]["state"] == "fetched", decision["baseline"]
    assert decision["baseline"]["ref"] == "v0.1.0"
    compared = [check for gate in decision["gates"] for check in gate["checks"] if check["rule"] == "max_regression"]
    assert compared
    assert all(check["gain_lower"] <= check["gain"] <= check["gain_upper"] for check in compared)
    report = (repository.folder / "evaluation/report.md").read_text(encoding="utf-8")
    assert "learning_rate" in report


def test_an_experiment_overrides_a_parameter(repository: Repository, first: subprocess.CompletedProcess[str]) -> None:
    done = repository.run("dvc", "exp", "run", "--set-param", "train.epochs=0.1", "--name", "half", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = repository.run("dvc", "exp", "show", "--csv", "--no-pager")
    assert "half" in shown.stdout
    assert "train.epochs" in shown.stdout


def test_a_broken_row_stops_the_run_with_its_line_and_keeps_the_last_results(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    path = repository.folder / "data/reply.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-30], encoding="utf-8")
    try:
        done = repository.run("scripts.run")
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == 2
    assert "data/reply.jsonl:80" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (repository.folder / "evaluation/report.html").exists()


def test_a_second_run_at_the_same_time_is_refused_in_one_line(
    repository: Repository, first: subprocess.CompletedProcess[str]
) -> None:
    from pipelines.core.files import only_one

    with only_one("run", root=repository.folder):
        done = repository.run("scripts.run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: another `run` (process ")
