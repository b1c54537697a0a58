"""Execute one workflow with act on this machine, in a clean clone, and say what every job and step did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ACTIONS = HERE / "actions"
PIN = re.compile(r"uses: *(actions/[\w.-]+)(?:/[\w.-]+)*@([0-9a-f]{40})")
# What GitHub knows and act refuses: a queue of waiting runs, an environment without a deployment.
NEWER = re.compile(r"^ +queue: max$|, deployment: false(?= })", re.M)


@dataclass
class Run:
    """What became of one workflow run.

    Attributes:
        jobs: Job (with its matrix cell) to success, failure or skipped.
        steps: (job, step) to success, failure or skipped.
        outputs: Step id to outputs.
        summaries: Job summaries, in order.
        errors: What is annotated as an error.
        log: Everything the steps printed.
        code: act's exit code.
    """

    number: int
    jobs: dict[str, str] = field(default_factory=dict)
    steps: dict[tuple[str, str], str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    summaries: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    log: str = ""
    code: int = 0

    @property
    def conclusion(self) -> str:
        """What GitHub calls it: success or failure."""
        return "success" if self.code == 0 else "failure"

    @property
    def ran(self) -> set[str]:
        """The jobs that asked for a runner, shards under their job's name."""
        return {name.split(" ")[0] for name, result in self.jobs.items() if result != "skipped"}


@dataclass
class Machine:
    """A runner: its home, what it keeps between jobs, and where artifacts and caches of the repository lie.

    Attributes:
        home: Folder that is nobody else's; act keeps workspaces under it.
        store: Artifacts and caches of the stand-ins.
        origin: Bare repository that stands for GitHub's.
        environment: What every job sees beside GitHub's own variables.
        variables: Variables of the repository.
    """

    home: Path
    store: Path
    origin: Path
    environment: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        clone: Path,
        workflow: str,
        event_name: str,
        event: Mapping[str, Any],
        *,
        number: int,
        secrets: Mapping[str, str] | None = None,
    ) -> Run:
        """Execute `.github/workflows/<workflow>` of the clone for one event.

        Args:
            clone: Clean clone at the commit whose workflow GitHub would take.
            workflow: File name.
            event_name: Such as pull_request.
            event: The event's payload.
            number: Run id.
            secrets: What `secrets` holds, the token too.
        """
        place = clone / ".github/workflows" / workflow
        text = place.read_text(encoding="utf-8")
        place.write_text(lowered(text), encoding="utf-8")
        events = self.home / "events"
        events.mkdir(parents=True, exist_ok=True)
        payload = events / f"{clone.name}.json"
        payload.write_text(json.dumps(event), encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "act"), event_name, "-C", str(clone), "-e", str(payload),
            "-W", f".github/workflows/{workflow}", "--json", "--no-cache-server", "--no-skip-checkout",
            "--env-file", "/dev/null", "--secret-file", "/dev/null", "--var-file", "/dev/null",
            "--concurrent-jobs", "2", "-P", "ubuntu-latest=-self-hosted", "-P", "self-hosted=-self-hosted",
            "--actor", str(event.get("sender", {}).get("login", "somebody")),
        ]  # fmt: skip
        environment = self.environment | {
            "GATEHOUSE_ACT": str(HERE), "GATEHOUSE_ACT_PYTHON": sys.executable, "GATEHOUSE_STORE": str(self.store),
            "GATEHOUSE_ORIGIN": self.origin.as_uri(), "GITHUB_RUN_ID": str(number),
            "PATH": os.pathsep.join([str(HERE / "shell"), self.environment.get("PATH", os.environ["PATH"])]),
        }  # fmt: skip
        for flag, values in (("--env", environment), ("--secret", secrets or {}), ("--var", self.variables)):
            command += [part for name, value in sorted(values.items()) for part in (flag, f"{name}={value}")]
        for repository, pin in pins(clone):
            command += ["--local-repository", f"{repository}@{pin}={ACTIONS / repository.partition('/')[2]}"]
        outside = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        done = subprocess.run(command, env=outside, capture_output=True, text=True, check=False, timeout=500)
        run = read(done.stdout.splitlines() + done.stderr.splitlines(), number)
        run.code = done.returncode
        assert run.jobs, f"act did not start a job:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return run


def pins(clone: Path) -> set[tuple[str, str]]:
    """Return the third-party actions that workflows and actions of a clone name, each with its commit."""
    files = [*clone.glob(".github/workflows/*.yml"), *clone.glob("actions/*/action.yml")]
    return {pin for file in files for pin in PIN.findall(file.read_text(encoding="utf-8"))}


def lowered(text: str) -> str:
    """Return a workflow without what act does not know yet; everything else as it is."""
    return NEWER.sub("", text).replace("strategy.job-index", "startsWith(matrix.shard, '1/') && '0' || '1'")


def read(lines: list[str], number: int) -> Run:
    """Read act's JSON log."""
    run = Run(number)
    log = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            log.append(line)
            continue
        job = _job(entry)
        if entry.get("raw_output"):
            log.append(entry["msg"].rstrip("\n"))
        if "jobResult" in entry:
            run.jobs[job] = entry["jobResult"]
        elif "stepResult" in entry and entry.get("stage") == "Main":
            run.steps.setdefault((job, entry["step"]), entry["stepResult"])
        if entry.get("command") == "set-output":
            run.outputs.setdefault(entry["stepID"][0], {})[entry["name"]] = entry["arg"]
        elif entry.get("command") == "summary":
            run.summaries.append(entry["content"])
        elif entry.get("command") == "error":
            run.errors.append(entry["arg"])
        if entry.get("level") in ("error", "warning"):
            log.append(entry["msg"])
    run.log = "\n".join(log)
    return run


def _job(entry: Mapping[str, Any]) -> str:
    cell = " ".join(str(value) for value in (entry.get("matrix") or {}).values())
    return f"{entry.get('jobID', '')} {cell}".strip()
