import json
from pathlib import Path

import pytest

from pipelines.review.handover import _commits
from tests.evaluation.test_baseline import commit, git, repository


@pytest.mark.parametrize("depth", ["0", "1"])
def test_the_base_is_what_was_merged_with_whatever_the_event_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    root = repository(tmp_path / "project")
    old = commit(root, "Old")
    git(root, "switch", "--quiet", "--create", "change")
    head = commit(root, "Change")
    git(root, "switch", "--quiet", "main")
    base = commit(root, "Newer")
    git(root, "merge", "--quiet", "--no-ff", "--message", "Merge", "change")
    shallow = ["--depth", depth] if depth != "0" else []
    git(tmp_path, "clone", "--quiet", *shallow, root.as_uri(), "clone")
    event = {"pull_request": {"head": {"sha": head}, "base": {"sha": old}}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    merge = git(root, "rev-parse", "HEAD")
    assert _commits(tmp_path / "clone") == {"head": head, "base": base, "merge": merge}
    git(root, "switch", "--quiet", "--detach", head)
    assert _commits(root) == {"head": head, "base": old, "merge": head}
