"""A small repository with a decided commit, a bare origin (or none), and the scripted world around it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipelines.core import records
from pipelines.core.inputs import input_digest_at
from pipelines.core.records import Output, Record
from pipelines.release import machine
from pipelines.release.state import State, history_folder, read_state, release_path
from pipelines.release.store import Store
from pipelines.release.world import World, histories
from tests.release.scripted import File, ScriptedClock, ScriptedRegistry, ScriptedTarget, plan_of

FILES = {
    "params.yaml": "schema_version: 1\ndatasets:\n  triage: {path: data/triage.jsonl}\nsuites: {}\n",
    "gates.yaml": "schema_version: 1\n",
    "serving.yaml": "schema_version: 1\n",
    "prompts/triage.prompt.yml": "name: triage\nmessages: [{role: user, content: '{{message}}'}]\n",
    "data/triage.jsonl": '{"message": "x"}\n',
    "pipelines/code.py": "x = 1\n",
}
IDENTITY = {
    "GIT_AUTHOR_NAME": "Rita", "GIT_AUTHOR_EMAIL": "rita@example.com", "GIT_AUTHOR_DATE": "2026-11-20T10:00:00Z",
    "GIT_COMMITTER_NAME": "Rita", "GIT_COMMITTER_EMAIL": "rita@example.com",
    "GIT_COMMITTER_DATE": "2026-11-20T10:00:00Z", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


def git(root: Path, *arguments: str, stdin: str = "") -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, input=stdin,
        env={**os.environ, **IDENTITY},
    ).stdout.strip()  # fmt: skip


class Site:
    """A folder with `clone`, `origin` (where there is a remote) and `world.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.origin = folder, folder / "clone", folder / "origin"
        self.remote = "origin" if self.origin.is_dir() else None
        self.file = File(folder / "world.json")

    @classmethod
    def make(cls, folder: Path, *, has_remote: bool = True) -> Site:
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch", "main", "clone")
        if has_remote:
            git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", "origin")
            git(folder / "clone", "remote", "add", "origin", str(folder / "origin"))
        site = cls(folder)
        site.commit(FILES, "Begin")
        return site

    def copy(self, folder: Path) -> Site:
        """Return the same site elsewhere."""
        shutil.copytree(self.folder, folder)
        if self.remote:
            git(folder / "clone", "remote", "set-url", "origin", str(folder / "origin"))
        return Site(folder)

    def commit(self, files: dict[str, str], message: str) -> str:
        """Commit files on main as a person would, decide about the tree, and push."""
        if self.remote and git(self.root, "ls-remote", "origin", "main"):
            git(self.root, "pull", "--quiet", "--ff-only", "origin", "main")
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--allow-empty", "--message", message)
        if self.remote:
            git(self.root, "push", "--quiet", "origin", "main")
        commit = git(self.root, "rev-parse", "HEAD")
        self.decide(commit)
        return commit

    def decide(self, commit: str, **changes: Any) -> None:
        """Record a decision about a commit's tree; its model is told by the commit's prompt."""
        input_digest = input_digest_at(commit, self.root)
        values: dict[str, Any] = {
            "schema_version": 1, "input_digest": input_digest, "verdict": "pass", "decision": {"gates": []},
            "commit": commit, "lock": "schema: '2.0'\n",
            "manifest": {"models/candidate/model.safetensors": Output(sha256=input_digest, size=3, md5="1" * 32)},
            **changes,
        }  # fmt: skip
        records.write(Record.model_validate(values).as_file(), "Decide", self.root, remote=self.remote)

    def tag(self, name: str, commit: str = "HEAD", *, flags: tuple[str, ...] = ("--annotate",)) -> None:
        git(self.root, "tag", *flags, *(() if flags == () else ("--message", name)), name, commit)
        if self.remote:
            git(self.root, "push", "--quiet", "origin", f"refs/tags/{name}")

    def next(self, name: str, prompt: str = "") -> None:
        """Commit another prompt and tag it."""
        self.commit({"prompts/triage.prompt.yml": f"name: {prompt or name}\nmessages: []\n"}, f"Word it for {name}")
        self.tag(name)

    def world(self, **changes: Any) -> World:
        values: dict[str, Any] = {
            "root": self.root,
            "store": Store(self.root, remote=self.remote),
            "target": ScriptedTarget(self.file),
            "registry": ScriptedRegistry(self.file),
            "clock": ScriptedClock(self.file),
            "plan_of": plan_of,
            "record_of": lambda digest: records.read(digest, self.root, self.remote),
            "by": "rita",
            **changes,
        }
        return World(**values)

    def release(self, tag: str, **options: Any) -> machine.Outcome:
        return machine.release(self.world(), tag, **options)

    def bring_to(self, weight: float | None = None, *, every_s: float = 5) -> None:
        """Take v1.1.0 one step at a time until it has a share of the traffic, any by default."""
        while (now := self.state().weight) == 0 or weight not in (None, now):
            self.release("v1.1.0", once=True)
            self.file.change(lambda world: world.update(now=world["now"] + every_s))

    def script(self, **changes: Any) -> None:
        self.file.change(lambda world: world["script"].update(changes))

    @property
    def git_root(self) -> Path:
        return self.origin if self.remote else self.root

    def state(self, environment: str = "production") -> State:
        path = release_path(environment)
        return read_state(git(self.git_root, "show", f"main:{path}").encode() + b"\n", path)

    def tree(self) -> str:
        return git(self.git_root, "rev-parse", "main^{tree}")

    def subjects(self) -> list[str]:
        return git(self.git_root, "log", "--reverse", "--format=%s", "main").splitlines()

    def history(self) -> Any:
        world = self.world()
        return next(one for one in histories(world, world.store.tip()) if one.rollout_id == self.state().rollout_id)

    def histories(self) -> list[str]:
        folder = history_folder("production")
        return git(self.git_root, "ls-tree", "--name-only", "main", f"{folder}/").splitlines()
