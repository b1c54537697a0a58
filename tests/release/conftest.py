"""Sites that many tests of releases begin with: v1.0.0 serves, and v1.1.0 is tagged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.site import Site


def _built(folder: Path, *, has_remote: bool) -> Site:
    site = Site.make(folder, has_remote=has_remote)
    site.tag("v1.0.0")
    assert site.release("v1.0.0").result == "released"
    site.next("v1.1.0")
    return site


@pytest.fixture(scope="session")
def built_with_remote(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return _built(tmp_path_factory.mktemp("remote") / "site", has_remote=True)


@pytest.fixture(scope="session")
def built_alone(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return _built(tmp_path_factory.mktemp("alone") / "site", has_remote=False)


@pytest.fixture
def site(built_with_remote: Site, tmp_path: Path) -> Site:
    """With a bare origin."""
    return built_with_remote.copy(tmp_path / "site")


@pytest.fixture
def lone(built_alone: Site, tmp_path: Path) -> Site:
    """Without any remote."""
    return built_alone.copy(tmp_path / "site")
