"""The engine's identity follows its code and its libraries, so that no cached answer of others is taken up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.core import libraries
from pipelines.core.libraries import versions
from pipelines.llm import identity
from pipelines.llm.identity import CODE, engine_digest
from tests.imports import imported_files

ROOT = Path(__file__).parents[2]
# They hold requests, messages and keys, all of which stand in the cache's key themselves.
IN_THE_KEY = {"answer_schema.py", "answers.py", "identity.py", "prompts.py"}


@pytest.mark.parametrize("changed", CODE)
def test_a_changed_module_of_the_engine_is_another_engine(tmp_path: Path, changed: str) -> None:
    copy = tmp_path / "llm"
    shutil.copytree(ROOT / "pipelines/llm", copy)
    assert engine_digest(copy) == engine_digest()
    with (copy / changed).open("a", encoding="utf-8") as stream:
        stream.write("SURPRISE = True\n")
    assert engine_digest(copy) != engine_digest()


def test_every_module_that_the_engine_loads_decides_its_identity() -> None:
    loaded = imported_files(ROOT / "pipelines/llm/engine.py", ROOT)
    names = {Path(path).name for path in loaded if path.startswith("pipelines/llm/")}
    assert names - IN_THE_KEY == set(CODE)


@pytest.mark.parametrize("name", identity.LIBRARIES)
def test_another_version_of_a_library_is_another_engine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = engine_digest()
    installed = libraries.version
    monkeypatch.setattr(libraries, "version", lambda asked: "0.0.1" if asked == name else installed(asked))
    assert engine_digest() != before


def test_the_build_of_a_library_is_no_other_version() -> None:
    import torch

    assert versions(["torch", "no-such-library"]) == {
        "torch": str(torch.__version__).split("+")[0],
        "no-such-library": "",
    }
