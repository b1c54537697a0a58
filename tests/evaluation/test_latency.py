"""Latency from single requests: which rows, how many, and what its bounds need."""

import itertools
import math

import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.machine import describe, rounded_gib
from pipelines.core.params import load_params
from pipelines.evaluation.latency import measure, spread_over_lengths, unique_ids
from pipelines.evaluation.suite import read_plan
from tests.evaluation.test_evaluate import use_endpoint
from tests.llm.endpoint import Reply, StandIn
from tests.scratch import Scratch


@pytest.fixture
def project(tmp_path, tiny_model):
    return Scratch(tmp_path / "project", tiny_model, n_rows=24)


def run(project):
    project.save()
    return measure(load_params(project.folder / "params.yaml"), root=project.folder)


def rows_of(project):
    return pq.read_table(project.folder / "evaluation/latency/rows.parquet").to_pylist()


def plan_of(project):
    return read_plan("triage", load_params(project.folder / "params.yaml"), project.folder)


def length(row):
    return len(row.inputs["message"])


def test_sixty_requests_give_quantiles_with_bounds_and_are_never_cached(project):
    first, second = run(project), run(project)
    for outcome in (first, second):
        assert (outcome.run["computed"], outcome.run["cached"]) == (60, 0)
    rows = rows_of(project)
    assert len({row["id"] for row in rows}) == 60
    assert all(row["latency_ms"] >= row["ttft_ms"] > 0 for row in rows)
    ordered = sorted(row["latency_ms"] for row in rows)
    metrics = second.summary["metrics"]
    assert list(metrics) == ["latency_p50_ms", "latency_p95_ms", "ttft_p50_ms", "ttft_p95_ms"]
    assert metrics["latency_p95_ms"]["value"] == ordered[56]  # the 57th of 60: ceil(0.95 * 60)
    assert metrics["latency_p95_ms"]["upper"] == ordered[59]  # 1 - 0.95^60 = 95.4 %: only the largest bounds it
    assert metrics["latency_p50_ms"]["lower"] < metrics["latency_p50_ms"]["value"] < metrics["latency_p50_ms"]["upper"]
    assert second.run["suite"] == "latency"


def test_fifty_eight_requests_do_not_bound_the_95th_percentile(project):
    project.params["latency"]["requests"] = 58
    assert run(project).summary["metrics"]["latency_p95_ms"]["upper"] is None


def test_rows_are_spread_over_the_lengths_and_always_the_same(project):
    plan = plan_of(project)
    chosen = spread_over_lengths(plan, 5)
    by_length = sorted(map(length, plan.rows))
    assert sorted(map(length, chosen)) == [by_length[round(at * 23 / 4)] for at in range(5)]
    assert spread_over_lengths(plan._replace(rows=plan.rows[::-1]), 5) == chosen


def test_every_row_is_taken_as_often_as_any_other_when_there_are_too_few(project):
    chosen = spread_over_lengths(plan_of(project), 60)
    counts = sorted(chosen.count(row) for row in plan_of(project).rows)
    assert (len(chosen), counts[0], counts[-1]) == (60, 2, 3)


def test_the_order_does_not_rise_with_the_length(project):
    chosen = spread_over_lengths(plan_of(project), 24)
    rises = sum(length(one) <= length(two) for one, two in itertools.pairwise(chosen))
    assert 6 <= rises <= 18


@pytest.mark.parametrize("n", [1, 2, 3, 59, 60, 61, 299])
def test_any_number_of_requests_can_be_asked_for(project, n):
    assert len(spread_over_lengths(plan_of(project), n)) == n


def test_a_row_timed_twice_counts_as_two_requests(project):
    row = plan_of(project).rows[0]
    assert [one.id for one in unique_ids([row, row, row])] == [row.id, f"{row.id}.2", f"{row.id}.3"]


def test_a_server_is_timed_by_its_own_clock_and_a_failed_request_is_missing(project):
    def respond(body, number):
        return Reply("no", status=500) if number == 4 else Reply("a b", delay_s=0.02, piece_delay_s=0.01)

    project.params["latency"] = {"suite": "reply", "requests": 6, "warmup": 2}
    with StandIn(respond) as server:
        use_endpoint(project, server.url)
        metrics = run(project).summary["metrics"]
        assert len(server.received) == 8
    assert (metrics["latency_p50_ms"]["n"], metrics["latency_p50_ms"]["n_missing"]) == (5, 1)
    answered = [row for row in rows_of(project) if row["state"] == "scored"]
    assert all(row["ttft_ms"] >= 20 and row["latency_ms"] > row["ttft_ms"] for row in answered)
    assert [math.isnan(row["latency_ms"]) for row in rows_of(project)].count(True) == 1


def test_a_suite_cannot_take_the_name_of_the_timed_requests(project):
    project.params["suites"]["latency"] = project.params["suites"]["reply"]
    with pytest.raises(ConfigError, match=r"suites\.latency: this name belongs to the timed requests"):
        run(project)


def test_memory_is_rounded_to_what_is_sold():
    assert [rounded_gib(int(gib * 2**30)) for gib in (0, 15.6, 16.4, 23.2, 31.3, 125.6)] == [1, 16, 16, 24, 32, 128]


def test_a_machine_describes_itself_the_same_way_twice():
    assert describe() == describe()
    assert describe().cores >= 1
