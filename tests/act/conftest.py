"""One base for all scenarios: main as it was evaluated once, with its DVC remote, records and a seeded run cache."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.act.project import REPOSITORY, Project
from tests.act.template import lay_out
from tests.standin.github import GitHub


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with `origin` and `remote` after main.yml ran; workers of one session share it."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    folder = shared / "act-base"
    with (shared / "act-base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            start(folder, tiny_model)
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
    for name in ("origin", "remote", "store"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (made / name).rename(folder / name)


@pytest.fixture
def github() -> Iterator[GitHub]:
    """The stand-in of GitHub's API, with one person who owns the code."""
    with GitHub(REPOSITORY) as server:
        server.collaborators |= {"olivia": "admin", "dora": "write"}
        yield server


@pytest.fixture
def project(tmp_path: Path, base: Path, github: GitHub) -> Project:
    """A project of the test's own."""
    return Project(tmp_path, base, github)
