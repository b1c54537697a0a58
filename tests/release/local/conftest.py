"""A laptop with one released version, made once: tests work on copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.release.local.laptop import Laptop, build_answering_model


@pytest.fixture(scope="session")
def answering_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model that answers everything with the same JSON."""
    folder = tmp_path_factory.mktemp("answering") / "candidate"
    build_answering_model(folder, tiny_model)
    return folder


@pytest.fixture(scope="session")
def decided(answering_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """Nothing was released yet."""
    return Laptop.make(tmp_path_factory.mktemp("decided") / "laptop", answering_model)


@pytest.fixture(scope="session")
def released(decided: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """v0.1.0 is stable."""
    folder = tmp_path_factory.mktemp("released") / "laptop"
    shutil.copytree(decided.root, folder, symlinks=True)
    laptop = Laptop(folder)
    code, said = laptop.run("ship")
    assert code == 0, said
    return laptop


@pytest.fixture
def laptop(released: Laptop, tmp_path: Path) -> Laptop:
    folder = tmp_path / "laptop"
    shutil.copytree(released.root, folder, symlinks=True)
    return Laptop(folder)
