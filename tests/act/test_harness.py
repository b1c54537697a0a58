"""The harness itself: what act runs is what the scenarios later rely on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.act.runner import Machine, Run, lowered

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
UPLOAD = "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f"
DOWNLOAD = "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"
RESTORE = "actions/cache/restore@27d5ce7f107fe9357f9df03efb73ab90386fccae"
SAVE = "actions/cache/save@27d5ce7f107fe9357f9df03efb73ab90386fccae"
PARTS = f"""
on: pull_request
jobs:
  one:
    runs-on: ubuntu-latest
    outputs: {{ shards: "${{{{ steps.make.outputs.shards }}}}" }}
    steps:
      - uses: {CHECKOUT}
        with: {{ persist-credentials: false }}
      - id: make
        shell: bash
        run: |
          test "$(git log --format=%s -1)" = Start
          mkdir -p made/.hidden && echo seen > made/shown && echo unseen > made/.hidden/file
          echo 'shards=["1/2","2/2"]' >> "$GITHUB_OUTPUT"
          echo "# Summary of ${{{{ github.run_id }}}}" >> "$GITHUB_STEP_SUMMARY"
      - uses: {UPLOAD}
        with: {{ name: made, path: made }}
      - uses: {SAVE}
        with: {{ path: made, key: made-1 }}
  two:
    needs: one
    runs-on: ubuntu-latest
    strategy: {{ fail-fast: false, matrix: {{ shard: "${{{{ fromJSON(needs.one.outputs.shards) }}}}" }} }}
    steps:
      - uses: {DOWNLOAD}
        with: {{ name: made, path: got }}
      - uses: {RESTORE}
        with: {{ path: made, key: none, restore-keys: made- }}
      - shell: bash
        env: {{ SHARD: "${{{{ matrix.shard }}}}" }}
        run: test "$SHARD" != 2/2 && find got made -type f && ! test -e got/.hidden
  three:
    needs: two
    if: "!cancelled() && needs.two.result == 'success'"
    runs-on: ubuntu-latest
    steps: [{{ shell: bash, run: "true" }}]
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    origin = tmp_path / "origin"
    for command in (["init", "--quiet", "--initial-branch=main"], ["commit", "--allow-empty", "--message", "Start"]):
        origin.mkdir(exist_ok=True)
        who = ["-c", "user.name=Dev", "-c", "user.email=dev@example.com"]
        subprocess.run(["git", *who, *command], cwd=origin, check=True, capture_output=True)
    return Machine(tmp_path / "home", tmp_path / "store", origin, environment={"GITHUB_REPOSITORY": "o/r"})


def execute(machine: Machine, text: str, number: int = 7) -> Run:
    clone = machine.home.parent / f"clone-{number}"
    subprocess.run(["git", "clone", "--quiet", str(machine.origin), str(clone)], check=True, capture_output=True)
    (clone / ".github/workflows").mkdir(parents=True)
    (clone / ".github/workflows/parts.yml").write_text(text, encoding="utf-8")
    return machine.run(clone, "parts.yml", "pull_request", {"number": 3, "pull_request": {}}, number=number)


def test_jobs_shards_outputs_and_summaries_are_told_apart(machine: Machine) -> None:
    run = execute(machine, PARTS)
    assert run.conclusion == "failure"
    # act may blame a shard for the failure of another: both belong to one job.
    assert run.jobs | {"two 1/2": "?"} == {"one": "success", "two 1/2": "?", "two 2/2": "failure"}
    assert run.ran == {"one", "two"}  # `three` was skipped
    assert run.outputs["make"] == {"shards": '["1/2","2/2"]'}
    assert run.summaries == ["# Summary of 7\n"]
    assert "got/shown\nmade/.hidden/file\nmade/shown" in run.log  # a cache keeps hidden files, an artifact does not


def test_an_artifact_name_is_used_once_in_a_run_and_only_with_a_token_by_another(machine: Machine) -> None:
    steps = "\n".join(f"      - {{ uses: {UPLOAD}, with: {{ name: same, path: file }} }}" for _ in range(2))
    head = "on: pull_request\njobs:\n  one:\n    runs-on: ubuntu-latest\n    steps:\n"
    twice = execute(machine, f"{head}      - {{ shell: bash, run: touch file }}\n{steps}\n", 7)
    assert "an artifact with the name 'same' already exists" in twice.log
    step = f"      - {{ uses: {DOWNLOAD}, with: {{ name: same, run-id: 7%s }} }}\n"
    assert "need github-token" in execute(machine, head + step % "", 8).log
    assert execute(machine, head + step % ", github-token: t", 9).conclusion == "success"


def test_main_never_reads_a_cache_that_a_pull_request_wrote(machine: Machine) -> None:
    execute(machine, PARTS)
    (scope,) = (machine.store / "caches").iterdir()
    assert scope.name == "refs%pull%3%merge"


def test_a_checkout_that_would_keep_the_token_is_refused(machine: Machine) -> None:
    run = execute(machine, PARTS.replace("persist-credentials: false", "fetch-depth: 1"))
    assert run.conclusion == "failure"
    assert "persist-credentials must be false" in run.log


def test_only_what_act_refuses_is_taken_out() -> None:
    text = "a:\n  concurrency:\n    group: x\n    queue: max\n  environment: { name: e, deployment: false }\n"
    assert lowered(text) == "a:\n  concurrency:\n    group: x\n\n  environment: { name: e }\n"
