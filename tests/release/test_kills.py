"""Whatever kills a release, and wherever: run again it ends in the same tree, with one version and one history."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.core.errors import GateFailed
from tests.release.kills import KILLED, in_child
from tests.release.scripted import FILE
from tests.release.site import Site, git

ROOT = Path(__file__).parent.parent.parent
GOOD = {"blind": [[5, 12]], "per_second": 6}
BAD = {"errors": 0.3}


def ended(site: Site) -> None:
    """Release v1.1.0; killed after its rollback's last commit, the next run says that it is held."""
    if site.state().held and site.state().step == "idle":
        with pytest.raises(GateFailed, match="was when it was rolled back"):
            site.release("v1.1.0")
    else:
        site.release("v1.1.0")


class Calm(NamedTuple):
    """What an undisturbed run ends in."""

    tree: str
    world: dict[str, object]
    subjects: list[str]


Undisturbed = Callable[[Site, dict[str, object]], Calm]


@pytest.fixture(scope="module")
def calm(built_with_remote: Site, built_alone: Site, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run a script undisturbed, once."""
    known: dict[str, Calm] = {}

    def run(site: Site, script: dict[str, object]) -> Calm:
        key = f"{site.remote} {script}"
        if key not in known:
            source = built_with_remote if site.remote else built_alone
            copy = source.copy(tmp_path_factory.mktemp("calm") / "site")
            copy.script(**script)
            ended(copy)
            known[key] = Calm(copy.tree(), told(copy), copy.subjects())
        return known[key]

    return run


def told(site: Site) -> dict[str, object]:
    world = site.file.read()
    return {key: world[key] for key in ("now", "deployed", "weight", "versions", "aliases")}


def killed_everywhere(site: Site, *, is_inert: bool = False) -> int:
    """Let every process die at the first point that no process before it has died at; return how many did."""
    seen = site.folder / "seen"
    seen.touch()

    def kill(point: str) -> bool:
        if point in seen.read_text().splitlines():
            return False
        with seen.open("a") as stream:
            stream.write(f"{point}\n")
        return True

    kills = 0
    while (code := in_child(lambda: ended(site), kill, is_inert=is_inert)) == KILLED:
        kills += 1
        assert kills < 2000, "it does not come to an end"
    assert code == 0
    return kills


@pytest.mark.parametrize("script", [GOOD, BAD], ids=["good", "rolled back"])
def test_killed_at_every_point_with_a_remote_it_ends_in_the_same_tree(
    site: Site, calm: Undisturbed, script: dict[str, object]
) -> None:
    site.script(**script)
    assert killed_everywhere(site) > 25
    assert (site.tree(), told(site), site.subjects()) == calm(site, script)
    assert (len(site.file.read()["versions"]), len(site.histories())) == (2, 2)


def test_killed_at_every_point_without_a_remote_it_ends_in_the_same_tree_and_work_tree(
    lone: Site, calm: Undisturbed
) -> None:
    lone.script(**BAD)
    assert killed_everywhere(lone, is_inert=True) > 70
    assert (lone.tree(), told(lone), lone.subjects()) == calm(lone, BAD)
    assert git(lone.root, "status", "--porcelain") == ""


@pytest.mark.parametrize("at", [3, 11])
def test_a_real_sigkill_of_the_real_command_is_taken_up_by_the_next_one(site: Site, calm: Undisturbed, at: int) -> None:
    site.script(**GOOD)
    command = [sys.executable, "-m", "scripts.release", "--tag", "v1.1.0", "--target", "tests.release.scripted:build"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), FILE: str(site.file.path), "GIT_CONFIG_COUNT": "1",
                   "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "rita"}  # fmt: skip
    dying = {**environment, "GATEHOUSE_SCRIPTED_KILL": str(at)}
    first = subprocess.run(command, cwd=site.root, env=dying, capture_output=True, check=False)
    assert first.returncode == -signal.SIGKILL
    second = subprocess.run(command, cwd=site.root, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-2] == "v1.1.0: released; it serves all traffic"
    assert (site.tree(), told(site), site.subjects()) == calm(site, GOOD)
