import base64
from pathlib import Path

import pytest

from pipelines.core.git import GitFailed, contents_of, credentials, files_of, git, text_of
from tests.evaluation.test_baseline import commit, repository
from tests.evaluation.test_baseline import git as run


def test_a_commit_is_read_without_checking_it_out(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / "é\tname").write_bytes(b"one\0\n")
    (root / "empty").write_bytes(b"")
    (root / "link").symlink_to("empty")
    commit(root, "Begin")
    entries = files_of(root, "HEAD")
    assert {path: entry.mode for path, entry in entries.items()} == {
        "é\tname": "100644",
        "empty": "100644",
        "link": "120000",
    }
    assert list(contents_of(root, [entry.oid for entry in entries.values()])) == [b"", b"empty", b"one\0\n"]
    assert entries["link"].size == 5


def test_a_large_object_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / "large").write_bytes(b"x" * 100)
    commit(root, "Begin")
    with pytest.raises(GitFailed, match="has 100 bytes, at most 99"):
        text_of(root, files_of(root, "HEAD")["large"].oid, most_bytes=99)
    with pytest.raises(GitFailed, match="is missing"):
        list(contents_of(root, ["0" * 40]))


def test_a_failure_is_one_line_that_cannot_write_commands(tmp_path: Path) -> None:
    with pytest.raises(GitFailed) as caught:
        git(repository(tmp_path), "cat-file", "-s", "a\n::set-output name=x::y")
    assert "\n" not in str(caught.value)


def test_the_token_goes_to_github_alone_and_into_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path)
    run(root, "remote", "add", "origin", "https://github.com/o/r")
    run(root, "remote", "add", "elsewhere", "https://github.com.evil.example/o/r")
    monkeypatch.setenv("GH_TOKEN", "secret")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    assert credentials(root, "elsewhere") == credentials(root, "nowhere") == {}
    found = credentials(root, "origin")
    asked = git(root, "config", "--get-urlmatch", "http.extraheader", "https://github.com/o/r", environment=found)
    assert asked.decode().strip() == f"AUTHORIZATION: basic {base64.b64encode(b'x-access-token:secret').decode()}"
    assert "secret" not in (root / ".git/config").read_text()
    monkeypatch.delenv("GH_TOKEN")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    assert credentials(root, "origin") == {}
