"""What holds the workflows that release: who gets a key, what waits for whom, and how long a runner is held."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.release.dispatch import WORKFLOW
from pipelines.release.state import BEFORE_TRAFFIC, Pause, State, release_path
from tests.test_workflows import (
    CONCURRENCY,
    DECLARED,
    ENVIRONMENTS,
    JOBS,
    RELEASING,
    ROOT,
    TAGGED,
    inputs_and_outputs,
    steps,
)  # fmt: skip

RELEASES = ("release.yml", "rollback.yml", "hold.yml", "reconcile.yml")
DEFAULT = "github.event.repository.default_branch"


def test_a_tag_starts_nothing_that_holds_a_key() -> None:
    for place in TAGGED:
        assert "environment" not in JOBS[place], place
        assert "secrets." not in json.dumps(JOBS[place]), place
    rest = {place: body for place, body in JOBS.items() if place[0] == "release.yml" and place not in TAGGED}
    assert {job for _, job in rest} == {"staging", "production"}
    needed = {"github.event_name == 'workflow_dispatch'", "!inputs.dry-run", f"github.ref_name == {DEFAULT}"}
    assert set(rest["release.yml", "staging"]["if"].split(" && ")) == needed
    assert rest["release.yml", "production"]["needs"] == ["verify", "hand-over", "staging"]
    assert rest["release.yml", "production"]["if"] == "!cancelled() && needs.staging.outputs.result == 'staged'"


def test_the_workflow_that_a_tag_has_started_is_the_one_that_is_named_for_its_runs() -> None:
    assert WORKFLOW in DECLARED
    # A run is found again by its name: see pipelines/release/dispatch.py.
    kind = "${{ inputs.dry-run && 'rehearse' || 'release' }}"  # a rehearsal is no run of a release
    assert DECLARED[WORKFLOW]["run-name"] == f"{kind} ${{{{ inputs.tag || github.ref_name }}}}"


def test_a_release_is_a_rehearsal_unless_it_is_asked_for_and_the_first_job_only_reads() -> None:
    asked = DECLARED["release.yml"]["on"]["workflow_dispatch"]["inputs"]
    assert (asked["dry-run"]["type"], asked["dry-run"]["default"]) == ("boolean", "true")
    used = {job: step["with"] for name, job, step in steps()
            if name == "release.yml" and step.get("uses") == "./actions/release"}  # fmt: skip
    assert {job: (given.get("dry-run"), given.get("until")) for job, given in used.items()} == {
        "verify": ("true", None), "staging": (None, "staging"), "production": (None, None),
    }  # fmt: skip


def test_what_pushes_a_release_ends_while_its_token_lives() -> None:
    for place, name in ENVIRONMENTS.items():
        if name in RELEASING:
            assert int(JOBS[place]["timeout-minutes"]) <= 60, "an App's token lives for an hour"
    for verb in ("release", "rollback"):
        assert inputs_and_outputs(f"actions/{verb}")[0]["minutes"]["default"] == "45", verb


def test_a_way_back_waits_for_no_release_and_for_no_reviewer() -> None:
    for name in ("rollback.yml", "hold.yml", "reconcile.yml"):
        assert CONCURRENCY[name]["group"] == name.removesuffix(".yml")
    settings = yaml.safe_load((ROOT / ".github/environments.yml").read_text(encoding="utf-8"))["environments"]
    reviewers = {one["name"]: one.get("reviewers") for one in settings if one["name"] in RELEASING}
    assert reviewers == {"staging": None, "production": "CODEOWNERS", "recovery": None}


def test_reconciling_leaves_what_has_no_traffic_yet_to_a_release_run() -> None:
    condition = JOBS["reconcile.yml", "again"]["if"]
    named = json.loads(condition.partition("fromJSON('")[2].partition("')")[0])
    assert condition == f"contains(fromJSON('{json.dumps(named)}'), needs.look.outputs.step)"
    assert tuple(named) == BEFORE_TRAFFIC
    assert "needs.again.result == 'skipped'" in JOBS["reconcile.yml", "finish"]["if"]
    # What has begun between the look and this job is left alone by the script itself.
    assert inputs_and_outputs("actions/reconcile")[0]["from"]["default"] == "traffic"
    (step,) = [one for one in JOBS["reconcile.yml", "finish"]["steps"] if one.get("uses") == "./actions/reconcile"]
    assert "from" not in step["with"]


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (None, "idle"),
        (State(), "idle"),
        (State(step="canary", since="2026-11-21T18:00:00Z"), "canary"),
        (State(step="ab_test", pause=Pause(by="x\nstep: idle", at="", why="step: idle")), "ab_test"),
    ],
)
def test_reconciling_reads_one_line_to_know_that_nothing_is_on_its_way(
    tmp_path: Path, state: State | None, step: str
) -> None:
    path = tmp_path / release_path("production")
    path.parent.mkdir(parents=True)
    if state is not None:
        path.write_bytes(state.as_file())
    assert looked(tmp_path) == f"step={step}\n"
    path.write_text("stable: null\n")
    assert looked(tmp_path) == "step=broken\n", "which the next job says in full"


def looked(folder: Path) -> str:
    (look,) = [step for step in JOBS["reconcile.yml", "look"]["steps"] if step.get("id") == "state"]
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", look["run"]]
    output = folder / "output"
    output.unlink(missing_ok=True)
    given = {"GITHUB_OUTPUT": str(output), "ENVIRONMENT": "production", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=folder, env=given, check=True)
    return output.read_text(encoding="utf-8")


def test_what_counts_a_rollout_is_given_the_key_of_prometheus() -> None:
    asking = {("release.yml", "production"), ("rollback.yml", "rollback"), ("reconcile.yml", "finish")}
    key = "${{ secrets.GATEHOUSE_PROMETHEUS_TOKEN }}"
    given = [(name, job) for name, job, step in steps() if step.get("env", {}).get("GATEHOUSE_PROMETHEUS_TOKEN") == key]
    assert sorted(given) == sorted(asking)


def test_no_release_reads_or_writes_a_cache() -> None:
    for name, job, step in steps():
        assert name not in RELEASES or "actions/cache" not in str(step.get("uses", "")), (name, job)


def test_what_a_person_types_reaches_a_step_as_an_input_alone() -> None:
    for name in RELEASES:
        for (file, job), body in JOBS.items():
            if file == name:
                rest = [{key: value for key, value in step.items() if key != "with"} for step in body["steps"]]
                assert "inputs." not in json.dumps(rest), (name, job)
