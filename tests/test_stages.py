"""`dvc.yaml` says exactly what each stage reads, so that nothing is skipped wrongly and nothing runs for nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.imports import imported_files

ROOT = Path(__file__).parent.parent
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def body(stage: dict[str, Any]) -> dict[str, Any]:
    return stage.get("do", stage)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_modules_its_script_imports(name: str) -> None:
    stage = body(STAGES[name])
    script = re.match(r"python -m scripts\.(\w+)", stage["cmd"])
    assert script, f"{name} does not run a script: {stage['cmd']}"
    declared = {dep for dep in stage.get("deps", []) if dep.endswith(".py")}
    assert declared == imported_files(ROOT / f"scripts/{script[1]}.py", ROOT)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_named_after_its_script(name: str) -> None:
    assert body(STAGES[name])["cmd"].startswith(f"python -m scripts.{name}")


def test_no_stage_switches_the_run_cache_off() -> None:
    for name, stage in STAGES.items():
        for out in body(stage).get("outs", []):
            assert isinstance(out, str) or not next(iter(out.values())).get("persist"), name


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    import ast

    for path in ROOT.glob("pipelines/**/__init__.py"):
        statements = ast.parse(path.read_text()).body
        assert len(statements) == 1, path
        assert isinstance(statements[0], ast.Expr), path


def test_what_trains_or_measures_depends_on_the_versions_of_its_libraries() -> None:
    depend = {name for name, stage in STAGES.items() if ".gatehouse/libraries.json" in body(stage).get("deps", [])}
    assert depend == {"train", "evaluate", "latency"}
    assert {".gatehouse/libraries.json": {"cache": False}} in STAGES["machine"]["outs"]
    assert STAGES["machine"]["always_changed"]


DECIDES_OR_REPORTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("report.py", "gate.py", "baseline.py", "deciding/*.py", "reporting/*.py")
    for path in (ROOT / "pipelines/evaluation").glob(pattern)
)


def test_gate_and_report_are_where_this_test_looks_for_them() -> None:
    folders = {str(Path(path).relative_to("pipelines/evaluation").parent) for path in DECIDES_OR_REPORTS}
    assert folders == {".", "deciding", "reporting"}
    assert len([path for path in DECIDES_OR_REPORTS if Path(path).parent.name == "evaluation"]) == 3


@pytest.mark.parametrize("path", DECIDES_OR_REPORTS)
def test_code_of_gate_and_report_is_no_dependency_of_any_stage(path: str) -> None:
    assert (ROOT / path).is_file()
    for name, stage in STAGES.items():
        assert path not in body(stage).get("deps", []), name
