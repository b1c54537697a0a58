"""What `check` says about `serving.yaml`: each problem at its line and key, with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.gates import load_gates
from pipelines.core.params import load_params
from pipelines.serving.references import find, problems
from tests.serving.gateway import ROOT

SHIPPED = (ROOT / "serving.yaml").read_text()


def said(tmp_path: Path, text: str) -> list[str]:
    for name in ("prompts/triage.prompt.yml", "prompts/reply.prompt.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "serving.yaml").write_text(text)
    return problems(tmp_path, load_params(ROOT / "params.yaml"), load_gates(ROOT / "gates.yaml"))


def test_the_shipped_file_has_no_problem(tmp_path: Path) -> None:
    assert said(tmp_path, SHIPPED) == []
    found = find(ROOT / "serving.yaml", ROOT)
    assert found.serving is not None
    assert [route.fallbacks for route in found.serving.routes.values()] == [("base",), ()]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("upstream: candidate, weight", "upstream: candidat, weight",
         "routes.triage.variants.stable.upstream: unknown upstream 'candidat' (did you mean 'candidate'?)"),
        ("fallbacks: [base]", "fallbacks: [bas]", "routes.triage.fallbacks[0]: unknown upstream 'bas'"),
        ("  candidate: {prompt_usd: 0.01, completion_usd: 0.02}\n", "",
         "prices: model 'candidate' of upstream 'candidate' has no price"),
        ("  candidate: {prompt_usd: 0.01", "  candidate: {prompt_usd: 0.02", "differs from the price in params.yaml"),
        ("  candidate: {prompt_usd: 0.01, completion_usd: 0.02}", "  candidate: {request_usd: 1}",
         "prices.candidate: upstream 'candidate' needs prompt_usd and completion_usd"),
        ("model: candidate", "model: candidat", "params.yaml has no model 'candidat' (did you mean 'candidate'?)"),
        ("prompt: prompts/reply.prompt.yml", "prompt: prompts/replies.prompt.yml",
         "routes.reply.prompt: no prompt file 'prompts/replies.prompt.yml'"),
        ("guardrails: labels", "guardrails: label",
         "routes.triage.guardrails: unknown guardrails 'label' (did you mean 'labels'?)"),
        ("weight: 100", "weight: 0", "routes.triage.variants: all weights are 0"),
        ("weight: 100", "weight: -1", "routes.triage.variants.stable.weight: "),
        ("    salt: triage-1\n", "", "routes.triage.variants: variants need a salt"),
        ("port: 8102", "port: 8101", "listen: port 8101 is used twice"),
        ("1, 2, 5, 10, 30, 60]", "1, 2, 5, 30, 60]",
         "metrics.latency_bounds_s: lacks 10, the limit of latency_p95_ms in gates.yaml (gate 'speed')"),
        ("0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30]", "5, 1]", "metrics.ttft_bounds_s: bounds must grow"),
        ("exact: {ttl_s: 3600, max_entries: 10000}", "semantic: null", "uses the exact cache, which `caches` does not"),
        ("rule: injection, action: flag", "rule: injektion, action: flag", "guardrails.labels.in[1]"),
        ("kind: process", "kind: proces", "upstreams.candidate.kind: must be one of"),
        ("projects:", "keys: [{name: a, project: desk, sha256: '" + "0" * 64 + "'}]\nprojects:",
         "keys[0].project: unknown project 'desk'"),
        ("{budget_usd_per_day: 1.0}", "{budget_usd_per_day: 1.0, routes: [repl]}",
         "projects.support-desk.routes[0]: unknown route 'repl' (did you mean 'reply'?)"),
        ("schema_version: 1", "schema_version: 2", "schema_version"),
        ("metrics:", "rollout: {weights: {file: split.json}}\nmetrics:",
         "rollout: no route has the variants 'stable' and 'candidate'"),
        ("metrics:", "rollout: {weights: {}}\nmetrics:", "rollout.weights: exactly one of 'file' and 'http_route'"),
        ("metrics:", "rollout: {weights: {file: ../split.json}}\nmetrics:", "rollout.weights.file: "),
        ("metrics:", "rollout: {weights: {http_route: {name: a/b, namespace: b, stable: c, candidate: d}}}\nmetrics:",
         "rollout.weights.http_route.name: "),
        ("metrics:", "rollout: {weights: {http_route: {name: a, namespace: b, stable: c, candidate: c}}}\nmetrics:",
         "rollout.weights.http_route.candidate: is stable's Service as well"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_line_and_key(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in SHIPPED
    found = said(tmp_path, SHIPPED.replace(old, new, 1))
    assert any(problem in line for line in found), found
    assert all(line.startswith("serving.yaml:") for line in found)


def test_a_route_that_a_rollout_splits_has_two_sides(tmp_path: Path) -> None:
    third = "      third: {upstream: base, weight: 1}\n"
    two = "{upstream: base, weight: 100}\n      candidate: {upstream: candidate, weight: 0}\n"
    sides = SHIPPED.replace("{upstream: candidate, weight: 100}\n", two + third)
    sides = sides.replace("metrics:", "rollout: {weights: {file: split.json}}\nmetrics:")
    (found,) = said(tmp_path, sides)
    assert "routes.triage.variants.third: " in found
    assert said(tmp_path, sides.replace(third, "")) == []


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert len(problems(tmp_path, None, None)) == 1
