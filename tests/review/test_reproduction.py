"""Take from a DVC remote, compute, push, hand over, take over and register, in real clones with a real remote."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest

from pipelines.core import records
from pipelines.core.files import sha256
from pipelines.core.inputs import input_digest
from tests.repository import SmallRepository, altered
from tests.test_main_job import Repository

pytestmark = pytest.mark.slow
STAGES = 10
ADAPTER = "models/candidate/adapter_model.safetensors"


class Done(NamedTuple):
    repository: SmallRepository
    remote: Path
    said: subprocess.CompletedProcess[str]


def outputs(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    return {name: value for name, _, value in lines if name in ("stages", "computed", "gpu_seconds", "train_seconds")}


def ended(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Check the exit code, that the message is one line, and return it."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"exit code {code}"
    return errors[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Done:
    """A pull request's run: everything is computed once and pushed to the pull request's own folder."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "remote").mkdir()
    repository = SmallRepository(folder / "project", tiny_model)
    said = repository.run("scripts.reproduce", f"--pull={folder}/remote", f"--push={folder}/remote/pr/3")
    assert said.returncode == 0, said.stdout + said.stderr
    return Done(repository, folder / "remote", said)


@pytest.fixture(scope="module")
def recorded(done: Done) -> dict[str, Any]:
    """The hand-over of that run, recorded as a passed decision."""
    handed = done.repository.run("scripts.hand_over", "--to", "hand-over")
    assert handed.returncode == 0, handed.stderr
    manifest: dict[str, Any] = json.loads((done.repository.folder / "hand-over/manifest.json").read_text())
    record(done.repository, manifest["objects"])
    return manifest


def record(repository: Repository, objects: Any, **changes: Any) -> None:
    digest = input_digest(repository.folder)
    known = {
        "schema_version": 1, "input_digest": digest, "verdict": "pass", "decision": {}, "commit": "0" * 40,
        "pull_request": 3, "lock": (repository.folder / "hand-over/dvc.lock").read_text(), "manifest": objects,
    }  # fmt: skip
    kept = records.Record.model_validate(known | changes)
    records.write(kept.as_file(), "Decide", repository.folder, remote=None)


def test_the_first_run_computes_everything_and_says_what_it_took(done: Done) -> None:
    found = outputs(done.said)
    stages = json.loads(found["stages"])
    assert set(stages.values()) == {"computed"}
    assert len(stages) == STAGES
    assert found["computed"] == str(STAGES - 1)  # `machine` is no work
    assert float(found["train_seconds"]) > 0
    assert float(found["gpu_seconds"]) == 0
    written = json.loads((done.repository.folder / ".gatehouse/stages.json").read_text())
    assert written["stages"] == stages
    assert sum(written["stage_seconds"].values()) <= written["seconds"]
    assert not list(done.remote.glob("files")), "main's part of the remote was written"


def test_a_clean_clone_computes_nothing_and_gets_the_same_bytes(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    said = clone.run("scripts.reproduce", f"--pull={done.remote}\n{done.remote}/pr/3")
    assert said.returncode == 0, said.stdout + said.stderr
    found = outputs(said)
    assert found["computed"] == "0"
    assert found["train_seconds"] == found["gpu_seconds"] == "0"
    assert {what for name, what in json.loads(found["stages"]).items() if name != "machine"} == {"cached"}
    for name in (ADAPTER, "evaluation/triage/rows.parquet"):
        assert sha256(clone.folder / name) == sha256(done.repository.folder / name)
    again = clone.run("scripts.reproduce")
    assert {what for name, what in json.loads(outputs(again)["stages"]).items() if name != "machine"} == {"unchanged"}


def test_a_new_reply_prompt_takes_training_from_the_remote(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    prompt = clone.folder / "prompts/reply.prompt.yml"
    prompt.write_text(prompt.read_text().replace("warm, plain", "brief, warm"))
    said = clone.run("scripts.reproduce", f"--pull={done.remote}/pr/3")
    assert said.returncode == 0, said.stderr
    stages = json.loads(outputs(said)["stages"])
    assert stages["evaluate@reply"] == "computed"
    assert stages["train"] == stages["evaluate@triage"] == stages["latency"] == "cached"
    assert outputs(said)["train_seconds"] == "0"


def test_until_stops_before_evaluation(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    said = clone.run("scripts.reproduce", "--until", "train", f"--pull={done.remote}/pr/3")
    assert said.returncode == 0, said.stderr
    assert (clone.folder / ADAPTER).exists()
    assert not (clone.folder / "evaluation").exists()
    wrong = clone.run("scripts.reproduce", "--until", "trian")
    assert "dvc.yaml has no such stage (known: fetch, prepare" in ended(wrong, 2)


@pytest.mark.parametrize("url", ["{}/absent", "{}/file", "{}/absent/pr/3"])
def test_a_remote_that_is_down_is_one_line(done: Done, tmp_path: Path, url: str) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    (tmp_path / "file").write_text("no folder")
    said = clone.run("scripts.reproduce", "prepare", f"--pull={url.format(tmp_path)}")
    assert "the DVC remote is not there" in ended(said, 5)
    assert "stages=" not in said.stdout
    assert not (clone.folder / "dvc.lock").exists()


def test_a_url_that_no_remote_can_have_is_one_line_without_its_password(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    said = clone.run("scripts.reproduce", "prepare", "--pull=http://user:secret@127.0.0.1:1/dvc")
    assert "http://127.0.0.1:1/dvc: an HTTP server cannot be listed" in ended(said, 2)
    assert "secret" not in said.stdout + said.stderr


@pytest.mark.parametrize("like", ["pr/3/files/md5/*/*", "pr/3/runs/*/*/*"])
def test_altered_bytes_are_told_and_never_enter_the_cache(done: Done, tmp_path: Path, like: str) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    md5 = altered(done.remote, tmp_path / "altered", like=like)
    said = clone.run("scripts.reproduce", "--until", "prepare", f"--pull={tmp_path}/altered/pr/3")
    assert "the DVC remote returned altered bytes" in ended(said, 5)
    assert not list((clone.folder / ".dvc/cache").rglob(md5[2:]))
    assert "stages=" not in said.stdout


def test_a_list_of_files_that_is_altered_is_told(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    altered(done.remote, tmp_path / "altered", like="pr/3/files/md5/*/*.dir")
    said = clone.run("scripts.reproduce", f"--pull={tmp_path}/altered/pr/3")
    assert "list of " in ended(said, 5)


def test_a_full_remote_is_one_line_and_what_is_there_is_whole(done: Done, tmp_path: Path) -> None:
    def few_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    (tmp_path / "full").mkdir()
    command = [sys.executable, "-m", "scripts.reproduce", "--until", "fetch", f"--push={tmp_path}/full"]
    said = subprocess.run(
        command, cwd=done.repository.folder, env=os.environ | {"PYTHONPATH": ""}, preexec_fn=few_bytes,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "full: the DVC remote is full" in ended(said, 5)
    assert not list((tmp_path / "full").glob("runs"))  # an entry would promise objects that are not there
    left = [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert all(path.stat().st_size < 100_000 and path.suffix != ".tmp" for path in left)


def test_a_damaged_local_object_is_not_pushed(done: Done, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    clone = tmp_path / "clone"
    shutil.copytree(done.repository.folder, clone, symlinks=True)
    largest = max((clone / ".dvc/cache/files/md5").glob("*/*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(b"X" + largest.read_bytes()[1:])
    largest.chmod(0o444)
    copy = object.__new__(Repository)
    copy.folder = clone
    said = copy.run("scripts.reproduce", "--until", "fetch", f"--push={tmp_path}/remote")
    assert "is damaged in the" in ended(said, 5)


def test_a_missing_input_is_one_line(done: Done, tmp_path: Path) -> None:
    clone = done.repository.clone(tmp_path / "clone")
    (clone.folder / "pipelines/training/prepare.py").rename(tmp_path / "prepare.py")
    said = clone.run("scripts.reproduce", "--until", "prepare")
    assert "prepare.py" in ended(said, 2)


def test_the_hand_over_names_every_file_by_its_hash(done: Done, recorded: dict[str, Any]) -> None:
    folder = done.repository.folder / "hand-over"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == set(recorded["files"]) | {"manifest.json"}
    assert all(sha256(folder / name) == digest for name, digest in recorded["files"].items())
    assert {"dvc.lock", ".gatehouse/stages.json", "evaluation/triage/rows.parquet", "evaluation/latency/run.json",
            "models/candidate/training.json", "data/validation/triage/passed.json"} <= there  # fmt: skip
    assert recorded["objects"][ADAPTER]["sha256"] == sha256(done.repository.folder / ADAPTER)
    assert ".gatehouse/machine.json" not in recorded["objects"]
    assert recorded["head"] == done.repository.git("rev-parse", "HEAD").strip()


def test_in_a_pull_request_the_head_is_the_events(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"head": {"sha": "a" * 40}, "base": {"sha": "b" * 40}}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    said = done.repository.run("scripts.hand_over", "--to", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    merge = done.repository.git("rev-parse", "HEAD").strip()
    assert (manifest["head"], manifest["base"], manifest["merge"]) == ("a" * 40, "b" * 40, merge)


def test_results_that_somebody_touched_are_not_handed_over(done: Done, tmp_path: Path) -> None:
    copy = object.__new__(Repository)
    copy.folder = tmp_path / "clone"
    shutil.copytree(done.repository.folder, copy.folder, symlinks=True)
    path = copy.folder / "evaluation/triage/run.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("triage", "forged"))
    assert "is not what dvc.lock names" in ended(copy.run("scripts.hand_over", "--to", "hand-over"), 2)


def test_main_takes_over_what_the_decision_names_and_trains_nothing(
    done: Done, recorded: dict[str, Any], tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(done.remote, remote)
    main = done.repository.clone(tmp_path / "main")
    said = main.run("scripts.reproduce", f"--pull={remote}", "--take-over", f"--push={remote}")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "outputs of pull request 3 (verdict pass), each file by its SHA-256" in said.stdout
    assert outputs(said)["computed"] == "0"
    assert outputs(said)["train_seconds"] == "0"
    assert sha256(main.folder / ADAPTER) == recorded["objects"][ADAPTER]["sha256"]
    # From now on main's part of the remote is enough for everybody.
    shutil.rmtree(remote / "pr")
    later = done.repository.clone(tmp_path / "later")
    assert outputs(later.run("scripts.reproduce", f"--pull={remote}"))["computed"] == "0"


def test_one_altered_byte_is_refused_and_nothing_of_the_run_is_taken(
    done: Done, recorded: dict[str, Any], tmp_path: Path
) -> None:
    main = done.repository.clone(tmp_path / "main")
    md5 = recorded["objects"][ADAPTER]["md5"]
    altered(done.remote, tmp_path / "altered", like=f"pr/3/files/md5/{md5[:2]}/{md5[2:]}")
    said = main.run("scripts.reproduce", f"--pull={tmp_path}/altered", "--take-over")
    assert ADAPTER in ended(said, 5)
    assert not (main.folder / "dvc.lock").exists()
    assert not [path for path in (main.folder / ".dvc/cache").rglob("*") if path.is_file()]


def test_an_object_of_the_right_md5_and_another_sha256_is_refused(
    done: Done, recorded: dict[str, Any], tmp_path: Path
) -> None:
    main = done.repository.clone(tmp_path / "main")
    other = {**recorded["objects"], ADAPTER: {**recorded["objects"][ADAPTER], "sha256": "0" * 64}}
    record(done.repository, other)
    try:
        said = main.run("scripts.reproduce", f"--pull={done.remote}", "--take-over")
    finally:
        record(done.repository, recorded["objects"])
    assert f"{ADAPTER}: SHA-256 is not the one that the decision names" in ended(said, 5)
    assert not (main.folder / "dvc.lock").exists()


def test_an_object_that_is_gone_is_computed_and_one_that_is_altered_is_refused(
    done: Done, recorded: dict[str, Any], tmp_path: Path
) -> None:
    main = done.repository.clone(tmp_path / "main")
    shutil.copytree(done.remote, tmp_path / "remote")
    gone, other = (
        tmp_path / "remote/pr/3/files/md5" / md5[:2] / md5[2:]
        for md5 in (recorded["objects"][name]["md5"] for name in (ADAPTER, "models/candidate/training.json"))
    )
    gone.unlink()
    kept = other.read_bytes()
    other.chmod(0o644)
    other.write_bytes(b"x" + kept[1:])
    command = "scripts.reproduce", "--until", "fetch", f"--pull={tmp_path}/remote", "--take-over"
    assert "models/candidate/training.json" in ended(main.run(*command), 5)
    other.write_bytes(kept)
    said = main.run(*command)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{ADAPTER}: no remote holds what the decision names" in said.stdout
    assert "nothing taken over, it is computed" in said.stdout


def test_a_manifest_that_lacks_what_the_lock_names_is_told(
    done: Done, recorded: dict[str, Any], tmp_path: Path
) -> None:
    main = done.repository.clone(tmp_path / "main")
    record(done.repository, {name: one for name, one in recorded["objects"].items() if name != ADAPTER})
    try:
        said = main.run("scripts.reproduce", f"--pull={done.remote}", "--take-over")
    finally:
        record(done.repository, recorded["objects"])
    assert "models/candidate: the record's manifest is not what its dvc.lock names" in ended(said, 5)


def test_a_tree_that_nobody_decided_about_is_computed(done: Done, recorded: dict[str, Any], tmp_path: Path) -> None:
    main = done.repository.clone(tmp_path / "main")
    (main.folder / "gates.yaml").write_text((main.folder / "gates.yaml").read_text() + "# looser\n")
    said = main.run("scripts.reproduce", "--until", "fetch", f"--pull={done.remote}", "--take-over")
    assert said.returncode == 0, said.stderr
    assert "no decision that can be taken over" in said.stdout


def test_a_candidate_is_registered_once_with_what_leads_back_to_it(done: Done, recorded: dict[str, Any]) -> None:
    repository = done.repository
    approval = {"user": "owner", "at": "2026-11-21T12:00:00Z", "why": "reads well", "review_url": ""}
    record(repository, recorded["objects"], approval=approval)
    decided = repository.run("scripts.gate", "--baseline", "none")
    assert (repository.folder / "evaluation/decision.json").exists(), decided.stderr
    first, second = repository.run("scripts.register"), repository.run("scripts.register")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "registered as gatehouse 1" in first.stdout
    assert "already registered as gatehouse 1" in second.stdout
    assert first.stdout.splitlines()[-2:] == second.stdout.splitlines()[-2:]
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder}/mlflow.db")
    (version,) = client.search_model_versions("name = 'gatehouse'")
    assert version.tags["gatehouse.input_digest"] == input_digest(repository.folder)
    assert version.tags["gatehouse.dvc_lock_sha256"] == sha256(repository.folder / "dvc.lock")
    assert json.loads(version.tags["gatehouse.approval"])["user"] == "owner"
    assert version.tags["gatehouse.pull_request"] == "3"
    wanted = {
        f"gatehouse.{suite}.{what}_digest" for suite in ("triage", "reply") for what in ("prompt", "data", "model")
    }
    assert wanted <= version.tags.keys()
    run = client.get_run(version.run_id)
    assert run.data.tags["gatehouse.approval"] == version.tags["gatehouse.approval"]
    names = {each.path for each in client.list_artifacts(version.run_id, "candidate")}
    assert "candidate/training.json" in names


def test_the_candidate_is_compared_with_itself_over_halves_and_seeds(done: Done) -> None:
    said = done.repository.run("scripts.noise", "--seeds", "1,2", "--rounds", "50")
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads((done.repository.folder / "evaluation/noise.json").read_text())
    halves, seeds = found["comparisons"]
    assert (halves["n"], seeds["n"]) == (50, 2)
    assert seeds["what"] == "The same recipe trained with seeds 1, 2"
    assert {check["suite"] for check in seeds["checks"]} == {"triage"}  # no seed changes what the base model answers
    text = (done.repository.folder / "evaluation/noise.md").read_text()
    assert text in said.stdout
    assert "asked for review" in text
