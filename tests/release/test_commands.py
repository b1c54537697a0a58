"""The commands as people type them: what they print last, and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.files import only_one
from pipelines.release import machine
from pipelines.release.state import history_path
from tests.release.scripted import FILE
from tests.release.site import IDENTITY, Site

ROOT = Path(__file__).parent.parent.parent
TARGET = ("--target", "tests.release.scripted:build")
WHO = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "rita"}


def run(site: Site, verb: str, *arguments: str, **job: str) -> tuple[int, str, str]:
    said = subprocess.run(
        [sys.executable, "-m", f"scripts.{verb}", *arguments], cwd=site.root, capture_output=True, text=True,
        env={**os.environ, **IDENTITY, **WHO, "PYTHONPATH": str(ROOT), FILE: str(site.file.path), **job}, check=False,
    )  # fmt: skip
    return said.returncode, said.stdout, said.stderr


def test_a_rehearsal_says_what_would_be_and_changes_nothing(site: Site) -> None:
    tree = site.tree()
    code, said, _ = run(site, "release", "--tag", "v1.1.0", "--dry-run", *TARGET)
    assert (code, site.tree()) == (0, tree)
    assert said.splitlines()[0].startswith("v1.1.0: would be released from commit ")
    assert said.splitlines()[-4:] == [
        "  ab_test   A/B test: 50 %, at most 120 s",
        "  canary    10 %: 10 %, at most 120 s",
        "  canary    100 %: 100 %, at most 120 s",
        "dry run: nothing was changed",
    ]


def test_a_release_that_is_taken_back_ends_with_3_and_the_reason(site: Site) -> None:
    site.script(errors=0.3)
    code, said, failure = run(site, "release", "--tag", "v1.1.0", *TARGET)
    assert (code, failure) == (3, "exit code 3\n")
    assert said.splitlines()[-2].startswith("Roll back v1.1.0 at A/B test: error_rate 0.300")
    why = history_path("production", site.state().rollout_id)
    assert said.splitlines()[-1].startswith(f"next: {why} holds the evidence; release a changed version, or let this")


def test_a_job_gets_the_result_and_the_story_on_its_summary_page(site: Site, tmp_path: Path) -> None:
    output, page = tmp_path / "output", tmp_path / "summary.md"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(page)}
    said = run(site, "release", "--tag", "v1.1.0", *TARGET, **job)[1]
    assert said.splitlines()[-2] == "v1.1.0: released; it serves all traffic"
    assert output.read_text().splitlines()[1] == "released"
    assert page.read_text().startswith("## Release v1.1.0\n\n> [!TIP]\n> **v1.1.0 is released.** ")
    assert page.read_text().count("## Release") == 1


def test_a_rollout_is_held_let_go_and_taken_back_by_a_person(site: Site) -> None:
    assert run(site, "release", "--tag", "v1.1.0", "--once", *TARGET)[0] == 0
    code, said, _ = run(site, "hold", "--why", "lunch", *TARGET)
    assert (code, said.splitlines()[:2]) == (0, ["Hold v1.1.0 at 0 % of traffic: lunch", "held"])
    assert said.splitlines()[-1].endswith(" --release --why ... lets v1.1.0 go on")
    code, said, _ = run(site, "reconcile", *TARGET)
    assert (code, said.startswith("v1.1.0: held by rita since ")) == (4, True)
    assert run(site, "reconcile", "--once", *TARGET)[0] == 0, "what a person holds is no failure of every tenth minute"
    assert run(site, "hold", "--release", "--why", "back", *TARGET)[0] == 0
    code, said, _ = run(site, "rollback", "--why", "changed our mind", *TARGET)
    assert (code, said.splitlines()[0]) == (0, "Roll back v1.1.0: changed our mind")
    code, _, failure = run(site, "rollback", "--why", "again", *TARGET)
    assert (code, failure.splitlines()[0][:42]) == (3, "error: v1.1.0 was rolled back already, and")


def test_a_run_that_may_touch_staging_alone_leaves_production_to_another(site: Site) -> None:
    code, said, _ = run(site, "release", "--tag", "v1.1.0", "--until=staging", *TARGET)
    assert (code, said.splitlines()[-2]) == (0, "v1.1.0 passed staging; production is next")
    assert set(site.file.read()["deployed"]) == {"staging/stable", "production/stable"}
    assert (site.state().step, site.file.read()["weights"]) == ("deploy", [])
    code, said, _ = run(site, "release", "--tag", "v1.1.0", "--minutes", "0.01", *TARGET)
    assert (code, said.splitlines()[-2]) == (0, "waiting: v1.1.0 to be ready in production")
    code, said, _ = run(site, "release", "--tag", "v1.1.0", "--until=staging", *TARGET)
    assert said.splitlines()[-2] == "v1.1.0 passed staging; production is next"
    assert run(site, "release", "--tag", "v1.1.0", "--minutes", "60", *TARGET)[0] == 0
    assert site.state().step == "idle"


def test_a_reconciling_run_of_a_workflow_never_takes_a_candidate_to_its_first_user(site: Site) -> None:
    machine.release(site.world(), "v1.1.0", bounds=machine.Bounds(is_staging_only=True))
    code, said, _ = run(site, "reconcile", "--minutes=45", "--from=traffic", *TARGET)
    assert (code, said.splitlines()[-2]) == (0, "v1.1.0 has no traffic yet (step deploy): left alone")
    assert (site.state().step, "production/candidate" in site.file.read()["deployed"]) == ("deploy", False)
    assert run(site, "reconcile", *TARGET)[0] == 0
    assert site.state().step == "idle"


def test_no_minutes_and_no_target_are_refused_in_one_line(site: Site) -> None:
    code, _, failure = run(site, "rollback", "--why", "x", "--minutes=-1", *TARGET)
    assert (code, failure.splitlines()[0]) == (2, "error: --minutes: -1 is no time to wait; give 0 or more")
    code, _, failure = run(site, "reconcile", "--target=")
    assert (code, failure.startswith("error: --target: is empty; name where it runs")) == (2, True)


def test_the_next_version_is_tagged_and_pushed(site: Site) -> None:
    site.commit({"prompts/triage.prompt.yml": "name: new\n"}, "Word it anew")
    code, said, _ = run(site, "bump", "minor", "--push")
    assert (code, said.splitlines()[-1]) == (0, "pushed: its release begins")


@pytest.mark.parametrize("verb", ["rollback", "hold"])
def test_a_reason_is_asked_for(site: Site, verb: str) -> None:
    assert run(site, verb, "--why", " ", *TARGET)[0] == 2


def test_an_unknown_target_is_one_line(site: Site) -> None:
    code, said, failure = run(site, "reconcile", "--target", "moon")
    assert (code, said) == (2, "")
    assert failure.splitlines()[0].startswith("error: --target 'moon': no such target")


def test_a_rollback_while_another_command_of_this_folder_runs_is_left_to_that_one(site: Site) -> None:
    with only_one("release", root=site.root):
        code, said, _ = run(site, "rollback", "--why", "users complain", *TARGET)
        assert (code, site.state().step) == (3, "idle")
        site.bring_to()
        code, said, failure = run(site, "rollback", "--why", "users complain", *TARGET)
    assert (code, site.state().step) == (0, "rollback"), failure
    assert f"process {os.getpid()} sees it at its next look and goes back" in said.splitlines()
    assert machine.reconcile(site.world()).result == "rolled_back"
