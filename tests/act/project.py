"""A project on a GitHub of its own: a bare origin, the stand-in API, and act for every workflow an event starts."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.files import read_json
from tests.act import events
from tests.act.runner import Machine, Run
from tests.act.template import OWNER
from tests.standin.github import GitHub
from tests.tool_cache import adopt

REPOSITORY = "halden/desk"
MARKER = "<!-- gatehouse:verdict -->"
Change = str | None | Callable[[str], str]
"""New text of a file, None to delete it, or a function from the old text to the new."""


@dataclass
class Outcome:
    """What one push led to: the untrusted run, and what main's verdict.yml made of it.

    Attributes:
        announced: verdict.yml on `requested`.
        computed: pull-request.yml.
        judged: verdict.yml on `completed`.
    """

    announced: Run
    computed: Run
    judged: Run

    @property
    def log(self) -> str:
        """What all three printed."""
        return "\n".join(f"--- {name}\n{run.log}" for name, run in vars(self).items())


class Project:
    """A repository with its origin, API, runner and DVC remote.

    Args:
        folder: An empty folder.
        base: Folder with `origin`, a bare repository, and `remote`, main's DVC remote, that are copied.
        github: The stand-in API.
    """

    def __init__(self, folder: Path, base: Path, github: GitHub) -> None:
        self.folder, self.github = folder, github
        shutil.copytree(base / "origin", folder / "origin", symlinks=True)
        shutil.copytree(base / "remote", folder / "remote")
        if (base / "store").exists():
            shutil.copytree(base / "store", folder / "store")
        self.remote = folder / "remote"
        self.numbers = itertools.count(1)
        self.runs = itertools.count(1000)
        self.dev = folder / "dev"
        self._git(folder, "clone", "--quiet", str(folder / "origin"), str(self.dev))
        self.machine = Machine(folder / "home", folder / "store", folder / "origin")
        self.machine.environment = {
            "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY, "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "PATH": f"{self._programs()}:/usr/local/bin:/usr/bin:/bin",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }  # fmt: skip
        self.machine.secrets = {"GITHUB_TOKEN": github.token}
        self.machine.variables = {"GATEHOUSE_REMOTE": str(self.remote)}
        adopt(folder / "home/.cache/act/tool_cache")

    def _programs(self) -> Path:
        """Make a folder with `python3`, which is the Python of this environment, but outside of it."""
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "python3").symlink_to(Path(sys.executable).resolve())
        return programs

    def _git(self, where: Path, *arguments: str) -> str:
        who = {
            "GIT_AUTHOR_NAME": "Dev", "GIT_AUTHOR_EMAIL": "dev@example.com", "GIT_COMMITTER_NAME": "Dev",
            "GIT_COMMITTER_EMAIL": "dev@example.com", "HOME": str(self.folder), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run(["git", *arguments], cwd=where, env=who, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    @property
    def main(self) -> str:
        """The commit that main is at."""
        return self._git(self.folder / "origin", "rev-parse", "refs/heads/main")

    def open(self, changes: Mapping[str, Change], **about: Any) -> Pull:
        """Push a branch with the changes and open a pull request; `about` is what `Pull` takes."""
        number = next(self.numbers)
        pull = Pull(self, number, f"change-{number}", **about)
        self._git(self.dev, "checkout", "--quiet", "-B", pull.branch, "origin/main")
        pull.push(changes)
        return pull

    def start(self, workflow: str, name: str, event: Mapping[str, Any], commit: str, number: int | None = None) -> Run:
        """Execute a workflow as of `commit` in a clean clone."""
        run = number or next(self.runs)
        clone = self.folder / f"clones/{workflow.removesuffix('.yml')}-{run}-{event.get('action', 'push')}"
        self._git(self.folder, "clone", "--quiet", "--no-checkout", str(self.folder / "origin"), str(clone))
        self._git(clone, "fetch", "--quiet", "origin", "+refs/*:refs/origin/*")
        branch = ["-B", "main"] if commit == self.main else ["--detach"]
        self._git(clone, "checkout", "--quiet", *branch, commit)
        return self.machine.run(clone, workflow, name, event, number=run)

    def verdict(self, event: Mapping[str, Any]) -> Run:
        """Execute main's verdict.yml for a `workflow_run` event."""
        return self.start("verdict.yml", "workflow_run", event, self.main)

    def push_to_main(self) -> Run:
        """Execute main.yml for what main is at."""
        return self.start("main.yml", "push", events.push(REPOSITORY, self.main), self.main)

    def record(self, path: str) -> str:
        """Return a file of the branch that holds the records."""
        return self._git(self.folder / "origin", "show", f"refs/heads/gatehouse:{path}")

    @contextmanager
    def variables(self, **values: str) -> Iterator[None]:
        """Set variables of the repository for a while."""
        before = dict(self.machine.variables)
        self.machine.variables |= values
        try:
            yield
        finally:
            self.machine.variables = before


@dataclass
class Pull:
    """A pull request.

    Attributes:
        project: Where it is open.
        number: Its number.
        branch: Its branch, here or in the fork.
        author: Who opened it.
        fork: `owner/name` of the fork it comes from.
        draft: Whether it is a draft.
        title: Its title.
    """

    project: Project
    number: int
    branch: str
    author: str = "dora"
    fork: str | None = None
    draft: bool = False
    title: str = "A change"
    head: str = ""
    merge: str = ""
    last_run: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def push(self, changes: Mapping[str, Change]) -> str:
        """Commit the changes on top of the branch, as a push to it."""
        project, dev = self.project, self.project.dev
        if self.head:
            project._git(dev, "checkout", "--quiet", self.branch)
        for path, change in changes.items():
            place = dev / path
            if change is None:
                place.unlink()
                continue
            text = change(place.read_text(encoding="utf-8")) if callable(change) else change
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        project._git(dev, "add", "--all", "--force", *changes)
        project._git(dev, "commit", "--quiet", "--allow-empty", "--message", self.title)
        self.head = project._git(dev, "rev-parse", "HEAD")
        base = project.main
        project._git(dev, "checkout", "--quiet", "--detach", base)
        project._git(dev, "merge", "--quiet", "--no-ff", "--message", f"Merge {self.head} into {base}", self.head)
        self.merge = project._git(dev, "rev-parse", "HEAD")
        refs = [f"{self.head}:refs/pull/{self.number}/head", f"{self.merge}:refs/pull/{self.number}/merge"]
        refs += [] if self.fork else [f"{self.head}:refs/heads/{self.branch}"]
        project._git(dev, "push", "--quiet", "--force", "origin", *refs)
        known = project.github.pulls.get(self.number)
        if known:
            project.github.push(self.number, self.head)
        else:
            project.github.pull(self.number, head=self.head, branch=self.branch, base=base, author=self.author,
                                fork=self.fork, draft=self.draft, title=self.title)  # fmt: skip
        return self.head

    def run(self) -> Outcome:
        """Run what GitHub would: verdict.yml when the run is requested, the run itself, verdict.yml at its end."""
        announced = self.announce()
        computed = self.compute()
        return Outcome(announced, computed, self.judge(computed.conclusion))

    def announce(self) -> Run:
        """Take the number of a new run, and let verdict.yml hear that it was requested."""
        self.last_run = next(self.project.runs)
        return self.project.verdict(self._workflow_run("requested", None))

    def compute(self) -> Run:
        """Execute pull-request.yml on the merge commit, as the pull request has it."""
        action = "synchronize" if self.last_run > 1000 else "opened"
        event = events.pull_request(self, action)
        run = self.project.start("pull-request.yml", "pull_request", event, self.merge, self.last_run)
        self.project.github.runs.insert(0, self._workflow_run("completed", run.conclusion)["workflow_run"])
        return run

    def judge(self, conclusion: str, **about: Any) -> Run:
        """Let verdict.yml hear that the last run was completed."""
        return self.project.verdict(self._workflow_run("completed", conclusion, **about))

    def approve(self, user: str = OWNER, state: str = "APPROVED", commit: str = "") -> Run:
        """Review the head, and run what that starts: review.yml, and verdict.yml on its end."""
        self.project.github.review(self.number, user, state, commit or self.head)
        number = next(self.project.runs)
        event = events.pull_request(self, "submitted", user)
        review = self.project.start("review.yml", "pull_request_review", event, self.merge, number)
        about = {"number": number, "event": "pull_request_review", "workflow": "review"}
        return self.project.verdict(self._workflow_run("completed", review.conclusion, **about))

    def _workflow_run(self, action: str, conclusion: str | None, **about: Any) -> dict[str, Any]:
        return events.workflow_run(self, action, conclusion, **({"number": self.last_run} | about))

    @property
    def comments(self) -> list[str]:
        """The bodies of the comments that carry the marker."""
        found = self.project.github.comments_of(self.number)
        return [one["body"] for one in found if MARKER in one["body"]]

    @property
    def comment(self) -> str:
        """The body of the one comment."""
        (only,) = self.comments
        return only

    @property
    def status(self) -> str | None:
        """State of the required status of the head."""
        return self.project.github.status(self.head)

    @property
    def description(self) -> str:
        """Description of the required status of the head."""
        return str(self.project.github.statuses[self.head][-1]["description"])


def handed_over(project: Project, run: Run) -> Any:
    """Return what became of each stage in a run of pull-request.yml."""
    return read_json(project.folder / f"store/artifacts/{run.number}/hand-over/.gatehouse/stages.json")["stages"]
