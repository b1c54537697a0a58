import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.core.files import read_json, write_json
from pipelines.evaluation.baseline import FOLDER, Baseline, fetch_baseline, resolve
from tests.evaluation.evidence import right, write_suite

PARAMS = {"schema_version": 1, "datasets": {"triage": {"path": "data/triage.jsonl"}}}


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path, message: str, tag: str = "") -> str:
    git(root, "add", "--all")
    git(root, "commit", "--allow-empty", "--message", message)
    if tag:
        git(root, "tag", "--annotate", "--message", tag, tag)
    return git(root, "rev-parse", "HEAD")


def repository(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--initial-branch", "main")
    git(root, "config", "user.email", "nobody@example.com")
    git(root, "config", "user.name", "Nobody")
    return root


def dvc(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=root, check=True, capture_output=True, env=environment)


def release(root: Path) -> str:
    """Evaluate and release v1.0.0: `triage` is a folder to DVC, `latency` three files, and a remote holds them all."""
    write_suite(root / "evaluation/triage", {"exact_match": right(100, 170)})
    write_json(root / "evaluation/triage/metrics.json", {"schema_version": 1})
    write_suite(root / "evaluation/latency", {"latency_ms": [10.0] * 60})
    for path, text in {
        "data/triage.jsonl": "{}\n",
        "gates.yaml": "a: 1\n",
        "prompts/triage.prompt.yml": "name: t\n",
    }.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / ".gitignore").write_text("/evaluation/\n")
    outs = ["evaluation/triage", "evaluation/latency/rows.parquet", "evaluation/latency/run.json"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": {"cmd": "true", "outs": outs}}}))
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--default", "store", str(root.parent / "store"))
    dvc(root, "commit", "--quiet", "--force")
    dvc(root, "push", "--quiet")
    return commit(root, "Evaluate", "v1.0.0")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a release, a later commit, and nothing of the release left in its working tree."""
    root = repository(tmp_path_factory.mktemp("origin") / "project")
    release(root)
    (root / "params.yaml").write_text("later: true\n")
    commit(root, "Change a parameter")
    shutil.rmtree(root / "evaluation")
    return root


@pytest.fixture
def project(origin: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break; the remote is its own as well."""
    shutil.copytree(origin.parent, tmp_path / "all", symlinks=True)
    root = tmp_path / "all/project"
    config = root / ".dvc/config"
    config.write_text(config.read_text().replace(str(origin.parent), str(tmp_path / "all")))
    return root


def state(root: Path) -> dict[str, object]:
    found = read_json(root / FOLDER / "baseline.json")
    assert isinstance(found, dict)
    return found


def test_a_repository_that_never_released_has_no_baseline(tmp_path: Path) -> None:
    root = repository(tmp_path)
    assert fetch_baseline("auto", root).state == "none"
    commit(root, "Begin", "latest")
    git(root, "tag", "v1.0")
    git(root, "tag", "v1.0.0-rc.1")
    found = fetch_baseline("auto", root)
    assert (found.state, found.reason) == ("none", "nothing was ever released: no tag like v1.0.0 leads to HEAD")
    assert state(root)["state"] == "none"


def test_none_is_taken_at_its_word(tmp_path: Path) -> None:
    assert fetch_baseline("none", tmp_path) == Baseline("none", reason="none was asked for")


def test_the_last_release_is_the_highest_version_that_leads_to_head(tmp_path: Path) -> None:
    root = repository(tmp_path)
    commit(root, "One", "v1.9.0")
    wanted = commit(root, "Two", "v1.10.0")
    git(root, "switch", "--create", "elsewhere")
    commit(root, "Three", "v2.0.0")
    git(root, "switch", "main")
    found = resolve("auto", root)
    assert (found.ref, found.commit) == ("v1.10.0", wanted)


def test_a_branch_named_like_the_tag_is_not_the_release(tmp_path: Path) -> None:
    root = repository(tmp_path)
    wanted = commit(root, "One", "v1.0.0")
    commit(root, "Two")
    git(root, "branch", "v1.0.0")
    assert resolve("auto", root).commit == wanted


def test_a_folder_outside_of_git_is_no_first_release(tmp_path: Path) -> None:
    found = fetch_baseline("auto", tmp_path)
    assert found.state == "unavailable"
    assert "not a git repository" in found.reason


def test_a_shallow_clone_does_not_know_whether_anything_was_released(tmp_path: Path) -> None:
    root = repository(tmp_path / "whole")
    commit(root, "One", "v1.0.0")
    commit(root, "Two")
    git(tmp_path, "clone", "--depth", "1", f"file://{root}", "shallow")
    found = fetch_baseline("auto", tmp_path / "shallow")
    assert found.state == "unavailable"
    assert "shallow" in found.reason


def test_a_clone_without_tags_does_not_know_whether_anything_was_released(tmp_path: Path) -> None:
    root = repository(tmp_path / "whole")
    commit(root, "One", "v1.0.0")
    git(tmp_path, "clone", "--no-tags", str(root), "bare")
    found = fetch_baseline("auto", tmp_path / "bare")
    assert (found.state, "git fetch --tags origin" in found.reason) == ("unavailable", True)
    root.rename(tmp_path / "gone")
    found = fetch_baseline("auto", tmp_path / "bare")
    assert (found.state, "cannot be asked" in found.reason) == ("unavailable", True)


def test_a_normal_clone_without_its_remote_has_no_baseline_where_nothing_was_released(tmp_path: Path) -> None:
    root = repository(tmp_path / "whole")
    commit(root, "One")
    git(tmp_path, "clone", str(root), "laptop")
    assert fetch_baseline("auto", tmp_path / "laptop").state == "none"
    root.rename(tmp_path / "gone")
    assert fetch_baseline("auto", tmp_path / "laptop").state == "none"


def test_a_release_that_leads_elsewhere_and_is_here_is_no_baseline(tmp_path: Path) -> None:
    root = repository(tmp_path / "whole")
    commit(root, "One")
    git(root, "switch", "--create", "elsewhere")
    commit(root, "Two", "v1.0.0")
    git(root, "switch", "main")
    git(tmp_path, "clone", str(root), "copy")
    assert fetch_baseline("auto", tmp_path / "copy").state == "none"


@pytest.mark.parametrize("how", ["a broken reference", "a lost object", "a packed reference", "a detached HEAD"])
def test_a_head_that_cannot_be_read_is_no_first_release(tmp_path: Path, how: str) -> None:
    root = repository(tmp_path)
    sha = commit(root, "One", "v1.0.0")
    if how == "a packed reference":
        git(root, "pack-refs", "--all")
    if how == "a broken reference":
        (root / ".git/refs/heads/main").write_text("no commit\n")
    elif how == "a detached HEAD":
        (root / ".git/HEAD").write_text(f"{'ab' * 20}\n")
    else:
        (root / ".git/objects" / sha[:2] / sha[2:]).unlink()
    found = fetch_baseline("auto", root)
    assert found.state == "unavailable"
    assert found.reason.startswith("HEAD leads to no commit that Git can read")


@pytest.mark.parametrize("ref", ["v9.9.9", "--help", "main:params.yaml", "no such thing"])
def test_an_unknown_reference_is_unavailable(tmp_path: Path, ref: str) -> None:
    root = repository(tmp_path)
    commit(root, "One")
    found = fetch_baseline(ref, root)
    assert (found.state, found.ref) == ("unavailable", ref)
    assert state(root)["reason"] == found.reason


def test_a_release_without_dvc_lock_is_unavailable(tmp_path: Path) -> None:
    root = repository(tmp_path)
    commit(root, "One", "v1.0.0")
    assert "has no dvc.lock" in fetch_baseline("auto", root).reason


@pytest.mark.parametrize("lock", ["[]", "stages: {a: 3}", "a: [", "stages: {}", "stages: {a: {outs: [{path: x}]}}"])
def test_a_broken_dvc_lock_is_unavailable(tmp_path: Path, lock: str) -> None:
    root = repository(tmp_path)
    (root / "dvc.lock").write_text(lock)
    commit(root, "One", "v1.0.0")
    found = fetch_baseline("auto", root)
    assert found.state == "unavailable"
    assert "dvc.lock of v1.0.0" in found.reason


def test_rows_and_declared_files_of_the_release_are_fetched(project: Path) -> None:
    found = fetch_baseline("auto", project)
    folder = project / FOLDER
    assert (found.state, found.ref, found.commit) == ("fetched", "v1.0.0", git(project, "rev-parse", "v1.0.0^{commit}"))
    assert found.created == git(project, "show", "--no-patch", "--format=%cI", "v1.0.0^{commit}")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "baseline.json",
        "declared/data/triage.jsonl",
        "declared/gates.yaml",
        "declared/params.yaml",
        "declared/prompts/triage.prompt.yml",
        "latency/rows.parquet",
        "latency/run.json",
        "triage/metrics.json",
        "triage/rows.parquet",
        "triage/run.json",
    ]
    assert yaml.safe_load((folder / "declared/params.yaml").read_text()) == PARAMS


def test_rows_come_from_the_remote_where_the_cache_is_empty(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    assert fetch_baseline("v1.0.0", project).state == "fetched"


def test_rows_that_are_nowhere_are_unavailable_with_one_line(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project.parent / "store")
    found = fetch_baseline("auto", project)
    assert (found.state, found.ref) == ("unavailable", "v1.0.0")
    assert "could not be fetched" in found.reason
    assert "\n" not in found.reason
    assert [path.name for path in (project / FOLDER).iterdir()] == ["baseline.json"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_altered_cache_object_is_refused(project: Path, what: str) -> None:
    objects = [path for path in (project / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    for path in objects:
        if path.name.endswith(".dir") == (what == "folder"):
            path.chmod(0o644)
            data = path.read_bytes()
            if what == "folder":
                listing = json.loads(data)
                path.write_text(json.dumps([{**entry, "md5": listing[0]["md5"]} for entry in listing]))
            else:
                path.write_bytes(data + b" ")
    found = fetch_baseline("auto", project)
    assert found.state == "unavailable"
    assert "dvc.lock names" in found.reason


def test_a_fetched_baseline_is_kept_and_an_altered_one_fetched_again(project: Path) -> None:
    fetch_baseline("auto", project)
    rows = project / FOLDER / "triage/rows.parquet"
    whole, first = rows.read_bytes(), rows.stat().st_ino
    fetch_baseline("auto", project)
    assert rows.stat().st_ino == first
    rows.write_bytes(b"other")
    assert fetch_baseline("auto", project).state == "fetched"
    assert rows.read_bytes() == whole


def test_another_answer_takes_the_place_of_the_old_baseline(project: Path) -> None:
    fetch_baseline("auto", project)
    fetch_baseline("none", project)
    assert [path.name for path in (project / FOLDER).iterdir()] == ["baseline.json"]
