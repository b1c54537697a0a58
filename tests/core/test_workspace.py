"""A job starts in the commit it claims to judge, with nothing left of an earlier run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.workspace import RESULTS, clear, inspect
from tests.caller import commit

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("gates.yaml", "data/triage.jsonl", "prompts/a.prompt.yml", "docs/guide.md", ".github/workflows/a.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    (tmp_path / ".gitignore").write_text("/evaluation/\n/data/prepared/\n")
    commit(tmp_path)
    return tmp_path


def complaint(folder: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        inspect(folder)
    return str(raised.value)


def test_a_clean_checkout_is_taken(checkout: Path) -> None:
    inspect(checkout)


@pytest.mark.parametrize("name", ["gates.yaml", "data/triage.jsonl", "docs/guide.md"])
def test_a_changed_file_is_named(checkout: Path, name: str) -> None:
    (checkout / name).write_text("a: 2\n")
    assert f"({name})" in complaint(checkout)


def test_a_deleted_file_and_a_staged_one_are_named(checkout: Path) -> None:
    (checkout / "gates.yaml").unlink()
    (checkout / "prompts/b.prompt.yml").write_text("b: 1\n")
    subprocess.run(["git", "add", "prompts/b.prompt.yml"], cwd=checkout, check=True)
    assert "(gates.yaml, prompts/b.prompt.yml)" in complaint(checkout)


@pytest.mark.parametrize(
    "name", ["prompts/judges/evil.prompt.yml", "scripts/gate.py", "data/more.jsonl", "serving.yaml"]
)
def test_a_foreign_file_among_the_inputs_is_named(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).touch()
    assert f"({name}); an earlier run may have left this" in complaint(checkout)


def test_of_many_files_a_few_are_named_and_none_can_forge_a_log_line(checkout: Path) -> None:
    for name in ("a\n::set-env::", "b", "c", "d", "e"):
        (checkout / "prompts" / name).touch()
    said = complaint(checkout)
    assert "and 2 more" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "name",
    ["evaluation/rows", "data/prepared/x", "other/checkout", "scripts/__pycache__/a.pyc", ".github/workflows/b.yml"],
)
def test_what_no_verdict_rests_on_may_lie_about(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).touch()
    inspect(checkout)


def test_a_workflow_in_the_workspace_is_not_what_github_reads(checkout: Path) -> None:
    (checkout / ".github/workflows/a.yml").write_text("a: 2\n")
    inspect(checkout)


def test_a_new_time_is_no_change(checkout: Path) -> None:
    os.utime(checkout / "gates.yaml", (1, 1))
    inspect(checkout)


@pytest.fixture
def pointing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout as a runner without git-lfs makes it: the attribute is there, the program that it names is not."""
    (checkout.parent / "home").mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(checkout.parent / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (checkout / ".gitattributes").write_text("data/*.jsonl filter=lfs diff=lfs merge=lfs -text\n")
    (checkout / "data/triage.jsonl").write_text(POINTER)
    for command in (["add", "-A"], ["-c", "user.name=D", "-c", "user.email=d@e", "commit", "-qm", "Use LFS"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    return checkout


def test_a_pointer_without_git_lfs_is_no_data(pointing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = pointing.with_name(f"{pointing.name}-programs")
    programs.mkdir()
    (programs / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(programs))
    assert complaint(pointing) == (
        "data/triage.jsonl: Git LFS keeps this data, and git-lfs is missing: install it on this runner"
    )
    inspect(pointing, with_data=False)


def install_lfs(folder: Path, monkeypatch: pytest.MonkeyPatch, pull: str) -> None:
    """Put a stand-in of git-lfs on the path: it sets the filters that the real one sets, and pulls as it is told."""
    program = folder.with_name(f"{folder.name}-programs") / "git-lfs"
    program.parent.mkdir()
    install = "git config filter.lfs.clean 'git-lfs clean -- %f' && git config filter.lfs.required true"
    clean = f"cat > /dev/null; printf '{POINTER.encode('unicode_escape').decode()}'"
    program.write_text(
        f'#!/bin/bash\ncase "$1" in\n  install) {install} ;;\n  clean) {clean} ;;\n  pull) {pull} ;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_where_git_lfs_is_there_the_data_takes_the_pointers_place(
    pointing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_lfs(pointing, monkeypatch, 'echo \'{"message": "real"}\' > data/triage.jsonl')
    inspect(pointing)
    assert (pointing / "data/triage.jsonl").read_text() == '{"message": "real"}\n'
    inspect(pointing)  # the next job on this machine finds a clean workspace


@pytest.mark.parametrize(
    ("pull", "said"),
    [
        ("true", "data/triage.jsonl: Git LFS has not fetched this; is it on the server"),
        (
            "printf 'batch response:\\n  no access\\n' >&2; exit 2",
            "git lfs pull: batch response: no access; is the server up",
        ),
    ],
)
def test_data_that_git_lfs_cannot_fetch_is_one_line(
    pointing: Path, monkeypatch: pytest.MonkeyPatch, pull: str, said: str
) -> None:
    install_lfs(pointing, monkeypatch, pull)
    with pytest.raises(ServiceError) as raised:
        inspect(pointing)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_folder_without_git_asks_for_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "cannot be used as a Git checkout" in complaint(tmp_path)


def test_a_machine_without_git_is_told_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert complaint(checkout) == "git is not installed on this runner; install it"


def test_a_watcher_in_the_configuration_is_not_started(checkout: Path) -> None:
    watcher = checkout.parent / "watcher"
    watcher.write_text(f"#!/bin/sh\ntouch {checkout}/started\n")
    watcher.chmod(0o755)
    subprocess.run(["git", "config", "core.fsmonitor", str(watcher)], cwd=checkout, check=True)
    inspect(checkout)
    assert not (checkout / "started").exists()
    subprocess.run(["git", "status"], cwd=checkout, check=True, capture_output=True)
    assert (checkout / "started").exists(), "the watcher would not have been started by anybody"


def test_the_results_of_an_earlier_run_are_removed(checkout: Path) -> None:
    for name in (*RESULTS, "evaluation/triage/rows.parquet"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert clear(checkout) == list(RESULTS)
    assert not any((checkout / name).exists() for name in RESULTS)
    assert (checkout / "evaluation/triage/rows.parquet").exists(), "DVC knows whether it is still right"
    assert clear(checkout) == []
