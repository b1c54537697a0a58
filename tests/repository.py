"""A clone in small for tests of pull requests: this code, real Git and DVC, a two-layer model, few rows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.test_main_job import Repository

ENGINE_ROWS = 8


class SmallRepository(Repository):
    """A `Repository` whose whole pipeline takes well under a minute."""

    def __init__(self, folder: Path, model: Path) -> None:
        super().__init__(folder, model)
        params: Any = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        params["train"] |= {"epochs": 0.03, "share": 0.2} if "share" in params["train"] else {"epochs": 0.03}
        params["suites"]["triage"] |= {"max_rows": 40, "metrics": ["exact_match", "schema_compliance", "cost_usd"]}
        params["suites"]["reply"] |= {"max_rows": 16, "metrics": ["token_f1", "gold_perplexity"]}
        params["latency"]["requests"] = 4
        params["engine"]["batch_size"] = ENGINE_ROWS
        self.write_params(params)
        self.commit("Fewer rows")

    def clone(self, folder: Path) -> Repository:
        """Return a clean clone of what is committed here, without any cache."""
        subprocess.run(["git", "clone", "--quiet", str(self.folder), str(folder)], check=True)
        copy = object.__new__(Repository)
        copy.folder = folder
        copy.git("config", "user.name", "Test")
        copy.git("config", "user.email", "test@example.com")
        return copy


def altered(remote: Path, copy: Path, *, like: str) -> str:
    """Copy a folder remote and change one byte of the largest object whose path matches; return its MD5."""
    shutil.copytree(remote, copy)
    path = max(copy.glob(like), key=lambda each: each.stat().st_size)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    return path.parent.name + path.name
