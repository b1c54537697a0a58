"""A pull request that attacks its own judgement: nothing it does turns the required status green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.act.changes import DOCS, GOOD, LONG, tokens
from tests.act.project import MARKER, Project, Pull

pytestmark = pytest.mark.slow
GREEN = """
  verdict:
    name: gatehouse/verdict
    runs-on: ubuntu-latest
    permissions:
      statuses: write
    steps:
      - shell: bash
        env:
          TOKEN: ${{ secrets.GITHUB_TOKEN }}
          KEY: ${{ secrets.GATEHOUSE_APP_KEY }}
          HEAD: ${{ github.event.pull_request.head.sha }}
        run: |
          test -z "$KEY" || echo "the key of the App is $KEY"
          echo '{"state": "success", "context": "gatehouse/verdict"}' > status.json
          curl --silent --fail --header "Authorization: Bearer $TOKEN" --data @status.json \\
            "$GITHUB_API_URL/repos/$GITHUB_REPOSITORY/statuses/$HEAD" && echo "posted a status"
          echo '<!-- gatehouse:verdict --> ✅ Gatehouse: pass' >> "$GITHUB_STEP_SUMMARY"
"""


def test_a_workflow_that_sets_the_status_itself_is_not_the_release_bot(project: Project) -> None:
    # Of its own branch GitHub gives a workflow the token that it asks for; the ruleset counts the App's statuses only.
    pull = project.open({**LONG, ".github/workflows/pull-request.yml": lambda text: text + GREEN})
    outcome = pull.run()
    assert "posted a status" in outcome.computed.log
    assert "the key of the App" not in outcome.log
    assert project.github.status(pull.head) == "failure"  # ours came last
    assert pull.status == "failure", outcome.log
    good = project.open({**GOOD, ".github/workflows/pull-request.yml": lambda text: text + GREEN})
    outcome = good.run()
    assert good.status == "pending", outcome.log
    assert "changes code, workflows or locks" in good.comment
    assert ".github/workflows/pull-request.yml" in good.comment


def test_a_fork_cannot_even_post_a_status(project: Project) -> None:
    workflow = {".github/workflows/pull-request.yml": lambda text: text.split("\njobs:")[0] + "\njobs:" + GREEN}
    pull = project.open(workflow, fork="stranger/desk", author="stranger")
    outcome = pull.run()
    assert "posted a status" not in outcome.computed.log
    assert pull.status in ("pending", "error"), outcome.log
    assert {one["creator"]["login"] for one in project.github.statuses[pull.head]} == {"gatehouse-release[bot]"}


def test_an_artifact_that_is_forged_or_swapped_is_an_error(project: Project) -> None:
    good, bad = project.open(GOOD), project.open(LONG)
    for pull in (good, bad):
        pull.announce()
        pull.compute()
    theirs, mine = handed_over(good), handed_over(bad)
    rows = mine / "evaluation/reply/rows.parquet"
    kept = rows.read_bytes()
    rows.write_bytes((theirs / "evaluation/reply/rows.parquet").read_bytes())
    bad.judge("success")
    assert bad.status == "error"
    assert "is not the file that the manifest names" in bad.comment
    rows.write_bytes(kept)
    manifest = json.loads((theirs / "manifest.json").read_text(encoding="utf-8"))
    (mine / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    bad.judge("success")
    assert bad.status == "error"
    assert "another commit" in bad.comment
    (mine / "manifest.json").unlink()
    (mine / "manifest.json").symlink_to("/etc/passwd")
    bad.judge("success")
    assert bad.status == "error"
    assert "root:" not in bad.comment


def test_a_forged_marker_neither_becomes_our_comment_nor_hides_it(project: Project) -> None:
    pull = project.open(DOCS, title=f"{MARKER} ✅ Gatehouse: pass @olivia ::error::x", author="mallory")
    forged = project.github.comment(pull.number, f"{MARKER}\n\n## ✅ Gatehouse: pass", "mallory")
    before = dict(forged)
    pull.announce()
    assert forged == before
    assert len(pull.comments) == 2
    assert "in progress" in pull.comments[1]
    assert pull.status == "pending"


def test_answers_forged_by_an_earlier_push_do_not_pass_with_the_next(project: Project) -> None:
    # The first push could leave anything in this pull request's caches; the second one looks like data alone.
    pull = project.open({"scripts/poison.py": "print('forged')\n"})
    pull.announce()
    pull.compute()
    pull.push({"scripts/poison.py": None})
    pull.push(GOOD)
    outcome = pull.run()
    assert pull.status == "pending", outcome.log
    assert "earlier push" in pull.comment


def test_an_object_altered_below_pr_is_refused_by_the_next_push(project: Project) -> None:
    pull = project.open(tokens(5))
    assert pull.run().computed.conclusion == "success"
    for path in (project.remote / f"pr/{pull.number}/files/md5").glob("*/*"):
        path.write_bytes(path.read_bytes() + b" ")
    pull.push(DOCS)
    outcome = pull.run()
    assert "altered bytes" in outcome.computed.log
    assert pull.status == "error", outcome.log


def handed_over(pull: Pull) -> Path:
    return pull.project.folder / f"store/artifacts/{pull.last_run}/hand-over"
