"""One base for all scenarios: main as it was evaluated once, with its DVC remote, records and a seeded run cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.act.changes import GOOD, LONG, Changes
from tests.act.project import REPOSITORY, Project, apply
from tests.act.template import lay_out
from tests.standin.github import GitHub

PEOPLE = {"olivia": "admin", "dora": "write"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every scenario the time that the base takes on a busy machine, whichever is the first to ask for it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with `origin` and `remote` after main.yml ran; workers of one session share it.

    GATEHOUSE_ACT_BASE names one that is kept, for whoever works on scenarios.
    """
    if kept := os.environ.get("GATEHOUSE_ACT_BASE"):
        return Path(kept)
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    folder = shared / "act-base"
    with (shared / "act-base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            start(folder, request.getfixturevalue("tiny_model"))
            (folder / "whole").touch()
    return folder


def start(folder: Path, model: Path) -> None:
    """Make the repository and evaluate its first commit, as main.yml does."""
    dev, origin = folder / "first", folder / "origin"
    dev.mkdir(parents=True)
    (folder / "remote").mkdir()
    lay_out(dev, model)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["-c", "user.name=Dev", "-c", "user.email=dev@example.com", "commit", "--quiet", "--message", "Start"],
        ["clone", "--quiet", "--bare", ".", str(origin)],
    ):
        subprocess.run(["git", *command], cwd=dev, check=True)
    made = folder / "made"
    made.mkdir()
    with GitHub(REPOSITORY) as github:
        project = Project(made, folder, github)
        run = project.push_to_main()
        assert run.conclusion == "success", run.log
        for changes in (GOOD, LONG):  # what most scenarios change, so that they take it from main's run cache
            seed(project, changes)
    for name in ("origin", "remote", "store"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (made / name).rename(folder / name)


def seed(project: Project, changes: Changes) -> None:
    """Compute what a change needs, and leave it in main's remote."""
    apply(project.dev, changes)
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([programs, os.environ["PATH"]]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scripts.reproduce", "--pull", str(project.remote), "--push", str(project.remote)]
    done = subprocess.run(command, cwd=project.dev, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=project.dev, check=True)


@pytest.fixture
def github() -> Iterator[GitHub]:
    """The stand-in of GitHub's API, with one person who owns the code."""
    with GitHub(REPOSITORY) as server:
        server.collaborators |= PEOPLE
        yield server


@pytest.fixture
def project(tmp_path: Path, base: Path, github: GitHub) -> Project:
    """A project of the test's own."""
    return Project(tmp_path, base, github)
