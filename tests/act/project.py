"""A project on a GitHub of its own: a bare origin, the stand-in API, and act for every workflow an event starts."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.files import read_json
from tests.act import events
from tests.act.runner import Machine, Run
from tests.act.template import OWNER
from tests.standin.github import GitHub
from tests.tool_cache import adopt

REPOSITORY = "halden/desk"
BOT = "gatehouse-release[bot]"  # the App whose status counts: the ruleset pins it
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
        if (base / "store/caches").exists():
            shutil.copytree(base / "store/caches", folder / "store/caches")
        self.remote = folder / "remote"
        self.numbers = itertools.count(1)
        self.runs = itertools.count(1000)
        self.dev = folder / "dev"
        self._git(folder, "clone", "--quiet", str(folder / "origin"), str(self.dev))
        self.machine = Machine(folder / "home", folder / "store", folder / "origin")
        self.machine.environment = {
            "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY, "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "PATH": f"{self._programs()}:/usr/local/bin:/usr/bin:/bin",
            "GATEHOUSE_APP_TOKEN": "app-token",
        }  # fmt: skip
        writes = dict.fromkeys(("contents", "pull_requests", "statuses"), "write")
        github.tokens["app-token"] = {"login": BOT, "permissions": writes}
        # What only main's environments hold; no pull request's run is given them.
        self.secrets = {"GATEHOUSE_APP_KEY": "key", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        self.machine.variables = {"GATEHOUSE_REMOTE": str(self.remote), "GATEHOUSE_APP_ID": "4242"}
        adopt(folder / "home/.cache/act/tool_cache", self.dev)
        self.before: set[str] = set()
        self.before = set(self.records()) if self._has_records() else set()

    def _has_records(self) -> bool:
        return bool(self._git(self.folder / "origin", "for-each-ref", "refs/heads/gatehouse"))

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
        is_fork = event.get("pull_request", {}).get("head", {}).get("repo", {}).get("fork", False)
        token = self._token(clone / ".github/workflows" / workflow, is_fork=is_fork)
        is_trusted = not name.startswith("pull_request") and workflow != "approve.yml"
        secrets = {"GITHUB_TOKEN": token, **(self.secrets if is_trusted else {})}
        return self.machine.run(clone, workflow, name, event, number=run, secrets=secrets)

    def _token(self, workflow: Path, *, is_fork: bool) -> str:
        """Make the run's token: it may do what the workflow's own jobs ask for, on a fork's behalf only read."""
        jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
        asked = {key.replace("-", "_"): what for job in jobs for key, what in (job.get("permissions") or {}).items()}
        allowed = {} if is_fork else {key: what for key, what in asked.items() if what == "write"}
        name = f"token-{len(self.github.tokens)}"
        self.github.tokens[name] = {"login": "github-actions[bot]", "permissions": allowed}
        return name

    def verdict(self, event: Mapping[str, Any]) -> Run:
        """Execute main's verdict.yml for a `workflow_run` event."""
        return self.start("verdict.yml", "workflow_run", event, self.main)

    def push_to_main(self) -> Run:
        """Execute main.yml for what main is at."""
        return self.start("main.yml", "push", events.push(REPOSITORY, self.main), self.main)

    def record(self, path: str) -> str:
        """Return a file of the branch that holds the records."""
        return self._git(self.folder / "origin", "show", f"refs/heads/gatehouse:{path}")

    def at_main(self, path: str) -> str:
        """Return a file as main has it."""
        return self._git(self.folder / "origin", "show", f"refs/heads/main:{path}") + "\n"

    def merge(self, pull: Pull) -> str:
        """Squash a pull request into main, as GitHub does: one commit with the tree of its merge."""
        tree, before = self._git(self.dev, "rev-parse", f"{pull.merge}^{{tree}}"), self.main
        commit = self._git(self.dev, "commit-tree", tree, "-p", before, "-m", f"{pull.title} (#{pull.number})")
        self._git(self.dev, "push", "--quiet", "origin", f"{commit}:refs/heads/main")
        self.github.pulls[pull.number] |= {"state": "closed", "merged": True}
        return commit

    def records(self) -> dict[str, Any]:
        """Return the records that were written since this project began, by path."""
        paths = self._git(self.folder / "origin", "ls-tree", "-r", "--name-only", "refs/heads/gatehouse").splitlines()
        return {path: json.loads(self.record(path)) for path in paths if path not in self.before}

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
        apply(dev, changes)
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
        event = self._workflow_run("requested", None)
        self._list(event["workflow_run"])
        return self.project.verdict(event)

    def compute(self) -> Run:
        """Execute pull-request.yml on the merge commit, as the pull request has it."""
        action = "synchronize" if self.last_run > 1000 else "opened"
        event = events.pull_request(self, action)
        run = self.project.start("pull-request.yml", "pull_request", event, self.merge, self.last_run)
        self._list(self._workflow_run("completed", run.conclusion)["workflow_run"])
        return run

    def _list(self, run: dict[str, Any]) -> None:
        """Let GitHub know a run, in place of what it was before."""
        others = [one for one in self.project.github.runs if one["id"] != run["id"]]
        self.project.github.runs = [run, *others]

    def compute_as(self, number: int) -> Run:
        """Execute pull-request.yml as a run of this number."""
        self.last_run = number
        return self.compute()

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

    def let_go_on(self, user: str = OWNER, state: str = "approved") -> Run:
        """Start approve.yml on the branch, have a required reviewer decide, and run what its end starts."""
        number = next(self.project.runs)
        run = self.project.start("approve.yml", "workflow_dispatch", events.dispatch(self), self.head, number)
        about = {"number": number, "event": "workflow_dispatch", "workflow": "approve"}
        woken = self._workflow_run("completed", run.conclusion, **about)
        self._list(woken["workflow_run"])
        self.project.github.approval(number, user, state)
        self.project.github.job(number, "Wait for a required reviewer", run.conclusion)
        return self.project.verdict(woken)

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
        """State of the required status of the head: what the release bot's App has said of it last."""
        found = self._statuses()
        return found[-1]["state"] if found else None

    @property
    def description(self) -> str:
        """Description of the required status of the head."""
        return str(self._statuses()[-1]["description"])

    def _statuses(self) -> list[dict[str, Any]]:
        found = self.project.github.statuses.get(self.head, [])
        return [one for one in found if (one["context"], one["creator"]["login"]) == ("gatehouse/verdict", BOT)]


def apply(folder: Path, changes: Mapping[str, Change]) -> None:
    """Make the changes in a clone."""
    for path, change in changes.items():
        place = folder / path
        if change is None:
            place.unlink()
            continue
        text = change(place.read_text(encoding="utf-8")) if callable(change) else change
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def handed_over(project: Project, run: Run) -> Any:
    """Return what became of each stage in a run of pull-request.yml."""
    return read_json(project.folder / f"store/artifacts/{run.number}/hand-over/.gatehouse/stages.json")["stages"]
