"""Releases on this machine with real model processes, a real gateway and real requests."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipelines.core.errors import ConfigError
from pipelines.review.shipping import check_folder
from tests.release.local.laptop import Laptop

pytestmark = pytest.mark.slow


def state(laptop: Laptop) -> Any:
    return yaml.safe_load(laptop.git("show", "main:k8s/overlays/local/release.yaml"))


def history(laptop: Laptop, rollout_id: str) -> Any:
    return json.loads(laptop.git("show", f"main:k8s/overlays/local/history/{rollout_id}.json"))


def of_folder(folder: Path) -> list[psutil.Process]:
    """Processes that a release of this folder has left."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        cwd, status = process.info["cwd"], process.info["status"]
        if cwd and Path(cwd).is_relative_to(folder) and status != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_the_first_release_is_tagged_tried_in_staging_and_made_champion(released: Laptop) -> None:
    assert released.subjects()[-2:] == [
        "Make v0.1.0 the champion: it is the first release, nothing serves that it could be compared with",
        "Finish the release of v0.1.0: it serves all traffic",
    ]
    assert (state(released)["stable"]["tag"], state(released)["step"]) == ("v0.1.0", "idle")
    assert "Pass the smoke tests of v0.1.0 in local-staging: 3 of 3 questions answered well" in released.subjects()
    assert of_folder(released.root) == []


def test_a_good_release_goes_up_the_ladder_though_it_is_killed_on_the_way(laptop: Laptop) -> None:
    killed = laptop.start("ship")
    ends = time.monotonic() + 200
    while not any("canary 1 of" in line for line in laptop.subjects()) and time.monotonic() < ends:
        time.sleep(0.2)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(children) >= 3  # two models and a gateway at least
    ends = time.monotonic() + 20
    while of_folder(laptop.root) and time.monotonic() < ends:  # also a Git command that had just begun
        time.sleep(0.1)
    assert of_folder(laptop.root) == []  # nothing outlives the command for long
    assert state(laptop)["candidate"]["tag"] == "v0.1.1"

    code, said = laptop.run("ship", "--fault", "none")
    assert code == 0, said
    assert state(laptop)["stable"]["tag"] == "v0.1.1"
    told = history(laptop, state(laptop)["stable"]["rollout_id"])
    assert told["events"][-1]["action"] == "released"
    assert {event["attempt"] for event in told["events"]} == {1}
    # What the gateways of both runs counted is one rollout's: the A/B test's outcomes are still among it.
    counters = [event["counters"] for event in told["events"] if event["action"] == "advance"][-1]
    stages = [epoch["stage"] for epoch in counters["canary"]["epochs"]]
    assert stages == ["ab_test", "canary-1", "canary-2", "canary-3"]
    assert counters["ab_test"]["outcomes"]["schema_failure_rate"]["candidate"][0] >= 100
    assert laptop.git("status", "--porcelain") == ""

    code, said = laptop.run("rollback", "--remote", "none", "--why", "users complain")
    assert code == 0, said
    assert state(laptop)["stable"]["tag"] == "v0.1.0"
    assert "Roll back v0.1.1 to v0.1.0: users complain" in laptop.subjects()


def test_a_fault_is_kept_by_a_release_that_is_taken_up_again(laptop: Laptop) -> None:
    killed = laptop.start("ship", "--fault", "errors")
    while not any(line.startswith("Begin release of v0.1.1") for line in laptop.subjects()):
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    process = laptop.start("ship")  # says nothing of a fault
    assert process.stdout is not None
    said = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert said == "v0.1.1 is on its way (fault: errors): going on\n"
    assert (process.returncode, "Traceback" in rest) == (130, False)
    assert of_folder(laptop.root) == []


def test_what_cannot_be_released_is_one_line(decided: Laptop, laptop: Laptop) -> None:
    code, said = decided.run("ship", "--fault", "errors")
    assert (code, said.splitlines()[0]) == (
        2, "error: FAULT: nothing is released yet that a fault could be seen beside; `make release` first",
    )  # fmt: skip
    code, said = decided.run("ship", "--fault", "tired")
    assert (code, said[:45]) == (2, "error: FAULT=tired: no such fault; there are ")
    (laptop.root / "prompts/triage.prompt.yml").write_text("name: other\n")
    with pytest.raises(ConfigError, match=r"^prompts/triage.prompt.yml: not as committed; commit it, "):
        check_folder(laptop.root)
    laptop.git("checkout", "--quiet", "--", "prompts")
    check_folder(laptop.root)
    laptop.git("switch", "--quiet", "--create", "feature")
    with pytest.raises(ConfigError, match=r"^feature is checked out; a release is made from main: `git switch main`"):
        check_folder(laptop.root)
    assert laptop.git("tag") == "v0.1.0"
