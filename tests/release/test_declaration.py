"""What `check` says about the rollout in `gates.yaml`: each problem at its line and key, with what would do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.core.declared import check
from pipelines.core.gates import Gates
from pipelines.core.source import parse
from pipelines.release.declaration import problems

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "tests/example/gates.yaml").read_text()
ROLLOUT = """
canary:
  local:
    requests_per_minute: 120
    gates:
      error_rate: {ceiling: 0.05, max_ratio: 2}
      latency_p95_ms: {ceiling: 10000}
      rating: {floor: 3.5, scale: [1, 5]}
    stages:
      - {weight: 10, require: no_harm, min_requests: 6, max_duration_s: 60}
      - {weight: 50, require: proven, min_requests: 30, max_duration_s: 120}
ab_test:
  primary: {metric: rating, margin: 0.1}
  secondaries: [{metric: error_rate, margin: 0.1}]
  local: {unit: request, n_opt: 300, window_s: 60, max_duration_s: 300}
"""


def said(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "gates.yaml").write_text(EXAMPLE + text)
    shutil.copy(ROOT / "serving.yaml", tmp_path)
    _, found = check(parse(tmp_path / "gates.yaml", "gates.yaml"), Gates)
    return [*map(str, found), *problems(tmp_path)]


def test_the_shipped_rollout_and_the_one_that_is_broken_here_are_whole(tmp_path: Path) -> None:
    assert problems(ROOT) == []
    assert said(tmp_path, ROLLOUT) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ceiling: 10000", "ceiling: 9000", "canary.local.gates.latency_p95_ms.ceiling: 9000 is no bound of "
         "metrics.latency_bounds_s in serving.yaml; the nearest is 10000"),
        ("latency_p95_ms: {ceiling: 10000}", "ttft_p95_ms: {ceiling: 60000}",
         "canary.local.gates.ttft_p95_ms.ceiling: 60000 is no bound of metrics.ttft_bounds_s in serving.yaml; "
         "the nearest is 30000"),
        ("error_rate: {ceiling", "eror_rate: {ceiling", "eror_rate: unknown key (did you mean 'error_rate'?)"),
        ("{ceiling: 0.05, max_ratio: 2}", "{}", "one of 'ceiling' or 'max_ratio' is needed"),
        ("max_ratio: 2", "max_ratio: 0.5", "canary.local.gates.error_rate.max_ratio: "),
        ("{ceiling: 0.05, max_ratio: 2}", "{ceiling: 0.05, prove: all}",
         "canary.local.gates.error_rate.prove: 'all' needs a max_ratio to prove"),
        ("floor: 3.5", "floor: 5.5",
         "canary.local.gates.rating.floor: must lie between the ends of the scale, 1 and 5"),
        ("weight: 50", "weight: 10",
         "canary.local.stages[1].weight: must be above 10, the weight of the stage before, found 10"),
        ("require: no_harm", "require: none", "canary.local.stages[0].require: "),
        ("min_requests: 6", "min_requests: 13", "canary.local.stages[0].min_requests: 13 requests cannot be reached: "
         "at 10 % of 120 a minute about 12 come in 60 s; lower it, or raise max_duration_s to 65"),
        ("min_requests: 30, max_duration_s: 120", "min_requests: 30, max_duration_s: 60",
         "canary.local.stages[1].max_duration_s: cannot be proven: the gate error_rate (limit 0.05) needs more than "
         "the 72 requests, all of them flawless, that reach the candidate by the end of this stage; 76 would do"),
        ("error_rate: {ceiling: 0.05, max_ratio: 2}\n      latency_p95_ms: {ceiling: 10000}\n",
         "error_rate: {max_ratio: 2}\n", "canary.local.stages[1].require: no gate has a limit to prove"),
        ("metric: error_rate", "metric: rating", "ab_test.secondaries[0].metric: 'rating' is compared already"),
        ("metric: error_rate", "metric: eror_rate", "ab_test.secondaries[0].metric: "),
        ("window_s: 60", "window_s: 300", "ab_test.local.window_s: 300 s is no shorter than max_duration_s"),
        ("window_s: 60", "window_s: 210", "ab_test.local.min_per_arm: 100 cannot be reached: about 90 requests"),
        ("n_opt: 300", "n_opt: 300, min_per_arm: 99", "ab_test.local.min_per_arm: "),
        ("  local: {unit", "  kubernets: {unit", "unknown key (did you mean 'kubernetes'?)"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_line_and_key(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in ROLLOUT
    found = said(tmp_path, ROLLOUT.replace(old, new, 1))
    assert any(problem in line for line in found), found
    assert all(line.startswith("gates.yaml:") for line in found)


@pytest.mark.parametrize("text", ["", "evaluation: [", "canary: 5"])
def test_what_the_gates_own_check_says_is_not_said_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "gates.yaml").write_text(text)
    assert problems(tmp_path) == []
    assert problems(tmp_path / "nowhere") == []
