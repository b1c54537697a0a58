"""A project on a real Git remote with main evaluated and recorded, pull requests to it, and whoever attacks it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.core.files import digest, sha256, write_json
from pipelines.core.github.api import Api
from pipelines.core.records import Output, Record, read, write
from pipelines.evaluation import report
from pipelines.evaluation.catalogue import METRICS
from pipelines.evaluation.deciding.judgement import judge
from pipelines.evaluation.results import read_results
from pipelines.evaluation.row_table import ids_digest, write_rows
from pipelines.evaluation.summary import summarise
from pipelines.review.conclusion import Conclusion, conclude
from pipelines.review.context import Context
from pipelines.review.judging import receive
from pipelines.review.revision import lay_out, read_revision
from tests.evaluation.test_baseline import commit, dvc, git, repository
from tests.scratch import PRICE
from tests.standin.github import GitHub

REPOSITORY = "o/r"
OWNER, AUTHOR = "ada", "dev"
N_ROWS = 170
GATES: dict[str, Any] = {
    "schema_version": 1,
    "evaluation": {
        "gates": [{"name": "quality", "stage": "quality", "suite": "triage",
                   "metrics": {"exact_match": {"floor": 0.4, "max_regression": 0.3}}}]
    },
}  # fmt: skip
PARAMS: dict[str, Any] = {
    "schema_version": 1,
    "seed": 7,
    "datasets": {"triage": {"path": "data/triage.jsonl", "inputs": {"message": "message"}, "answer": "answer",
                            "slice": "slice", "splits": {"column": "fold", "train": ["a"], "test": ["b"]}}},
    "models": {"base": {"source": "directory", "path": "models/base", "license": "Apache-2.0", "price": PRICE,
                        "sha256": {"model.safetensors": "0" * 64}}},
    "train": {"base": "base", "dataset": "triage", "prompt": "prompts/triage.prompt.yml"},
    "candidate": {"price": PRICE},
    "suites": {"triage": {"dataset": "triage", "split": "test", "prompt": "prompts/triage.prompt.yml",
                          "model": "candidate", "metrics": ["exact_match"]}},
    "latency": {"suite": "triage"},
}  # fmt: skip
PROMPT = {"name": "triage", "messages": [{"role": "user", "content": "Label: {{message}}"}],
          "x-gatehouse": {"version": 1, "inputs": {"message": "string"}}}  # fmt: skip
OUTS = [f"evaluation/triage/{name}" for name in ("rows.parquet", "run.json", "metrics.json")]
STAGES = {"evaluate": {"cmd": "true", "deps": ["data/triage.jsonl"], "outs": [*OUTS, "models/candidate"]}}
Change = Mapping[str, str | None]


def data_rows(n: int = N_ROWS) -> list[dict[str, Any]]:
    """Return rows that no two of are alike, a few to train on and `n` to measure on."""
    words = np.random.default_rng(3).integers(0, 10**9, (n + 10, 4)).tolist()
    return [
        {"message": " ".join(f"{word:x}" for word in some), "answer": f"a{at % 3}",
         "slice": "plain" if at % 2 else "odd", "fold": "b" if at < n else "a"}
        for at, some in enumerate(words)
    ]  # fmt: skip


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


FILES: dict[str, str] = {
    "params.yaml": yaml.safe_dump(json.loads(json.dumps(PARAMS)), sort_keys=False),
    "gates.yaml": yaml.safe_dump(GATES, sort_keys=False),
    "dvc.yaml": yaml.safe_dump({"stages": STAGES}),
    "prompts/triage.prompt.yml": yaml.safe_dump(PROMPT),
    "data/triage.jsonl": jsonl(data_rows()),
    "pipelines/code.py": "A = 1\n",
    "scripts/gate.py": "raise SystemExit('the caller runs its own scripts')\n",
    "docs/a.md": "Read me.\n",
    ".github/workflows/pull-request.yml": "on: pull_request\n",
    ".github/CODEOWNERS": f"* @{OWNER}\n/prompts/ @{OWNER} @o/writers\n",
    ".gitignore": "/evaluation/\n/models/\n/judging/\n/.gatehouse/\n",
}


class World:
    """`origin` is the remote, `main` the clone that verdict.yml works in, `dev` the contributor's."""

    def __init__(self, folder: Path, github: GitHub) -> None:
        self.folder, self.github = folder, github
        self.main, self.dev = folder / "main", folder / "dev"
        self.api = Api(REPOSITORY, github.token, base_url=f"{github.url}/api/v3", sleep=lambda seconds: None)
        self.numbers: dict[str, int] = {}
        self.python = Path(sys.executable)  # which scripts run with
        github.collaborators |= {OWNER: "admin", AUTHOR: "write", "eve": "write", "reader": "read", "teammate": "write"}
        github.teams["o/writers"] = ["teammate"]

    def change(self, files: Change, branch: str = "change", start: str = "origin/main", message: str = "Change") -> str:
        """Commit some files on a branch from main and push it; None removes one."""
        git(self.dev, "fetch", "--quiet", "origin")
        git(self.dev, "checkout", "--quiet", "-B", branch, start)
        for name, text in files.items():
            path = self.dev / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        git(self.dev, "add", "--all", "--force", *files)
        git(self.dev, "commit", "--quiet", "--allow-empty", "--message", message)
        git(self.dev, "push", "--quiet", "--force", "origin", branch)
        return git(self.dev, "rev-parse", "HEAD")

    def open(self, number: int, head: str, branch: str = "change", **more: Any) -> None:
        """Open a pull request, or move it to another head."""
        self.github.pull(number, head=head, branch=branch, **{"author": AUTHOR, **more})
        git(self.dev, "push", "--quiet", "--force", "origin", f"{head}:refs/pull/{number}/head")

    def event(self, head: str, branch: str = "change", action: str = "completed", **more: Any) -> dict[str, Any]:
        """Return the event of the evaluation's end, or of what `action` says; GitHub then knows the run like that."""
        has_ended = action == "completed"
        run: dict[str, Any] = {
            "id": 77,
            "path": ".github/workflows/pull-request.yml",
            "event": "pull_request",
            "status": "completed" if has_ended else "queued",
            "conclusion": "success" if has_ended else None,
            "head_sha": head,
            "head_branch": branch,
            "name": "pull-request",
            "head_repository": {"full_name": REPOSITORY},
            "html_url": "https://github.example/o/r/actions/runs/77",
        }
        run |= more
        others = [one for one in self.github.runs if one["id"] != run["id"]]
        self.github.runs = sorted([run, *others], key=lambda one: int(one["id"]), reverse=True)
        return {"action": action, "workflow_run": dict(run)}

    def evaluate(self, head: str, name: str = "artifact", *, n_right: int = N_ROWS - 20, base: str = "") -> Path:
        """Leave what an honest run of a head leaves: main at `base` with the head merged into it."""
        base = base or git(self.dev, "rev-parse", "origin/main")
        tree = git(self.dev, "merge-tree", "--write-tree", base, head).split()[0]
        artifact = self.folder / name
        shutil.rmtree(artifact, ignore_errors=True)
        write_evaluation(self.dev, tree, artifact, n_right)
        seal(artifact, head=head, base=base)
        return artifact

    def judge(self, event: Mapping[str, Any], artifact: Path | None) -> tuple[Context, Conclusion]:
        """Do what verdict.yml does, step by step."""
        folder = self.main / "judging"
        context = receive(self.api, event, artifact, folder, self.main)
        if context.state == "ready":
            judge(context.base, folder, repository=self.main, cap=context.cap)
        if context.state in ("ready", "failed", "nothing"):
            report.write(folder)
        return context, conclude(self.api, folder, self.main)

    def ask(self, head: str, artifact: Path | None, number: int = 7, **more: Any) -> tuple[Context, Conclusion]:
        """Open a pull request for a head and judge what its run left."""
        self.open(number, head, **more)
        return self.judge(self.event(head), artifact)

    def status(self, head: str) -> str | None:
        return self.github.status(head)

    def record(self, context: Context) -> Record | None:
        return read(context.input_digest, self.main)


def write_evaluation(repository: Path, tree: str, to: Path, n_right: int) -> None:
    """Write one suite's files over the rows that a tree's data asks for."""
    plain = to.with_name(f"{to.name}-tree")
    shutil.rmtree(plain, ignore_errors=True)
    lay_out(repository, tree, plain)
    rows = read_revision(plain).suites["triage"].rows
    write_suite_of(to / "evaluation/triage", rows, n_right)
    write_json(to / "models/candidate/model.json", {"schema_version": 1, "digest": "d"})


def write_suite_of(folder: Path, rows: Any, n_right: int, **columns: list[Any]) -> None:
    ids = [row.id for row in rows]
    table: dict[str, Any] = {
        "id": ids, "repeat": [0] * len(ids), "slice": [row.slice for row in rows], "twin": [None] * len(ids),
        "group": [None] * len(ids), "line": [row.line for row in rows], "gold": [row.answer for row in rows],
        "input": [json.dumps(row.inputs) for row in rows], "output": [row.answer for row in rows],
        "state": ["scored"] * len(ids), "exact_match": [1.0] * n_right + [0.0] * (len(ids) - n_right),
    }  # fmt: skip
    write_rows(folder / "rows.parquet", {**table, **columns})
    run = {"schema_version": 1, "suite": "triage", "model": {"name": "candidate", "digest": "d1"}, "judges": {},
           "dataset": {"name": "triage", "split": "test", "digest": ids_digest(ids), "n": len(ids)},
           "created": "2026-11-19T00:00:00+00:00", "machine": {"cpu": "one"}}  # fmt: skip
    write_json(folder / "run.json", run)
    metrics = {"exact_match": METRICS["exact_match"]}
    try:
        write_json(folder / "metrics.json", summarise("triage", read_results(folder, metrics), metrics))
    except Exception:
        write_json(folder / "metrics.json", {"schema_version": 1, "metrics": {}})


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def seal(artifact: Path, *, head: str, base: str, **changes: Any) -> None:
    """Write `dvc.lock` and `manifest.json` over what lies in the artifact."""
    files = [path for path in sorted(artifact.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = {path.relative_to(artifact).as_posix(): path for path in files}
    for name in ("dvc.lock", "manifest.json"):
        names.pop(name, None)
    objects = {name: {"sha256": sha256(path), "size": path.stat().st_size, "md5": md5(path)}
               for name, path in names.items() if name.startswith(("evaluation/", "models/"))}  # fmt: skip
    outs = [{"path": name, "md5": one["md5"]} for name, one in objects.items() if name.startswith("evaluation/")]
    listing = [{"md5": one["md5"], "relpath": name.removeprefix("models/candidate/")}
               for name, one in objects.items() if name.startswith("models/candidate/")]  # fmt: skip
    whole = hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    outs.append({"path": "models/candidate", "md5": f"{whole}.dir"})
    lock = {"schema": "2.0", "stages": {"evaluate": {"cmd": "true", "outs": outs}}}
    (artifact / "dvc.lock").write_text(yaml.safe_dump(lock))
    shas = {name: sha256(path) for name, path in names.items()} | {"dvc.lock": sha256(artifact / "dvc.lock")}
    manifest = {"schema_version": 1, "head": head, "base": base, "merge": "", "files": shas, "objects": objects}
    write_json(artifact / "manifest.json", {**manifest, **changes})


def resealed(artifact: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let an attacker change what the manifest claims."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    change(manifest)
    write_json(artifact / "manifest.json", manifest)


def build(folder: Path) -> None:
    """Lay out origin, main and dev, with main evaluated and its decision recorded."""
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", "origin")
    git(folder / "origin", "config", "uploadpack.allowAnySHA1InWant", "true")
    main = repository(folder / "main")
    for name, text in FILES.items():
        (main / name).parent.mkdir(parents=True, exist_ok=True)
        (main / name).write_text(text)
    dvc(main, "init", "--quiet")
    git(main, "remote", "add", "origin", "../origin")
    commit(main, "Begin")
    git(main, "push", "--quiet", "origin", "main")
    git(folder, "clone", "--quiet", "origin", "dev")
    repository(folder / "dev")
    evaluated = folder / "evaluated"
    write_evaluation(main, "HEAD", evaluated, N_ROWS - 30)
    head = git(main, "rev-parse", "HEAD")
    seal(evaluated, head=head, base=head)
    manifest = json.loads((evaluated / "manifest.json").read_text())
    for name, one in manifest["objects"].items():
        place = main / ".dvc/cache/files/md5" / one["md5"][:2] / one["md5"][2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(evaluated / name, place)
    from pipelines.core.inputs import input_digest_at

    record = Record(
        schema_version=1, input_digest=input_digest_at("HEAD", main), verdict="pass", decision={"gates": []},
        commit=head, lock=(evaluated / "dvc.lock").read_text(),
        manifest={name: Output(**one) for name, one in manifest["objects"].items()},
    )  # fmt: skip
    write(record.as_file(), "Decide main", main)


def relocated(source: Path, target: Path) -> Path:
    """Copy a built world to where one test may break it."""
    shutil.copytree(source, target, symlinks=True)
    for name in ("main", "dev"):
        git(target / name, "remote", "set-url", "origin", str(target / "origin"))
    subprocess.run(["git", "gc", "--quiet", "--auto"], cwd=target / "main", check=False)
    return target


def fingerprint(value: Any) -> str:
    return digest(value)
