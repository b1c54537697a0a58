"""A repository with pull requests to judge: built once for a module, copied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.review.world import World, build, relocated
from tests.standin.github import GitHub


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build(folder)
    return folder


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    with GitHub(repository="o/r") as github:
        yield World(relocated(built, tmp_path / "world"), github)
