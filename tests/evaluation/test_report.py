import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.files import write_json
from pipelines.evaluation import report
from pipelines.evaluation.deciding.judgement import judge
from tests.evaluation.report_run import write_run


def test_every_figure_of_a_finished_run_is_collected(tmp_path: Path) -> None:
    view = report.collect(write_run(tmp_path, "fail"))
    assert (view.verdict, view.baseline.state) == ("fail", "fetched")
    assert [suite.name for suite in view.suites] == ["triage", "reply", "latency"]
    assert len(view.suites[0].examples) == 240
    assert len(view.curve) == 40
    assert [str(change) for change in view.changes.parameters] == ["train.learning_rate 0.001 -> 0.002"]
    assert [change.path for change in view.changes.prompts] == ["prompts/triage.prompt.yml"]
    assert [(len(data.added), len(data.edited)) for data in view.changes.data] == [(1, 1)]
    assert [change.suite for change in view.changes.models] == ["triage"]


def test_rows_are_paired_by_id_and_called_regressed_by_their_gated_metrics(tmp_path: Path) -> None:
    view = report.collect(write_run(tmp_path))
    regressed = view.examples("regressed")
    assert regressed
    for example in regressed:
        assert example.before is not None
        worst = example.moved[0]
        now, then = example.scores[worst], example.before.scores[worst]
        assert now is not None
        assert then is not None
        assert (now > then) if worst == "injection_obedience_rate" else (now < then)
    assert not {example.id for example in regressed} & {example.id for example in view.examples("improved")}


def test_a_metric_that_does_not_apply_is_absent_and_a_missing_one_is_none(tmp_path: Path) -> None:
    examples = report.collect(write_run(tmp_path)).suites[0].examples
    plain = next(example for example in examples if example.slice == "plain" and example.state == "scored")
    failed = next(example for example in examples if example.state == "infra_error")
    assert "injection_obedience_rate" not in plain.scores
    assert failed.scores["exact_match"] is None


def test_without_a_baseline_no_row_has_moved_and_no_change_is_claimed(tmp_path: Path) -> None:
    view = report.collect(write_run(tmp_path, baseline="none"))
    assert view.examples("") == tuple(sorted(view.examples(""), key=lambda example: (example.suite, example.id)))
    assert not view.examples("regressed")
    assert not view.examples("new")
    assert not view.changes.is_known


@pytest.mark.parametrize(("age_days", "is_stale"), [(180, False), (181, True)])
def test_a_baseline_is_stale_only_beyond_the_declared_age(tmp_path: Path, age_days: int, is_stale: bool) -> None:
    write_run(tmp_path)
    path = tmp_path / "evaluation" / "decision.json"
    decision = json.loads(path.read_text())
    decision["created"], decision["baseline"]["created"] = "2026-11-20T00:00:00+00:00", "2026-05-24T00:00:00+00:00"
    if is_stale:
        decision["baseline"]["created"] = "2026-05-23T00:00:00+00:00"
    write_json(path, decision)
    baseline = report.collect(tmp_path).baseline
    assert baseline.age_days == age_days
    assert baseline.is_stale is is_stale


def test_an_error_is_reported_even_when_the_decision_is_all_there_is(tmp_path: Path) -> None:
    write_json(
        tmp_path / "evaluation" / "decision.json",
        {"schema_version": 1, "verdict": "error", "reasons": ["evaluation/triage/rows.parquet: no such file"]},
    )
    report.write(tmp_path)
    for name in ("report.md", "report.html"):
        assert "rows.parquet: no such file" in (tmp_path / "evaluation" / name).read_text().replace("\\", "")


def test_a_missing_decision_is_one_clear_line_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decision\.json: no such file"):
        report.write(tmp_path)
    assert not list(tmp_path.glob("evaluation/report.*"))


def test_rows_that_are_no_parquet_file_are_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "evaluation" / "triage" / "rows.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match=r"triage/rows\.parquet: not readable as rows"):
        report.write(tmp_path)


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": "certainly", "gates": "none", "slices": 3, "baseline": [], "reasons": None, "created": 7},
        {"verdict": "pass", "gates": [None, {"name": 5, "checks": [{"metric": None, "value": "high", "n": "x"}]}]},
        {"verdict": ["pass"], "gates": [{"checks": [{"limit": True, "unit": {}, "n_missing": 1e400}]}]},
    ],
)
def test_a_decision_of_any_shape_still_gets_a_report(tmp_path: Path, broken: dict[str, object]) -> None:
    path = tmp_path / "evaluation" / "decision.json"
    path.parent.mkdir()
    path.write_text(json.dumps(broken).replace("Infinity", "1e300"))
    view = report.write(tmp_path)
    assert view.verdict in ("pass", "error")


def test_the_same_files_give_the_same_reports(tmp_path: Path) -> None:
    write_run(tmp_path)
    report.write(tmp_path)
    folder = tmp_path / "evaluation"
    first = {name: (folder / name).read_bytes() for name in ("report.md", "report.html")}
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    report.write(tmp_path / "copy")
    assert first == {name: (tmp_path / "copy" / "evaluation" / name).read_bytes() for name in first}


def test_what_the_gate_decides_is_what_the_report_shows(tmp_path: Path) -> None:
    decided = judge("none", write_run(tmp_path, baseline="none")).decision
    view = report.write(tmp_path)
    assert view.verdict == decided.verdict
    assert view.reasons == decided.reasons
    assert view.error_rates == decided.error_rates
    assert view.smallest_detectable == decided.smallest_detectable
    expected = [(gate.name, check) for gate in decided.gates for check in gate.checks]
    for (name, check), (gate, shown) in zip(expected, view.checks, strict=True):
        assert name == gate.name
        for field in ("metric", "rule", "limit", "verdict", "reason", "value", "lower", "upper", "n", "n_missing"):
            assert getattr(shown, field) == getattr(check, field)


def test_a_thousand_rows_do_not_take_minutes(tmp_path: Path) -> None:
    write_run(tmp_path, rows=1_000)
    started = time.process_time()
    report.write(tmp_path)
    assert time.process_time() - started < 60


def test_the_command_prints_the_verdict_and_both_paths_and_complains_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.report", "--root", str(tmp_path)]
    missing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: ")
    assert "decision.json: no such file" in missing.stderr.splitlines()[0]
    write_run(tmp_path, "manual_review")
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [
        "verdict manual_review",
        str(tmp_path / "evaluation" / "report.md"),
        str(tmp_path / "evaluation" / "report.html"),
    ]
