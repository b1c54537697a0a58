"""A release's page on GitHub: what it shows and when, what it leaves alone, and that a second time changes nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial

import pytest

from pipelines.core import records
from pipelines.core.errors import ConfigError, GateFailed
from pipelines.core.github.api import Api
from pipelines.release import machine
from pipelines.release.compose import compose
from pipelines.release.page import Published, publish
from pipelines.release.standing import standing
from tests.release.site import Site, git
from tests.standin.github import GitHub

URL = "https://github.example/o/r"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        yield server


def written(site: Site, github: GitHub, tag: str = "") -> Published:
    """Write the page as scripts.publish does."""
    store = site.world().store
    read = partial(records.read, root=store.root, remote=store.remote)
    page = compose(store, standing(store, tag), read, url=URL)
    return publish(Api("o/r", github.token, base_url=github.url, sleep=lambda _: None), page)


def test_it_is_a_draft_on_its_way_and_the_latest_when_it_serves(site: Site, github: GitHub) -> None:
    written(site, github, "v1.0.0")
    assert machine.release(site.world(), "v1.1.0", bounds=machine.Bounds(is_staging_only=True)).result == "staged"
    assert written(site, github).is_draft
    page, first = github.releases
    assert (page["tag_name"], page["draft"], github.latest) == ("v1.1.0", True, first["id"])
    assert [one["name"] for one in page["assets"]] == ["gatehouse-v1.1.0-manifest.json"]
    assert "**v1.1.0 is on its way.**" in page["body"]
    site.release("v1.1.0")
    assert written(site, github).url == page["html_url"]
    assert (page["draft"], page["prerelease"], page["name"], github.latest) == (False, False, "v1.1.0", page["id"])
    assert "**v1.1.0 is released.**" in page["body"]
    assert "```mermaid" in page["body"]
    assert "- Word it for v1.1.0" in page["body"], "what it brings"
    assert "Finish the release of v1.0.0" not in page["body"].partition("## Changes")[2], "the bot's own commits"
    files = {one["name"]: base64.b64decode(one["content"]) for one in page["assets"]}
    state = site.state()
    assert state.stable
    kept = git(site.git_root, "show", f"main:k8s/overlays/production/manifests/{state.stable.manifest}.json")
    assert files["gatehouse-v1.1.0-manifest.json"].decode() == kept + "\n"
    assert json.loads(files["gatehouse-v1.1.0-history.json"])["events"][-1]["action"] == "released"
    before = len(github.posts)
    written(site, github)
    assert len(github.posts) == before, "a second time changes nothing"


def test_one_that_was_taken_back_says_so_and_the_version_before_is_the_latest_again(site: Site, github: GitHub) -> None:
    for tag in ("v1.0.0", "v1.1.0"):
        site.release(tag)
        written(site, github, tag)
    machine.roll_back(site.world(), "customers complain")
    written(site, github)
    page, first = github.releases
    assert (page["name"], page["draft"], page["prerelease"]) == ("v1.1.0 (rolled back)", False, True)
    assert "customers complain" in page["body"]
    assert github.latest == first["id"]
    machine.let_go(site.world(), "it was the network", "v1.1.0")
    machine.release(site.world(), "v1.1.0", once=True)
    written(site, github)
    assert (page["draft"], page["prerelease"]) == (False, True), "what people saw is not hidden again"
    site.release("v1.1.0")
    written(site, github)
    assert (page["name"], page["prerelease"], github.latest) == ("v1.1.0", False, page["id"])


def test_a_candidate_that_never_served_is_published_as_rolled_back(site: Site, github: GitHub) -> None:
    site.script(errors=0.3)
    site.release("v1.1.0")
    assert not written(site, github).is_draft
    (page,) = github.releases
    assert (page["name"], page["prerelease"], github.latest) == ("v1.1.0 (rolled back)", True, 0)
    assert "> [!CAUTION]" in page["body"]


def test_what_a_person_wrote_around_it_stays(site: Site, github: GitHub) -> None:
    api = Api("o/r", github.token, base_url=github.url)
    about = {"tag_name": "v1.1.0", "name": "The warm one", "body": "Read this first.", "draft": True}
    api.post("/repos/{repository}/releases", about)
    site.release("v1.1.0")
    written(site, github)
    (page,) = github.releases
    assert page["body"].startswith("Read this first.\n\n<!-- gatehouse:release -->\n")
    page["body"] += "\n\nAnd this last."
    written(site, github)
    assert page["body"].startswith("Read this first.\n\n<!--")
    assert page["body"].endswith("<!-- gatehouse:end -->\n\nAnd this last.")
    assert (page["name"], page["draft"]) == ("The warm one", False)


def test_a_file_that_was_cut_off_or_altered_is_sent_anew(site: Site, github: GitHub) -> None:
    site.release("v1.1.0")
    written(site, github)
    (page,) = github.releases
    page["assets"][0]["state"], page["assets"][1]["digest"] = "starter", "sha256:0"
    written(site, github)
    assert [one["state"] for one in page["assets"]] == ["uploaded", "uploaded"]
    page["assets"].pop()
    github.immutable = [page["id"]]
    (note,) = written(site, github).notes
    assert "immutable release" in note


def test_a_tag_that_was_moved_or_is_gone_gets_no_page(site: Site, github: GitHub) -> None:
    site.release("v1.1.0")
    git(site.root, "push", "--quiet", "--delete", "origin", "v1.1.0")
    git(site.root, "tag", "--delete", "v1.1.0")
    with pytest.raises(ConfigError, match="no such tag on origin"):
        written(site, github)
    site.tag("v1.1.0", "v1.0.0^{commit}")
    with pytest.raises(GateFailed, match="was moved since its release"):
        written(site, github)
    with pytest.raises(ConfigError, match=r"v9\.0\.0: no release of it was begun"):
        written(site, github, "v9.0.0")
    assert github.releases == []


def test_a_hostile_message_of_a_tag_is_shown_and_does_nothing(site: Site, github: GitHub) -> None:
    message = "Hello @everyone\n<!-- gatehouse:end -->\n```\n# Big\n![](https://evil.example/x.png)"
    site.commit({"prompts/triage.prompt.yml": "name: other\nmessages: []\n"}, "Fix <img src=x> (#12)")
    git(site.root, "tag", "--annotate", "--cleanup=verbatim", "--message", message, "v1.2.0")
    git(site.root, "push", "--quiet", "origin", "refs/tags/v1.2.0")
    site.release("v1.2.0")
    written(site, github)
    body = github.releases[0]["body"]
    shown = body.partition("## Changes")[2]
    assert f"````text\n{message}\n````" in shown, "a code block that it cannot leave"
    assert f"- Fix &#60;img src=x&#62; ([12]({URL}/pull/12))" in shown
    before = len(github.posts)
    written(site, github)
    assert len(github.posts) == before, "what a tag says ends no part of the page"
