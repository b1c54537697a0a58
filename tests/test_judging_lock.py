"""`locks/judging.txt` holds all that the jobs import which plan, judge and report, and no package that runs a model."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import imported_files
from tests.test_workflows import JOBS
from tests.tool_cache import LOCKED, lay_out, links, normal, recorded

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "locks/judging.txt").read_text(encoding="utf-8")
HEAVY = {"accelerate", "bitsandbytes", "great-expectations", "mlflow", "pandas", "peft", "torch", "transformers"}


def scripts_of_the_lock() -> set[str]:
    """Return the scripts that jobs run which install this lock."""
    found = set()
    for body in JOBS.values():
        used = {step["uses"]: step.get("with", {}) for step in body["steps"] if "uses" in step}
        if used.get("./actions/setup", {}).get("lock") == "judging":
            found |= {action.rpartition("/")[2].replace("-", "_") for action in used if action.startswith("./actions/")}
    return found


def packages(script: str) -> set[str]:
    """Return the installed packages whose modules a script can import, at any depth of its code."""
    tops = {}
    for name, files in recorded().items():
        tops |= {file.split("/")[0].removesuffix(".py"): name.partition("==")[0] for file in files}
    found = set()
    for path in imported_files(ROOT / f"scripts/{script}.py", ROOT):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    return {tops[name] for name in found - {"pipelines", "scripts"}}


def test_these_jobs_install_the_small_lock() -> None:
    assert scripts_of_the_lock() == {
        "accept", "check", "comment", "conclude", "dispatch", "gate", "plan", "receive", "release", "report", "setup",
        "teams",
    }  # fmt: skip


@pytest.mark.parametrize("script", sorted(scripts_of_the_lock()))
def test_what_a_script_can_import_is_locked(script: str) -> None:
    locked = {normal(found["name"]) for found in LOCKED.finditer(LOCK)}
    assert packages(script) <= locked


def test_nothing_that_runs_a_model_is_locked_and_all_versions_are_those_of_the_large_lock() -> None:
    small, large = ({normal(one["name"]): one["version"] for one in LOCKED.finditer(text)} for text in
                    (LOCK, (ROOT / "locks/cpu.txt").read_text(encoding="utf-8")))  # fmt: skip
    assert not HEAVY & set(small)
    assert HEAVY & set(large)
    assert small.items() <= large.items()


def test_every_locked_package_is_pinned_by_hash() -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK.strip())
    assert len(blocks) == len(list(LOCKED.finditer(LOCK)))
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_environment_of_the_tests_holds_these_packages_and_no_other(tmp_path: Path) -> None:
    python = lay_out(tmp_path / "small", LOCK)
    code = "import dvc.repo, pyarrow.parquet, scipy.stats, jinja2, importlib.util as u; print(u.find_spec('torch'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert not [name for name in links(LOCK) if name.startswith(("torch", "transformers", "mlflow"))]
