"""Which tags may be released, and the one line that refuses the others."""

from __future__ import annotations

import pytest

from pipelines.core.errors import ConfigError, GateFailed, GatehouseError
from pipelines.core.records import Approval
from tests.release.site import Site, git


@pytest.mark.parametrize("name", ["1.2.0", "v1.2", "v01.2.0", "v1.2.0-rc.1", "v1.2.0\n", "v1.2.0.0", "main"])
def test_a_name_that_is_no_version_is_refused(site: Site, name: str) -> None:
    with pytest.raises(ConfigError, match=r"is no version; name it like v1\.2\.0$"):
        site.release(name)


def refused(site: Site, tag: str, error: type[GatehouseError], match: str) -> None:
    tree = site.tree()
    with pytest.raises(error, match=match) as caught:
        site.release(tag)
    assert "\n" not in str(caught.value)
    assert site.tree() == tree


def test_an_unknown_tag_is_refused(site: Site) -> None:
    refused(site, "v9.0.0", ConfigError, r"^tag v9\.0\.0: no such tag on origin; push it with")


def test_a_lightweight_tag_is_refused(site: Site) -> None:
    site.tag("v1.2.0", flags=())
    refused(site, "v1.2.0", ConfigError, r"^tag v1\.2\.0: is lightweight")


def test_a_tag_object_under_another_name_is_refused(site: Site) -> None:
    taken = git(site.root, "rev-parse", "refs/tags/v1.1.0")
    git(site.root, "push", "--quiet", "origin", f"{taken}:refs/tags/v1.2.0")
    refused(site, "v1.2.0", GateFailed, r"^tag v1\.2\.0: the tag object was made under another name")


def test_a_tag_that_names_something_else_here_than_there_is_refused(site: Site) -> None:
    git(site.root, "tag", "--force", "--annotate", "--message", "again", "v1.1.0")
    refused(site, "v1.1.0", GateFailed, r"^tag v1\.1\.0: names \w{12} here and \w{12} on origin; a tag never moves$")


def test_a_tag_that_was_moved_since_its_release_is_refused(site: Site) -> None:
    site.release("v1.1.0")
    git(site.root, "tag", "--force", "--annotate", "--message", "again", "v1.1.0")
    git(site.root, "push", "--quiet", "--force", "origin", "refs/tags/v1.1.0")
    refused(site, "v1.1.0", GateFailed, r"^tag v1\.1\.0: was moved")


def test_a_commit_off_main_is_refused(site: Site) -> None:
    git(site.root, "checkout", "--quiet", "-b", "side")
    git(site.root, "commit", "--quiet", "--allow-empty", "--message", "Aside")
    site.tag("v1.2.0")
    refused(site, "v1.2.0", GateFailed, r"^tag v1\.2\.0: commit \w{12} is not on main")


def test_a_version_that_is_not_newer_is_refused(site: Site) -> None:
    site.tag("v0.9.0")
    refused(
        site, "v0.9.0", GateFailed, r"^tag v0\.9\.0: is not newer than v1\.0\.0, which was released; next is v1\.0\.1$"
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"verdict": "fail"}, "is fail; release another commit$"),
        ({"verdict": "manual_review"}, "is manual_review without an approval; release another commit$"),
        ({"verdict": "manual_review", "pull_request": 7, "approval": Approval(user="ada", at="2026-11-20T10:00:00Z")},
         "only its pull request has decided"),
    ],
)  # fmt: skip
def test_a_tree_without_a_passing_decision_is_refused(site: Site, changes: dict[str, object], match: str) -> None:
    site.decide(git(site.root, "rev-parse", "v1.1.0^{commit}"), **changes)
    refused(site, "v1.1.0", GateFailed, match)


def test_a_tree_that_nobody_has_decided_about_is_refused(site: Site) -> None:
    (site.root / "gates.yaml").write_text("schema_version: 1\n# looser\n")
    git(site.root, "commit", "--quiet", "--all", "--message", "Loosen")
    git(site.root, "pull", "--quiet", "--rebase", "origin", "main")
    git(site.root, "push", "--quiet", "origin", "main")
    site.tag("v1.2.0")
    refused(site, "v1.2.0", GateFailed, "nobody has decided about its tree")


def test_an_approved_review_is_released_and_names_who_approved(site: Site) -> None:
    approval = Approval(user="ada", at="2026-11-20T10:00:00Z", why="wanted")
    site.decide(git(site.root, "rev-parse", "v1.1.0^{commit}"), verdict="manual_review", approval=approval)
    site.release("v1.1.0", once=True)
    assert "Begin release of v1.1.0: the decision about its tree is manual_review, approved by ada" in site.subjects()
