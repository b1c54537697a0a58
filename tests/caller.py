"""A repository that calls Gatehouse's actions, as a team's own would, executed by act step by step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.tool_cache import adopt

ROOT = Path(__file__).parent.parent
SHIPPED = ("actions", "locks", "pipelines", "scripts")  # what an action needs of this repository
REFERENCE = "owner/gatehouse/actions/{}@v1"
# Modules of the caller's that have the names of ours and of Python's: whoever imports one of them fails loudly.
TRAPS = ("scripts", "pipelines", "json.py", "argparse.py", "yaml.py", "encodings.py")
TRAP = 'raise SystemExit("the caller\'s own module was run")\n'
CHECKOUT = "actions/checkout@" + "0" * 40  # act copies the workspace itself


@dataclass
class Told:
    """What one step told the runner.

    Attributes:
        result: success, failure or skipped.
        annotations: (level, message with file and line before it where they are given).
        outputs: What the step's action declares.
        text: What it printed.
    """

    result: str = "skipped"
    annotations: list[tuple[str, str]] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    text: str = ""


def ship(folder: Path) -> Path:
    """Copy what actions need of this repository, as GitHub downloads it for a caller."""
    for name in SHIPPED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def set_traps(workspace: Path) -> None:
    """Give the caller modules of its own that must never be imported."""
    for name in TRAPS:
        if name.endswith(".py"):
            (workspace / name).write_text(TRAP)
            continue
        (workspace / name).mkdir()
        (workspace / name / "__init__.py").write_text(TRAP)


def commit(workspace: Path) -> None:
    """Make the workspace a clean checkout of one commit."""
    who = ["-c", "user.name=Dev", "-c", "user.email=dev@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "Start", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=workspace, check=True)


def execute(
    workspace: Path,
    steps: list[dict[str, Any]],
    *,
    home: Path,
    gatehouse: Path | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, Told]:
    """Run one job of these steps in a copy of the workspace.

    Args:
        workspace: A Git checkout; it is left as it is.
        steps: The job's steps; those that are asked about have an `id`.
        home: Folder that is nobody else's; act keeps its copies there.
        gatehouse: Where `owner/gatehouse@v1` lies; None: the workspace holds the actions itself.
        environment: What the job sees beside GitHub's own variables.
    """
    job = {"runs-on": "ubuntu-latest", "steps": [{"uses": CHECKOUT}, *steps]}
    workflow = home / "workflow.yml"
    home.mkdir(parents=True, exist_ok=True)
    workflow.write_text(yaml.safe_dump({"on": "push", "jobs": {"job": job}}, sort_keys=False, width=1000))
    adopt(home / ".cache/act/tool_cache")
    given = {"GITHUB_REPOSITORY": "team/product", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
    command = [
        str(Path(sys.executable).parent / "act"), "push", "-C", str(workspace), "-W", str(workflow), "--json",
        "--no-cache-server", "-P", "ubuntu-latest=-self-hosted", "--secret", "GITHUB_TOKEN=token",
        "--env-file", "/dev/null", "--secret-file", "/dev/null", "--var-file", "/dev/null",
        *(part for name, value in given.items() for part in ("--env", f"{name}={value}")),
        *(["--local-repository", f"owner/gatehouse@v1={gatehouse}"] if gatehouse else []),
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    outside = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}
    done = subprocess.run(command, env=outside, capture_output=True, text=True, check=False, timeout=550)
    told = read(done.stdout.splitlines())
    assert told, f"act did not run a step:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return told


def read(lines: list[str]) -> dict[str, Told]:
    """Read act's JSON log, by step."""
    found: dict[str, Told] = {}
    for line in lines:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("stage") != "Main":
            continue
        step, *inner = entry["stepID"]
        told = found.setdefault(step, Told())
        command = entry.get("command")
        if command in ("error", "warning", "notice"):
            place = entry.get("kvPairs") or {}
            where = f"{place['file']}:{place.get('line', '')}: " if "file" in place else ""
            told.annotations.append((command, where + entry["arg"]))
        elif command == "set-output" and not inner:
            told.outputs[entry["name"]] = entry["arg"]
        elif entry.get("raw_output"):
            told.text += entry["msg"]
        elif "stepResult" in entry and not inner:
            told.result = entry["stepResult"]
    return found
