"""The branch as a store: compare-and-swap with a remote and without, and nobody's work in the work tree is touched."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError, GatehouseError
from pipelines.release.store import Overtaken, Store
from tests.release.site import Site, git

PATH = "k8s/overlays/production/release.yaml"


def test_a_write_on_an_older_tip_is_refused_with_a_remote(site: Site) -> None:
    store = Store(site.root)
    tip = store.tip()
    site.commit({"README.md": "x\n"}, "Explain")
    with pytest.raises(Overtaken):
        store.write(tip, {PATH: b"a: 1\n"}, "Write")
    assert store.read(store.tip(), "README.md") == b"x\n"


def test_a_write_on_an_older_tip_is_refused_without_a_remote(lone: Site) -> None:
    store = Store(lone.root)
    tip = store.tip()
    lone.commit({"README.md": "x\n"}, "Explain")
    with pytest.raises(Overtaken):
        store.write(tip, {PATH: b"a: 1\n"}, "Write")


def test_with_a_remote_neither_the_work_tree_nor_the_local_branch_moves(site: Site) -> None:
    store, before = Store(site.root), git(site.root, "rev-parse", "HEAD")
    (site.root / PATH).parent.mkdir(parents=True, exist_ok=True)
    (site.root / PATH).write_text("mine\n")
    commit = store.write(store.tip(), {PATH: b"a: 1\n"}, "Write")
    assert git(site.root, "rev-parse", "HEAD") == before
    assert (site.root / PATH).read_text() == "mine\n"
    assert git(site.origin, "rev-parse", "main") == commit
    assert git(site.origin, "log", "-1", "--format=%an: %s", "main") == "gatehouse: Write"


def test_without_a_remote_the_work_tree_follows_and_other_work_stays(lone: Site) -> None:
    (lone.root / "serving.yaml").write_text("mine: 1\n")
    (lone.root / "staged").write_text("mine\n")
    git(lone.root, "add", "staged")
    before = git(lone.root, "status", "--porcelain")
    store = Store(lone.root)
    store.write(store.tip(), {PATH: b"a: 1\n"}, "Write")
    assert (lone.root / PATH).read_bytes() == b"a: 1\n"
    assert git(lone.root, "status", "--porcelain") == before


def test_a_file_that_somebody_edits_is_refused_in_one_line_and_nothing_moves(lone: Site) -> None:
    store = Store(lone.root)
    tip = store.tip()
    (lone.root / PATH).write_text("mine: 1\n")
    with pytest.raises(ConfigError, match=r"release\.yaml: has changes that are not committed"):
        store.write(tip, {PATH: b"a: 1\n"}, "Write")
    assert (store.tip(), (lone.root / PATH).read_text()) == (tip, "mine: 1\n")


def test_a_file_that_a_dead_run_left_behind_the_branch_is_brought_up(lone: Site) -> None:
    store = Store(lone.root)
    old = (lone.root / PATH).read_bytes()
    store.write(store.tip(), {PATH: b"a: 1\n"}, "Write")
    (lone.root / PATH).write_bytes(old)  # as if it had died before it wrote the file
    git(lone.root, "add", PATH)
    store.tip()
    assert (lone.root / PATH).read_bytes() == b"a: 1\n"
    assert git(lone.root, "status", "--porcelain") == ""


@pytest.mark.parametrize("path", ["../x", "/x", ".git/config", "a/../b"])
def test_a_path_that_leads_out_is_refused(lone: Site, path: str) -> None:
    store = Store(lone.root)
    with pytest.raises(GatehouseError, match="a plain path below the branch's top is needed"):
        store.write(store.tip(), {path: b""}, "Write")


def test_a_branch_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "other")
    with pytest.raises(ConfigError, match=r"^branch main: does not exist here"):
        Store(tmp_path).tip()


def test_an_index_that_a_command_beside_this_one_has_locked_is_waited_for(lone: Site) -> None:
    lock = lone.root / ".git/index.lock"
    lock.touch()
    threading.Timer(0.5, lock.unlink).start()
    assert lone.release("v1.1.0", once=True).result == "waiting"
    assert git(lone.root, "status", "--porcelain") == ""
