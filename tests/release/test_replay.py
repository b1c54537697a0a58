"""A recorded rollout is judged again: it agrees, and one that was retouched does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import GateFailed
from pipelines.release import machine
from pipelines.release.history import History
from pipelines.release.judge import plan_of
from pipelines.release.replay import replay, require_agreement
from tests.release.counting import CountingTarget
from tests.release.scripted import FILE, ScriptedJudge
from tests.release.site import Site

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def told(built_with_remote: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, History]:
    site = built_with_remote.copy(tmp_path_factory.mktemp("told") / "site")
    site.script(blind=[[5, 12]], per_second=6)
    site.release("v1.1.0")
    return site, site.history()


def test_every_verdict_of_a_rollout_is_judged_again_and_agrees(told: tuple[Site, History]) -> None:
    found = replay(told[1], ScriptedJudge())
    assert [one.event.action for one in found] == ["unknown", "known", "advance", "advance", "advance"]
    require_agreement(found)


def retouched(history: History, act: Callable[[dict[str, Any]], None]) -> History:
    value = json.loads(history.as_file())
    act(next(event for event in value["events"] if event["action"] == "advance"))
    return History.model_validate(value)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda event: event["counters"].update(errors=40), "recorded advance, judged again it is rollback$"),
        (lambda event: event["verdict"].update(rate=0.001), "advance, judged again it has another value of 'rate'$"),
        (lambda event: event["situation"].update(is_paused=True), "recorded advance, .* follows wait$"),
        (lambda event: event.update(counters=None), "recorded advance without counters$"),
    ],
)
def test_a_retouched_history_is_told_apart(
    told: tuple[Site, History], act: Callable[[dict[str, Any]], None], match: str
) -> None:
    with pytest.raises(GateFailed, match=match):
        require_agreement(replay(retouched(told[1], act), ScriptedJudge()))


def test_the_command_replays_a_file_and_fails_on_a_retouched_one(told: tuple[Site, History], tmp_path: Path) -> None:
    site, history = told
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(history.as_file())
    bad.write_bytes(retouched(history, lambda event: event["counters"].update(errors=40)).as_file())

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scripts.release", "--replay", str(path)]
        return subprocess.run(
            [*command, "--target", "tests.release.scripted:build"], cwd=site.root, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), FILE: str(site.file.path)}, check=False,
        )  # fmt: skip

    said = run(good)
    assert (said.returncode, said.stdout.splitlines()[-1]) == (0, "5 verdicts of v1.1.0 judged again: all agree")
    said = run(bad)
    assert said.returncode == 3
    assert said.stdout.splitlines()[-1] == "5 verdicts of v1.1.0 judged again: 1 of 5 differ"
    assert "judged again it is rollback" in said.stderr


def test_a_history_says_itself_by_whose_gates_it_went(built_with_remote: Site, tmp_path: Path) -> None:
    site = built_with_remote.copy(tmp_path / "site")
    site.commit({"gates.yaml": (ROOT / "gates.yaml").read_text()}, "Declare the gates")
    site.tag("v1.2.0")
    target = CountingTarget(site.file)
    target.name = "local"
    assert machine.release(site.world(target=target, plan_of=plan_of("local")), "v1.2.0").result == "released"
    path = tmp_path / "told.json"
    path.write_bytes(site.history().as_file())
    said = subprocess.run(
        [sys.executable, "-m", "scripts.release", "--replay", str(path)], cwd=site.root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines()[-1] == "6 verdicts of v1.2.0 judged again: all agree"
