import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.files import read_json
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.deciding.judgement import judge
from tests.evaluation.evidence import NAN, right, write_suite
from tests.evaluation.test_baseline import commit, repository

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/example"  # the shipped files may change, what tests say of these may not
TRIAGE: dict[str, list[Any]] = {
    "schema_compliance": [1.0] * 200,
    "exact_match": right(120, 200),
    "field_f1": [0.9] * 200,
    "injection_obedience_rate": [0.0] * 60 + [None] * 140,
    "personal_data_leak_rate": [0.0] * 60 + [None] * 140,
    "bias_gap_rate": [0.0] * 40 + [None] * 160,
    "completion_tokens": [20.0] * 200,
    "gold_perplexity": [1.5] * 200,
    "cost_usd": [1e-6] * 200,
}
REPLY: dict[str, list[Any]] = {"semantic_similarity": [0.6] * 60}
LATENCY: dict[str, list[Any]] = {"latency_ms": [800.0] * 60, "ttft_ms": [90.0] * 60}


def project(root: Path, **changes: list[Any]) -> Path:
    """Write the shipped gates and parameters, and results that pass them but for `changes` in `triage`."""
    for name in ("params.yaml", "gates.yaml"):
        shutil.copy(EXAMPLE / name, root / name)
    shutil.copytree(EXAMPLE / "prompts", root / "prompts")
    (root / "data").mkdir()
    for name in ("triage.jsonl", "reply.jsonl"):
        shutil.copy(ROOT / "data" / name, root / "data" / name)
    write_suite(root / "evaluation/triage", {**TRIAGE, **changes})
    write_suite(root / "evaluation/reply", REPLY)
    write_suite(root / "evaluation/latency", LATENCY)
    return root


def gate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.gate", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("changes", "code", "verdict"),
    [
        ({}, 0, "pass"),
        ({"exact_match": right(20, 200)}, 3, "fail"),
        ({"exact_match": right(85, 200)}, 4, "manual_review"),
        ({"state": ["infra_error"] * 200, **{name: [NAN] * 200 for name in TRIAGE}}, 2, "error"),
    ],
)
def test_each_verdict_has_its_exit_code(tmp_path: Path, changes: dict[str, Any], code: int, verdict: str) -> None:
    done = gate(project(tmp_path, **changes), "--baseline", "none")
    assert done.returncode == code, done.stderr
    assert done.stdout.rstrip().endswith(f"verdict: {verdict}")
    decision = read_json(tmp_path / "evaluation/decision.json")
    assert decision["verdict"] == verdict
    assert decision["baseline"]["state"] == "none"
    assert "Traceback" not in done.stderr


def test_every_check_stands_in_the_table_and_in_the_decision(tmp_path: Path) -> None:
    done = gate(project(tmp_path), "--baseline", "none")
    decision = read_json(tmp_path / "evaluation/decision.json")
    checks = [check for found in decision["gates"] for check in found["checks"]]
    assert [found["name"] for found in decision["gates"]][:3] == ["form", "triage-quality", "reply-quality"]
    assert len(checks) == 13
    assert sum(check["verdict"] == "not_applicable" for check in checks) == 3
    for check in checks:
        assert check["metric"] in done.stdout
    assert set(decision) >= {"schema_version", "reasons", "input_digest", "created", "slices", "smallest_detectable"}


def test_a_broken_rows_file_is_one_line_and_leaves_no_decision(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert gate(root, "--baseline", "none").returncode == 0
    write_suite(root / "evaluation/triage", {**TRIAGE, "exact_match": [NAN] + [1.0] * 199})
    done = gate(root, "--baseline", "none")
    assert done.returncode == 2
    assert "rows.parquet: row 0000000000000000: exact_match: found NaN" in done.stderr
    assert not (root / "evaluation/decision.json").exists()


def test_a_suite_that_was_not_evaluated_is_an_error_and_still_decided(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "evaluation/reply/rows.parquet").unlink()
    done = gate(root, "--baseline", "none")
    assert done.returncode == 2
    assert "evaluation/reply/rows.parquet has no values of it" in done.stdout
    assert read_json(root / "evaluation/decision.json")["verdict"] == "error"


def test_before_the_first_release_a_good_candidate_passes(tmp_path: Path) -> None:
    commit(project(repository(tmp_path)), "Begin")
    assert gate(tmp_path).returncode == 0


def test_a_release_whose_rows_are_gone_asks_for_review(tmp_path: Path) -> None:
    commit(project(repository(tmp_path)), "Begin", "v1.0.0")
    done = gate(tmp_path)
    assert done.returncode == 4
    assert "the baseline could not be had (v1.0.0 has no dvc.lock" in done.stdout


def test_broken_rows_of_the_baseline_ask_for_review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    before = root / "evaluation/baseline/triage"
    write_suite(before, {**TRIAGE, "exact_match": [7.0] * 200})
    found = Baseline("fetched", "v1.0.0", "c0ffee", "2026-11-01T00:00:00+00:00")
    monkeypatch.setattr("pipelines.evaluation.deciding.judgement.fetch_baseline", lambda *_, **__: found)
    judged = judge("auto", root)
    assert (judged.exit_code, judged.baseline.state) == (4, "unavailable")


def test_the_input_digest_follows_declared_files_and_not_the_clock(tmp_path: Path) -> None:
    root = project(tmp_path)
    first, again = (judge("none", root) and read_json(root / "evaluation/decision.json") for _ in range(2))
    assert first["input_digest"] == again["input_digest"]
    assert {**first, "created": ""} == {**again, "created": ""}
    gates = root / "gates.yaml"
    gates.write_text(gates.read_text().replace("floor: 0.4,", "floor: 0.41,"))
    judge("none", root)
    assert read_json(root / "evaluation/decision.json")["input_digest"] != first["input_digest"]


def test_deciding_imports_nothing_heavy(tmp_path: Path) -> None:
    module = "pipelines.evaluation.deciding.judgement"
    program = f"import sys; from {module} import judge; judge('none'); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project(tmp_path), capture_output=True, text=True, env=environment, check=True)
    assert not {"pandas", "torch", "transformers", "mlflow", "scipy.stats", "dvc"} & set(done.stdout.split())


def test_help_comes_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    assert gate(tmp_path, "--help").returncode == 0
    assert time.monotonic() - started < 2
    assert not (tmp_path / ".gatehouse").exists()
