"""A run of `dvc.yaml` ends with the exit code of the stage that stopped it, in real repositories of Git and DVC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.stages import Stopped, reproduce

ROOT = Path(__file__).parents[2]
PASSES = "from pipelines.core.command import run\nrun(lambda: 0)\n"
DIES = "import os, signal\nos.kill(os.getpid(), signal.{signal})\n"
ENDS = "from pipelines.core.command import run\nrun(lambda: {code})\n"


def project(folder: Path, second: str) -> Path:
    """Make a repository of two stages: one that passes, and then `second`."""
    (folder / "first.py").write_text(PASSES)
    (folder / "second.py").write_text(second)
    (folder / "dvc.yaml").write_text(
        "stages:\n"
        "  first:\n    cmd: python first.py && echo done > first.txt\n    outs: [first.txt]\n"
        "  second:\n    cmd: python second.py\n    deps: [first.txt]\n"
    )
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture(autouse=True)
def code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", os.environ["PATH"])


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    monkeypatch.chdir(folder)
    with pytest.raises(Stopped) as caught:
        reproduce()
    return caught.value


def test_a_stage_that_is_killed_does_not_end_the_run_with_the_code_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = stopped(project(tmp_path, DIES.format(signal="SIGKILL")), monkeypatch)
    assert error.exit_code == 5
    assert str(error).startswith("stage 'second' was killed by SIGKILL (out of memory?)")


def test_a_stage_that_crashes_names_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = stopped(project(tmp_path, DIES.format(signal=signal.SIGSEGV.name)), monkeypatch)
    assert error.exit_code == 5
    assert "SIGSEGV" in str(error)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_stage_that_stops_hands_on_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    error = stopped(project(tmp_path, ENDS.format(code=code)), monkeypatch)
    assert error.exit_code == code
    assert str(error) == "stage 'second' stopped the run; its message is above"


def test_a_stage_that_ends_with_a_traceback_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(project(tmp_path, "raise ValueError\n"), monkeypatch).exit_code == 1


def test_nothing_stops_with_the_code_of_success() -> None:
    with pytest.raises(ValueError, match="cannot have passed"):
        Stopped("stage 'second' stopped the run", 0)
