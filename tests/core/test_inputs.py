import shutil
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.inputs import input_digest, input_digest_at
from tests.evaluation.test_baseline import commit, git, repository

PARAMS = """\
datasets: {triage: {path: data/triage.jsonl}, kept: {path: data/kept/rows.jsonl}, evil: {path: ../../etc/passwd}}
train: {prompt: prompts/triage.prompt.yml}
suites: {triage: {prompt: elsewhere/other.prompt.yml, judges: {tone: {prompt: p, calibration: elsewhere/tone.jsonl}}}}
"""
FILES = {
    "params.yaml": PARAMS,
    "gates.yaml": "a: 1\n",
    "dvc.yaml": "stages: {}\n",
    "data/triage.jsonl": "{}\n",
    "data/kept.dvc": "outs: [{md5: abc.dir, path: kept}]\n",
    "prompts/triage.prompt.yml": "name: t\n",
    "elsewhere/other.prompt.yml": "name: o\n",
    "elsewhere/tone.jsonl": "{}\n",
    "pipelines/core/a.py": "A = 1\n",
    "pipelines/core/templates/page.html.j2": "<p>\n",
    "scripts/a.py": "A = 2\n",
    "locks/cpu.txt": "a==1\n",
}
OTHERS = {
    "README.md": "x\n",
    "docs/a.md": "x\n",
    "tests/test_a.py": "x = 1\n",
    ".github/workflows/a.yml": "on: push\n",
    "pipelines/core/notes.md": "x\n",
    "data/other.jsonl": "{}\n",
    "elsewhere/third.txt": "x\n",
    "dvc.lock": "stages: {}\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = repository(tmp_path / "project")
    for name, text in {**FILES, **OTHERS}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    commit(root, "Begin")
    return root


def test_files_and_git_objects_give_one_digest(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(project), "clone")
    found = {input_digest(project), input_digest_at("HEAD", project), input_digest_at("HEAD^{tree}", project)}
    assert found == {input_digest(tmp_path / "clone")}


@pytest.mark.parametrize("name", FILES)
def test_every_input_changes_the_digest(project: Path, name: str) -> None:
    before = input_digest(project)
    with (project / name).open("a") as stream:
        stream.write("# more\n")
    after = input_digest(project)
    assert after != before
    assert input_digest_at("HEAD", project) == before
    commit(project, "Change")
    assert input_digest_at("HEAD", project) == after


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_changes_it(project: Path, name: str) -> None:
    before = input_digest(project)
    (project / name).unlink()
    commit(project, "Remove")
    assert input_digest(project) == input_digest_at("HEAD", project) == before


@pytest.mark.parametrize("name", ["data/triage.jsonl", "prompts/triage.prompt.yml", "scripts/a.py"])
def test_a_file_that_moves_or_goes_changes_it(project: Path, name: str) -> None:
    before = input_digest(project)
    (project / name).rename(project / f"{name}.old")
    assert input_digest(project) != before


def test_what_dvc_keeps_counts_by_its_lock_wherever_the_data_is(project: Path) -> None:
    before = input_digest(project)
    (project / "data/kept").mkdir()
    (project / "data/kept/rows.jsonl").write_text("{}\n")
    assert input_digest(project) == before
    (project / "data/kept.dvc").unlink()
    assert input_digest(project) != before


def test_bytecode_and_compiled_folders_are_no_input(project: Path) -> None:
    before = input_digest(project)
    (project / "pipelines/core/__pycache__").mkdir()
    (project / "pipelines/core/__pycache__/a.cpython-311.pyc").write_bytes(b"\0")
    (project / "pipelines/core/__pycache__/a.py").write_text("A = 1\n")
    assert input_digest(project) == before


@pytest.mark.parametrize("name", ["data/triage.jsonl", "prompts/linked.prompt.yml", "pipelines/evil.py"])
def test_a_symbolic_link_is_refused_in_files_and_in_git(project: Path, name: str) -> None:
    (project / name).unlink(missing_ok=True)
    (project / name).symlink_to("/etc/passwd")
    commit(project, "Link")
    with pytest.raises(ConfigError, match=f"{name}: is a symbolic link"):
        input_digest(project)
    with pytest.raises(ConfigError, match=f"{name}: is a symbolic link"):
        input_digest_at("HEAD", project)


def test_a_pointer_of_git_lfs_stands_for_the_content_it_names(project: Path) -> None:
    data = project / "data/triage.jsonl"
    data.write_bytes(b'{"message": "long"}\n' * 100)
    before = input_digest(project)
    import hashlib

    name = hashlib.sha256(data.read_bytes()).hexdigest()
    data.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{name}\nsize 2000\n")
    commit(project, "Point")
    assert input_digest_at("HEAD", project) == before


def test_a_project_that_is_no_repository_has_a_digest(project: Path) -> None:
    before = input_digest(project)
    shutil.rmtree(project / ".git")
    assert input_digest(project) == before


def test_a_broken_or_missing_params_is_one_line_or_nothing(project: Path) -> None:
    (project / "params.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match=r"params\.yaml:"):
        input_digest(project)
    (project / "params.yaml").write_text("- a\n- list\n")
    commit(project, "Break")
    assert input_digest(project) == input_digest_at("HEAD", project)
    (project / "params.yaml").unlink()
    assert input_digest(project)
