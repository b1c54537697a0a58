"""What a change makes necessary: nothing for documentation, no training for a prompt that no training renders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.core.errors import ConfigError
from pipelines.review.plan import (
    EVERYTHING,
    Stage,
    base_of,
    changed_files,
    changed_params,
    is_harmless,
    plan,
    read_stages,
)
from scripts.plan import shards_of

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def stages() -> tuple[Stage, ...]:
    return read_stages(ROOT)


@pytest.mark.parametrize(
    "changed",
    [
        ["README.md"],
        ["docs/guide.md", "docs/report.png", "CHANGELOG.md", "LICENSE"],
        ["tests/test_stages.py", "benchmarks/gate.py", ".github/pull_request_template.md"],
        [],
    ],
)
def test_documentation_and_tests_ask_for_nothing(stages: tuple[Stage, ...], changed: list[str]) -> None:
    found = plan(changed, stages)
    assert (found.evaluate, found.train, found.stages) == (False, False, ())


def test_a_prompt_that_no_training_renders_is_evaluated_without_training(stages: tuple[Stage, ...]) -> None:
    found = plan(["prompts/reply.prompt.yml"], stages)
    assert (found.evaluate, found.train) == (True, False)
    assert "evaluate@reply" in found.stages
    assert "evaluate@triage" not in found.stages
    assert found.reason == "evaluation without training: prompts/reply.prompt.yml changed"


@pytest.mark.parametrize("path", ["prompts/triage.prompt.yml", "data/triage.jsonl", "pipelines/training/train.py"])
def test_what_training_reads_trains(stages: tuple[Stage, ...], path: str) -> None:
    found = plan(["README.md", path], stages)
    assert found.train
    assert {"train", "evaluate@triage", "latency"} <= set(found.stages)


@pytest.mark.parametrize(
    ("key", "trains"),
    [("train.learning_rate", True), ("seed", True), ("candidate.price.prompt_usd", False), ("track.experiment", False),
     ("trainer", False), (EVERYTHING, True)],
)  # fmt: skip
def test_of_the_parameters_only_those_of_training_train(stages: tuple[Stage, ...], key: str, trains: bool) -> None:
    found = plan(["params.yaml"], stages, {key})
    assert (found.evaluate, found.train) == (True, trains)


@pytest.mark.parametrize(
    "path",
    [".github/workflows/pull-request.yml", "actions/gate/action.yml", "gates.yaml", "Makefile", "docs/CODEOWNERS",
     "CODEOWNERS", "new/file.txt", "prompts/README.md", "data/notes.md", ".dvc/config", "docs"],
)  # fmt: skip
def test_what_is_not_known_to_be_harmless_is_evaluated(stages: tuple[Stage, ...], path: str) -> None:
    assert not is_harmless(path)
    assert plan([path], stages).evaluate


def test_documentation_that_a_stage_reads_is_evaluated() -> None:
    stages = (Stage("evaluate@x", ("docs/facts",), (), ("evaluation/x",)),)
    assert plan(["docs/facts/a.md"], stages).evaluate
    assert not plan(["docs/factsheet.md"], stages).evaluate


def test_a_change_reaches_stages_in_whatever_order_they_stand() -> None:
    chain = [Stage("train", ("b",), (), ("c",)), Stage("two", ("a",), (), ("b",)), Stage("one", ("raw",), (), ("a",))]
    assert plan(["raw/file"], chain).stages == ("train", "two", "one")


def test_the_reason_names_three_files_and_escapes_them() -> None:
    found = plan([f"prompts/{n}\n::set-env" for n in range(300)], ())
    assert "\n" not in found.reason
    assert "and 297 more changed" in found.reason
    assert len(found.reason) < 300


@pytest.mark.parametrize(("text", "shards"), [("", ["1/1"]), (" 2 ", ["1/2", "2/2"]), ("1", ["1/1"])])
def test_shards_are_counted_from_one(text: str, shards: list[str]) -> None:
    assert shards_of(text) == shards


@pytest.mark.parametrize("text", ["0", "65", "-1", "two", "1.5", "٣", "99999999999"])
def test_a_number_of_shards_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="GATEHOUSE_SHARDS: a number from 1 to 64"):
        shards_of(text)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A repository whose branch left main one commit ago; main went on since."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "Test")
    git("config", "user.email", "test@example.com")
    for name in (".dvc/config", "dvc.yaml", "params.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "a\nb.txt").write_text("old")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Start")
    git("switch", "--quiet", "--create", "change")
    git("mv", "a\nb.txt", "README.md")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["train"]["epochs"] = 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    git("commit", "--quiet", "--all", "--message", "Change")
    git("switch", "--quiet", "main")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    git("commit", "--quiet", "--all", "--message", "Main went on")
    git("switch", "--quiet", "change")
    return tmp_path


def test_only_the_branchs_own_changes_count_and_a_rename_is_two(history: Path) -> None:
    assert sorted(changed_files("main", history)) == ["README.md", "a\nb.txt", "params.yaml"]
    assert changed_params("main", history) == {"train.epochs"}


def test_what_main_did_since_the_events_base_is_none_of_the_pull_requests_changes(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=history, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    old, head, newer = git("rev-parse", "main~1"), git("rev-parse", "change"), git("rev-parse", "main")
    git("switch", "--quiet", "--detach", "main")
    git("merge", "--quiet", "--no-ff", "--message", "Merge", "change")
    (tmp_path / "event.json").write_text(json.dumps({"pull_request": {"head": {"sha": head}, "base": {"sha": old}}}))
    assert base_of(old, history) == old, "without an event a merge can be anybody's"
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    assert base_of(old, history) == newer
    assert "dvc.yaml" in changed_files(old, history)
    assert sorted(changed_files(base_of(old, history), history)) == ["README.md", "a\nb.txt", "params.yaml"]
    git("switch", "--quiet", "--detach", "change")
    assert base_of(old, history) == old, "no merge is checked out"


def test_parameters_that_cannot_be_read_are_all_changed(history: Path) -> None:
    (history / "params.yaml").write_text("a: [")
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "Broken"], cwd=history, check=True)
    assert changed_params("main", history) == {EVERYTHING}


def test_an_unknown_base_is_one_line(history: Path) -> None:
    with pytest.raises(ConfigError, match="fetch the whole history"):
        changed_files("0" * 40, history)
    with pytest.raises(ConfigError):
        changed_files("--output=stolen", history)
    assert not (history / "stolen").exists()


def test_the_script_hands_its_plan_to_the_workflow(history: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(outputs), "GATEHOUSE_SHARDS": "2",
    }  # fmt: skip
    command = [sys.executable, "-m", "scripts.plan", "--base", "main"]
    done = subprocess.run(command, cwd=history, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = outputs.read_text().splitlines()
    found = {lines[at].split("<<")[0]: lines[at + 1] for at in range(0, len(lines), 3)}
    assert found["evaluate"] == found["train"] == "true"
    assert json.loads(found["shards"]) == ["1/2", "2/2"]
    assert found["reason"].startswith("training and evaluation: ")
