import base64
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.git import (
    GitFailed,
    changed_between,
    contents_of,
    credentials,
    fetch_untrusted,
    files_of,
    git,
    text_of,
)
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


def crafted(root: Path, *entries: tuple[str, str], within: str = "") -> str:
    """Write a tree with names that Git would refuse, (mode, name) each, over one blob; return it or a tree above."""
    blob = git(root, "hash-object", "-w", "--stdin", stdin=b"forged\n").decode().strip()
    data = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(blob) for mode, name in entries)
    write = ("hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    tree = git(root, *write, stdin=data).decode().strip()
    if not within:
        return tree
    return git(root, *write, stdin=f"40000 {within}".encode() + b"\0" + bytes.fromhex(tree)).decode().strip()


@pytest.mark.parametrize("name", ["../../pipelines/evaluation/gate.py", "..", ".", ".git", ".GIT", "a//b", "/etc/x"])
@pytest.mark.parametrize("within", ["", "prompts"])
def test_a_tree_with_names_that_lead_elsewhere_is_not_listed(tmp_path: Path, name: str, within: str) -> None:
    root = repository(tmp_path)
    empty, tree = git(root, "mktree").decode().strip(), crafted(root, ("100644", name), within=within)
    with pytest.raises(ConfigError, match="is no plain path of a tree"):
        files_of(root, tree)
    with pytest.raises(ConfigError, match="is no plain path of a tree"):
        changed_between(root, empty, tree)


def test_a_folder_above_and_a_name_that_stands_there_twice_are_not_listed(tmp_path: Path) -> None:
    root = repository(tmp_path)
    with pytest.raises(ConfigError, match="is no plain path"):
        files_of(root, crafted(root, ("100644", "x"), within=".."))
    with pytest.raises(ConfigError, match="twice"):
        files_of(root, crafted(root, ("100644", "params.yaml"), ("100644", "params.yaml")))


def test_malformed_objects_are_not_fetched(tmp_path: Path) -> None:
    for name in ("origin", "clone"):
        (tmp_path / name).mkdir()
    origin, clone = repository(tmp_path / "origin"), repository(tmp_path / "clone")
    run(clone, "remote", "add", "origin", str(origin))
    for number, tree in enumerate([crafted(origin, ("100644", "../x")), git(origin, "mktree").decode().strip()]):
        made = run(origin, "commit-tree", "-m", "Forge", tree)
        run(origin, "update-ref", f"refs/pull/{number}/head", made)
    with pytest.raises(ConfigError, match="rebase it"):
        fetch_untrusted(clone, "refs/pull/0/head")
    fetch_untrusted(clone, "refs/pull/1/head")
    with pytest.raises(GitFailed, match="git fetch: fatal: couldn't find remote ref"):
        fetch_untrusted(clone, "refs/pull/2/head")


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
