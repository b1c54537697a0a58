"""`scripts.evaluate` as users meet it: exit codes, one line per mistake, and a process that is killed at any moment."""

import random
import signal
import time

import pytest

from tests.scratch import Scratch

FILES = {"rows.parquet", "metrics.json", "run.json"}


@pytest.fixture
def project(tmp_path, tiny_model):
    return Scratch(tmp_path / "project", tiny_model)


def test_a_run_prints_its_metrics_and_where_they_are(project):
    result = project.run("evaluate", "--suite", "reply")
    assert result.returncode == 0, result.stderr
    assert "rouge_l" in result.stdout
    assert "computed 24, cached 0" in result.stdout
    assert result.stdout.splitlines()[-1] == "evaluation/reply/metrics.json"
    assert "answers" in result.stderr


def test_a_mistake_is_one_line_and_exit_code_2(project):
    result = project.run("evaluate", "--suite", "triag")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: params.yaml: suites: unknown suite 'triag' (did you mean 'triage'?)",
        "exit code 2",
    ]


def test_two_runs_of_one_suite_do_not_mix(project):
    with project.start("evaluate", "--suite", "triage") as first:
        wait_for(lambda: (project.folder / ".gatehouse/evaluate-triage.lock").exists(), first)
        second = project.run("evaluate", "--suite", "triage")
        first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 2)
    assert "another `evaluate-triage`" in second.stderr


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_gives_the_same_bytes(tmp_path, tiny_model):
    undisturbed = Scratch(tmp_path / "undisturbed", tiny_model, n_rows=96)
    started = time.monotonic()
    assert undisturbed.run("evaluate", "--suite", "triage").returncode == 0
    seconds = time.monotonic() - started
    killed, draw = Scratch(tmp_path / "killed", tiny_model, n_rows=96), random.Random(1)
    # The first anywhere in the run (mostly imports), the others once there are answers to lose.
    for kill in range(3):
        process = killed.start("evaluate", "--suite", "triage")
        if kill:
            seen = n_cached(killed)
            wait_for(lambda seen=seen: n_cached(killed) > seen, process)
            time.sleep(draw.uniform(0, 0.5))
        else:
            time.sleep(draw.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        results = killed.folder / "evaluation/triage"
        assert not results.exists() or {path.name for path in results.iterdir()} == FILES
    result = killed.run("evaluate", "--suite", "triage")
    assert result.returncode == 0, result.stderr
    path = "evaluation/triage/metrics.json"
    assert (killed.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()
    assert {path.name for path in (killed.folder / "evaluation").iterdir()} == {"triage"}


def n_cached(project):
    return sum(1 for _ in (project.folder / ".cache").rglob("*.json"))


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.01)
