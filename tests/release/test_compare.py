"""Two versions side by side, from Git and the records of their decisions."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pipelines.core import records
from pipelines.core.errors import ConfigError
from pipelines.release import compare, comparison_text
from tests.release.site import Site, git

ROOT = Path(__file__).parent.parent.parent


def decision(value: float) -> dict[str, object]:
    check = {"metric": "exact_match", "rule": "floor", "value": value, "lower": value - 0.05, "upper": value + 0.05,
             "n": 376, "unit": ""}  # fmt: skip
    margin = {**check, "rule": "max_regression", "lower": None, "upper": None}
    return {"gates": [{"suite": "triage", "checks": [margin, check]}]}


@pytest.fixture
def two(site: Site) -> Site:
    site.decide(git(site.root, "rev-parse", "v1.0.0^{commit}"), decision=decision(0.48))
    site.decide(git(site.root, "rev-parse", "v1.1.0^{commit}"), decision=decision(0.52))
    return site


def found(site: Site) -> compare.Comparison:
    read = partial(records.read, root=site.root)
    return compare.compare(*(compare.facts(site.root, tag, read) for tag in ("v1.0.0", "v1.1.0")))


def test_metrics_stand_side_by_side_with_their_intervals_and_prompts_as_a_diff(two: Site) -> None:
    comparison = found(two)
    assert [one.name for one in comparison.metrics] == ["triage.exact_match"]
    assert (comparison.metrics[0].before.value, comparison.metrics[0].after.value) == (0.48, 0.52)
    diff = comparison.prompt_diffs["prompts/triage.prompt.yml"]
    assert "-name: triage" in diff
    assert "+name: v1.1.0" in diff
    assert [one.is_changed for one in comparison.models] == [True]
    assert [(one.name, one.is_changed) for one in comparison.data] == [("data/triage.jsonl", False)]
    assert comparison.parameters == []


def test_the_table_and_the_markdown_show_the_same_figures(two: Site) -> None:
    plain = html.unescape(comparison_text.markdown(found(two))).replace("\u200b", "")
    for text in (comparison_text.table(found(two)), plain):
        assert "0.48 [0.43, 0.53" in text
        assert "0.52 [0.47, 0.57" in text


def test_an_unknown_tag_is_one_line(two: Site) -> None:
    with pytest.raises(ConfigError, match=r"^tag v7\.0\.0: no such tag here; fetch it"):
        compare.facts(two.root, "v7.0.0", lambda digest: None)


def test_the_command_prints_json_for_programs(two: Site) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "scripts.compare", "v1.0.0", "v1.1.0", "--json"],
        cwd=two.root, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    value = json.loads(said.stdout)
    assert value["metrics"]["triage.exact_match"]["after"]["upper"] == pytest.approx(0.57)
    assert (value["before"]["tag"], value["after"]["verdict"]) == ("v1.0.0", "pass")
