"""A project whose v1.0.0 serves and whose v1.1.0 is tagged, and what GitHub starts when somebody releases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.act import events
from tests.act.project import REPOSITORY, Project
from tests.act.runner import Run
from tests.act.template import CODE, ROOT
from tests.release.scripted import FILE
from tests.release.site import Site, git
from tests.standin.github import GitHub

TARGET = "tests.release.scripted:build"
TARGET_FILES = ("tests/release/scripted.py",)  # what a job finds beside the actions


def lay_out(folder: Path) -> None:
    """Make the base: v1.0.0 released in the scripted world, and this repository's own workflows."""
    site = Site.make(folder)
    for name in CODE:
        source, place = ROOT / name, site.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, place)
    for path in TARGET_FILES:
        (site.root / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, site.root / path)
    for path in ("tests/__init__.py", "tests/release/__init__.py"):
        (site.root / path).touch()
    site.commit({}, "Take up the workflows")
    site.tag("v1.0.0")
    assert site.release("v1.0.0").result == "released"
    (folder / "remote").mkdir()


class Desk:
    """The project as its people and GitHub see it.

    Attributes:
        project: Runs workflows.
        site: What a person does, and what Git and the scripted world say.
    """

    def __init__(self, folder: Path, base: Path, github: GitHub) -> None:
        self.project, self.github = Project(folder, base, github), github
        shutil.copy(base / "world.json", folder / "world.json")
        git(folder, "clone", "--quiet", str(folder / "origin"), "clone")
        self.site = Site(folder)
        self.project.machine.environment |= {FILE: str(self.site.file.path)}
        self.project.machine.variables |= {"GATEHOUSE_TARGET": TARGET}
        github.workflows["release.yml"] = ["tag", "dry-run"]

    def pushed(self, tag: str) -> Run:
        """Execute what a pushed tag starts: its own commit's workflow."""
        commit = git(self.site.origin, "rev-parse", f"{tag}^{{commit}}")
        return self._start("release.yml", "push", {"ref": f"refs/tags/{tag}", "after": commit}, commit)

    def dispatched(self, workflow: str, **inputs: str) -> Run:
        """Execute main's workflow as somebody starts it by hand, or another workflow does."""
        names = {name.replace("_", "-"): value for name, value in inputs.items()}
        event = {"ref": "refs/heads/main", "inputs": names or None, "workflow": f".github/workflows/{workflow}"}
        return self._start(workflow, "workflow_dispatch", event, self.project.main)

    def handed_over(self) -> Run:
        """Execute the run that the last one has started."""
        (started,) = self.github.dispatched
        self.github.dispatched.clear()
        assert started["ref"] == "main"
        named = {name.replace("-", "_"): value for name, value in started["inputs"].items()}
        return self.dispatched(started["workflow"], **named)

    def reconciled(self, event: str = "schedule") -> Run:
        """Execute reconcile.yml as its schedule, or another event, starts it."""
        about: dict[str, Any] = {"schedule": "3-59/10 * * * *"} if event == "schedule" else {}
        return self._start("reconcile.yml", event, about, self.project.main)

    def _start(self, workflow: str, name: str, about: dict[str, Any], commit: str) -> Run:
        known = {"repository": events.repository(REPOSITORY), "sender": {"login": "rita", "type": "User"}}
        return self.project.start(workflow, name, {**known, **about}, commit)

    def page(self, tag: str) -> dict[str, Any]:
        """Return a release's page."""
        (found,) = [one for one in self.github.releases if one["tag_name"] == tag]
        return found

    def pass_time(self, seconds: float) -> None:
        """Let the scripted clock go on, which no job waits for."""
        self.site.file.change(lambda world: world.update(now=world["now"] + seconds))


def inputs_of(workflow: str) -> list[str]:
    """Return what a workflow may be given by hand."""
    declared = yaml.load((ROOT / ".github/workflows" / workflow).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return list(declared["on"]["workflow_dispatch"]["inputs"])
