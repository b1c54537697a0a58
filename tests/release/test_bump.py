"""The next version's tag, written after the checks that its release will make."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pipelines.core import records
from pipelines.core.errors import ConfigError, GateFailed
from pipelines.release.bump import Bumped, bump
from pipelines.release.store import Store
from pipelines.release.version import Part, Version, parse_tag
from tests.release.site import IDENTITY, Site, git


@pytest.fixture(autouse=True)
def _person(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)


def bumped(site: Site, part: Part, **options: Any) -> Bumped:
    return bump(Store(site.root), part, partial(records.read, root=site.root), **options)


@pytest.mark.parametrize(("part", "tag"), [("patch", "v1.2.4"), ("minor", "v1.3.0"), ("major", "v2.0.0")])
def test_a_part_is_raised_and_what_is_right_of_it_begins_anew(part: Part, tag: str) -> None:
    assert parse_tag("v1.2.3").next(part).tag == tag


def test_versions_compare_as_numbers() -> None:
    assert Version(1, 10, 0) > Version(1, 9, 9)


def test_the_tag_is_annotated_stands_on_head_and_can_be_released(site: Site) -> None:
    site.commit({"prompts/triage.prompt.yml": "name: new\n"}, "Word it anew")
    made = bumped(site, "minor", does_push=True)
    assert made == ("v1.2.0", git(site.root, "rev-parse", "HEAD"), True, True)
    assert git(site.origin, "cat-file", "-t", "refs/tags/v1.2.0") == "tag"
    assert site.release("v1.2.0", once=True).result == "waiting"


def test_run_again_it_finds_the_tag_that_it_made(site: Site) -> None:
    site.commit({"prompts/triage.prompt.yml": "name: new\n"}, "Word it anew")
    assert bumped(site, "patch").is_new
    assert bumped(site, "patch", does_push=True) == ("v1.1.1", git(site.root, "rev-parse", "HEAD"), False, True)


def test_a_commit_that_is_tagged_already_gets_no_second_version(site: Site) -> None:
    with pytest.raises(GateFailed, match=r"^this commit is v1\.1\.0 already"):
        bumped(site, "major")


def test_a_commit_off_main_and_one_without_a_decision_get_no_tag(site: Site) -> None:
    (site.root / "gates.yaml").write_text("schema_version: 1\n# other\n")
    git(site.root, "commit", "--quiet", "--all", "--message", "Aside")
    with pytest.raises(GateFailed, match=r"^this commit: commit \w{12} is not on main; merge it first$"):
        bumped(site, "patch")
    git(site.root, "pull", "--quiet", "--rebase", "origin", "main")
    git(site.root, "push", "--quiet", "origin", "main")
    with pytest.raises(GateFailed, match=r"^this commit: nobody has decided about its tree"):
        bumped(site, "patch")
    assert git(site.root, "tag", "--list", "v1.1.1") == ""


def test_without_a_remote_nothing_can_be_pushed(lone: Site) -> None:
    lone.commit({"prompts/triage.prompt.yml": "name: new\n"}, "Word it anew")
    with pytest.raises(ConfigError, match=r"^v1\.1\.1: there is no remote to push to; leave out --push$"):
        bumped(lone, "patch", does_push=True)
