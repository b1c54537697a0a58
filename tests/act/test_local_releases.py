"""Releases in GitHub's workflows on the runner itself: real model processes, a real gateway, real requests."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.act import events
from tests.act.desk import inputs_of
from tests.act.project import REPOSITORY, Project
from tests.act.runner import Run
from tests.act.template import CODE, ROOT
from tests.release.local.laptop import Laptop, build_answering_model
from tests.standin.github import GitHub

pytestmark = pytest.mark.slow
STATE = "k8s/overlays/local/release.yaml"


@pytest.fixture(scope="session")
def runner_base(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """v0.1.0 serves, and v0.2.0 is tagged; the small model and its rows lie in Git, where a real one's are in DVC."""
    folder = tmp_path_factory.mktemp("runner")
    build_answering_model(folder / "answering/candidate", tiny_model)
    laptop = Laptop.make(folder / "laptop", folder / "answering/candidate")
    (laptop.root / "pipelines/code.py").unlink()
    for name in CODE:
        source, place = ROOT / name, laptop.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and name != "prompts":
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy(source, place)
    laptop.commit({".gitignore": ".*.tmp\n__pycache__/\n.gatehouse/\nmlflow.db*\nmlruns/\n"}, "Take up the workflows")
    laptop.tag("v0.1.0")
    code, said = laptop.run("release", "--tag", "v0.1.0", "--target", "local", "--remote", "none")
    assert code == 0, said
    laptop.commit({"docs/guide.md": "# Guide\n"}, "Explain it")
    laptop.tag("v0.2.0")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(laptop.root), str(folder / "origin")], check=True)
    (folder / "remote").mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path, runner_base: Path, github: GitHub) -> Project:
    found = Project(tmp_path / "project", runner_base, github)
    found.machine.variables |= {"GATEHOUSE_TARGET": "local", "GATEHOUSE_REMOTE": ""}
    github.workflows["release.yml"] = inputs_of("release.yml")
    return found


def dispatched(project: Project, workflow: str, inputs: dict[str, str] | None = None) -> Run:
    event = {"ref": "refs/heads/main", "inputs": inputs, "repository": events.repository(REPOSITORY)}
    return project.start(workflow, "workflow_dispatch", event, project.main)


def state(project: Project) -> Any:
    return yaml.safe_load(project.at_main(STATE))


def in_background(act: Callable[[], Run]) -> tuple[threading.Thread, list[Run]]:
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(act()), daemon=True)
    thread.start()
    return thread, found


def of_folder(folder: Path) -> list[psutil.Process]:
    """What runs below a folder."""
    found = []
    for process in psutil.process_iter(["cwd", "status", "cmdline"]):
        cwd, status = process.info["cwd"], process.info["status"]
        if cwd and Path(cwd).is_relative_to(folder) and status != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_a_release_whose_runner_dies_in_mid_canary_is_finished_by_a_reconciling_one(project: Project) -> None:
    release = {"tag": "v0.2.0", "dry-run": "false"}
    thread, found = in_background(lambda: dispatched(project, "release.yml", release))
    until = time.monotonic() + 240
    while state(project)["step"] != "canary" and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.2)
    at = state(project)
    assert (at["step"], at["weight"] > 0) == ("canary", True), found and found[0].log
    for process in of_folder(project.folder):
        if "scripts.release" in process.info["cmdline"]:
            process.kill()
    thread.join(timeout=60)
    (died,) = found
    assert (died.jobs["staging"], died.jobs["production"]) == ("success", "failure")
    assert project.github.releases[0]["draft"], "staging's job has left its page"
    finished = dispatched(project, "reconcile.yml")
    assert finished.conclusion == "success", finished.log
    assert finished.ran == {"look", "finish"}
    assert (state(project)["step"], state(project)["stable"]["tag"]) == ("idle", "v0.2.0")
    (page,) = project.github.releases
    assert not page["draft"]
    assert "gatehouse-v0.2.0-manifest.json" in {one["name"] for one in page["assets"]}
    assert "### The gates at the end" in page["body"]
    assert of_folder(project.folder) == [], "no process outlives its job"


def test_a_candidate_whose_requests_fail_is_taken_back_before_forty_of_them(project: Project) -> None:
    project.machine.environment["GATEHOUSE_FAULT"] = "errors"
    run = dispatched(project, "release.yml", {"tag": "v0.2.0", "dry-run": "false"})
    assert (run.jobs["staging"], run.jobs["production"]) == ("success", "failure"), run.log
    at = state(project)
    assert (at["step"], at["stable"]["tag"], at["held"][0]["tag"]) == ("idle", "v0.1.0", "v0.2.0")
    history = project.at_main(f"k8s/overlays/local/history/{at['held'][0]['rollout_id']}.json")
    (back,) = [one for one in yaml.safe_load(history)["events"] if one["action"] == "rollback"]
    assert sum(epoch["candidate"]["requests"] for epoch in back["counters"]["canary"]["epochs"]) < 40
    (page,) = project.github.releases
    assert (page["name"], page["prerelease"]) == ("v0.2.0 (rolled back)", True)
