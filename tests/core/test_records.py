import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.records import BRANCH, Approval, Output, Record, path_of, read, write
from tests.evaluation.test_baseline import commit, git, repository

DIGEST = "ab" * 32


def record(digest: str = DIGEST, **changes: Any) -> Record:
    values: dict[str, Any] = {"schema_version": 1, "input_digest": digest, "verdict": "pass", "decision": {"gates": []},
                              "commit": "c" * 40, "lock": "schema: '2.0'\n"}  # fmt: skip
    return Record.model_validate({**values, **changes})


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "origin")
    return tmp_path / "origin"


def clone(origin: Path, name: str = "clone") -> Path:
    git(origin.parent, "clone", "--quiet", str(origin), name)
    root = repository(origin.parent / name)
    if not git(root, "ls-remote", "origin", "main"):
        (root / "file").write_text("x\n")
        commit(root, "Begin")
        git(root, "push", "--quiet", "origin", "main")
    return root


def test_a_record_comes_back_as_it_was_written_from_another_clone(origin: Path) -> None:
    wanted = record(
        approval=Approval(user="ada", at="2026-11-20T10:00:00Z", why="Looks right: ✓"),
        manifest={"models/candidate/model.json": Output(sha256="0" * 64, size=3, md5="1" * 32)},
        pull_request=7,
    )
    write(wanted.as_file(), "Decide", clone(origin))
    assert read(DIGEST, clone(origin, "other")) == wanted
    assert read("cd" * 32, clone(origin, "third")) is None


def test_the_branch_has_its_own_root_and_nothing_else_is_touched(origin: Path) -> None:
    root = clone(origin)
    (root / "staged").write_text("mine\n")
    git(root, "add", "staged")
    before = git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")
    write(record().as_file(), "Decide", root)
    assert (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")) == before
    assert git(origin, "rev-list", "--count", BRANCH) == "1"
    assert git(origin, "ls-tree", "-r", "--name-only", BRANCH) == path_of(DIGEST)
    assert git(origin, "log", "-1", "--format=%an", BRANCH) == "gatehouse"


def test_writing_the_same_again_makes_no_commit(origin: Path) -> None:
    root = clone(origin)
    first = write(record().as_file(), "Decide", root)
    assert write(record().as_file(), "Decide", root) == first
    assert write(record(verdict="fail").as_file(), "Decide again", root) != first
    found = read(DIGEST, root)
    assert found is not None
    assert found.verdict == "fail"
    assert git(origin, "rev-list", "--count", BRANCH) == "2"


def test_writers_at_once_lose_nothing(origin: Path) -> None:
    roots = [clone(origin, f"clone-{number}") for number in range(4)]
    digests = [f"{number:02x}" * 32 for number in range(4)]
    problems: list[BaseException] = []

    def decide(root: Path, digest: str) -> None:
        try:
            write(record(digest).as_file(), f"Decide {digest[:4]}", root)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=decide, args=pair) for pair in zip(roots, digests, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [read(digest, roots[0]) is not None for digest in digests] == [True] * 4
    assert git(origin, "rev-list", "--count", BRANCH) == "4"


def test_an_overtaken_writer_keeps_what_the_other_wrote(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = clone(origin), clone(origin, "theirs")
    write(record("00" * 32).as_file(), "Zero", mine)
    from pipelines.core import records

    real, calls = records._tip, []

    def tip_then_overtaken(root: Path, remote: str | None) -> str | None:
        found = real(root, remote)
        calls.append(root)
        if calls == [mine]:
            write(record("11" * 32).as_file(), "One", theirs)
        return found

    monkeypatch.setattr(records, "_tip", tip_then_overtaken)
    write(record("22" * 32).as_file(), "Two", mine)
    assert calls.count(mine) == 2
    assert all(read(f"{digit}{digit}" * 32, theirs) for digit in "012")


def test_one_laptop_without_a_remote_keeps_records_as_well(tmp_path: Path) -> None:
    root = repository(tmp_path)
    assert read(DIGEST, root) is None
    write(record().as_file(), "Decide", root)
    write(record("cd" * 32).as_file(), "Decide", root)
    assert read(DIGEST, root) == record()
    assert git(root, "rev-list", "--count", BRANCH) == "2"


def test_outside_of_git_there_is_no_record(tmp_path: Path) -> None:
    assert read(DIGEST, tmp_path) is None


def test_a_remote_that_is_gone_is_one_line(origin: Path) -> None:
    root = clone(origin)
    origin.rename(origin.with_name("away"))
    for job in (lambda: read(DIGEST, root), lambda: write(record().as_file(), "Decide", root)):
        with pytest.raises(ServiceError) as caught:
            job()
        assert "\n" not in str(caught.value)


def test_a_remote_that_refuses_is_not_asked_twelve_times(origin: Path) -> None:
    hook = origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho denied >&2\necho once >> calls\nexit 1\n")
    hook.chmod(0o755)
    root = clone_without_push(origin)
    with pytest.raises(ServiceError, match="pre-receive hook declined"):
        write(record().as_file(), "Decide", root)
    assert (origin / "calls").read_text() == "once\n"


def clone_without_push(origin: Path) -> Path:
    subprocess.run(
        ["git", "clone", "--quiet", str(origin), "clone"], cwd=origin.parent, check=True, capture_output=True
    )
    return repository(origin.parent / "clone")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", ".git/config", "", "a//b", "./a"])
def test_no_path_leads_out_of_the_branch(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError):
        write({path: b""}, "Escape", repository(tmp_path))


@pytest.mark.parametrize("digest", ["", "../../x", "AB" * 32, "ab" * 31, DIGEST + "\n"])
def test_what_is_no_digest_is_no_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ConfigError):
        read(digest, tmp_path)


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'{"schema_version": 2}', record("cd" * 32).model_dump_json().encode(), b"\xff"]
)
def test_a_broken_record_is_one_line(tmp_path: Path, text: bytes) -> None:
    root = repository(tmp_path)
    write({path_of(DIGEST): text}, "Break", root)
    with pytest.raises(ConfigError, match="branch gatehouse: decisions/abab") as caught:
        read(DIGEST, root)
    assert "\n" not in str(caught.value)
