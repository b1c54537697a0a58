"""What Prometheus is told: readable by its own parser, complete, and about the right request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.serving.config import Serving
from pipelines.serving.exposition import Exposition, Histogram
from pipelines.serving.metrics import GatewayMetrics
from pipelines.serving.parts import Rated
from tests.serving.gateway import declared, upstream
from tests.serving.ledgers import exchange

Sample = tuple[str, tuple[tuple[str, str], ...]]


def metrics(**more: Any) -> GatewayMetrics:
    return GatewayMetrics(serving(**more))


def serving(**more: Any) -> Serving:
    variants = {"stable": {"upstream": "one", "weight": 9}, "new": {"upstream": "one", "weight": 1}}
    routes = {"desk": {"variants": variants, "salt": "s"}}
    bounds = {"latency_bounds_s": [0.1, 1.0], "ttft_bounds_s": [0.5]}
    file = declared({"one": upstream("http://127.0.0.1:1/v1")}, routes, **{"metrics": bounds, **more})
    return Serving.model_validate_json(json.dumps(file))


def read(made: GatewayMetrics) -> dict[Sample, float]:
    """Every sample, read by Prometheus' parser; each family is there once, described, and named by the rules."""
    families = list(text_string_to_metric_families(made.render().decode()))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    found = {}
    for family in families:
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def at(name: str, **labels: str) -> Sample:
    return f"gatehouse_{name}", tuple(sorted(labels.items()))


DESK = {"route": "desk", "variant": "stable"}


def test_everything_declared_begins_at_zero() -> None:
    found = read(metrics())
    for variant in ("stable", "new"):
        assert found[at("requests_total", route="desk", variant=variant, status="200")] == 0
        assert found[at("assigned_total", route="desk", variant=variant)] == 0
        assert found[at("request_duration_seconds_bucket", route="desk", variant=variant, le="+Inf")] == 0
        assert found[at("ratings_total", route="desk", variant=variant, rating="1")] == 0


def test_a_finished_request_counts_everywhere_once() -> None:
    made = metrics()
    done = exchange(latency_ms=100.0, ttft_ms=600.0, cache="miss", is_stream=True)
    done.decide("in", "pii", "redact")
    done.decide("out", "secrets", "flag")
    made.observe(done)
    made.assigned("desk", "stable")
    found = read(made)
    assert found[at("requests_total", **DESK, status="200")] == 1
    assert found[at("assigned_total", **DESK)] == 1
    assert [found[at("request_duration_seconds_bucket", **DESK, le=le)] for le in ("0.1", "1", "+Inf")] == [1, 1, 1]
    assert [found[at("time_to_first_token_seconds_bucket", **DESK, le=le)] for le in ("0.5", "+Inf")] == [0, 1]
    assert found[at("request_duration_seconds_sum", **DESK)] == pytest.approx(0.1)
    assert found[at("tokens_total", project="first", route="desk", model="small", kind="prompt")] == 10
    assert found[at("tokens_total", project="first", route="desk", model="small", kind="completion")] == 5
    assert found[at("cost_usd_total", project="first", route="desk", model="small")] == 0.001
    assert found[at("cache_requests_total", route="desk", level="miss")] == 1
    decision = {"route": "desk", "direction": "in", "rule": "pii", "action": "redact"}
    assert found[at("guardrail_decisions_total", **decision)] == 1


def test_a_value_on_a_bound_is_within_it_and_one_above_is_not() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.1, 0.1000001, 1.0, 1.0000001):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]


def test_only_answered_requests_have_a_duration() -> None:
    made = metrics()
    for status in (429, 499, 502, 503):
        made.observe(exchange(status=status, latency_ms=1.0, ttft_ms=1.0))
    found = read(made)
    assert found[at("request_duration_seconds_count", **DESK)] == 0
    assert found[at("time_to_first_token_seconds_count", **DESK)] == 0
    assert found[at("requests_total", **DESK, status="499")] == 1


def test_a_cached_answer_has_no_tokens_and_no_cost() -> None:
    made = metrics()
    made.observe(exchange(cache="exact", n_attempts=0, usd=0.0))
    found = read(made)
    assert not [name for name, _ in found if name in ("gatehouse_tokens_total", "gatehouse_cost_usd_total")]
    assert found[at("cache_requests_total", route="desk", level="exact")] == 1


def test_upstreams_ratings_and_requests_under_way_are_shown() -> None:
    made = metrics()
    made.attempted("one", "ok")
    made.attempted("one", "timeout")
    made.attempted("one", "timeout")
    made.rated(Rated("desk", "new"), 5)
    made.active(1)
    made.active(1)
    made.active(-1)
    for state, value in (("closed", 1.0), ("half_open", 0.5), ("open", 0.0)):
        made.health("one", state)
        assert read(made)[at("upstream_health", upstream="one")] == value
    found = read(made)
    assert found[at("upstream_attempts_total", upstream="one", outcome="timeout")] == 2
    assert found[at("ratings_total", route="desk", variant="new", rating="5")] == 1
    assert found[at("active_requests")] == 1


def test_labels_with_quotes_backslashes_and_line_breaks_come_back_as_they_were() -> None:
    out = Exposition()
    name = 'a "quoted" \\ name\nof two lines'
    out.family("x_total", "counter", "Any.")
    out.sample("x_total", {"model": name}, 1)
    out.histogram("y", {"model": name}, Histogram((1.0,)))
    family, *_ = text_string_to_metric_families(out.text().decode())
    assert family.samples[0].labels == {"model": name}


@pytest.mark.parametrize("value", [0, 1, 0.1, 1e-9, 1e300, 123456789012345678, float("inf")])
def test_numbers_come_back_as_they_were(value: float) -> None:
    out = Exposition()
    out.single("x", "gauge", "Any.", value)
    (family,) = text_string_to_metric_families(out.text().decode())
    assert family.samples[0].value == float(value)


def test_a_reload_keeps_counts_and_begins_histograms_with_other_bounds_anew() -> None:
    made = metrics()
    made.observe(exchange(ttft_ms=1.0))
    made.health("one", "open")
    made.health("gone", "open")
    made.declare(serving())
    found = read(made)
    assert found[at("request_duration_seconds_count", **DESK)] == 1
    assert at("upstream_health", upstream="one") in found
    assert at("upstream_health", upstream="gone") not in found
    made.declare(serving(metrics={"latency_bounds_s": [0.2], "ttft_bounds_s": [0.5]}))
    found = read(made)
    assert found[at("requests_total", **DESK, status="200")] == 1
    assert found[at("request_duration_seconds_bucket", **DESK, le="0.2")] == 0
    assert at("request_duration_seconds_bucket", **DESK, le="0.1") not in found


def test_what_a_verdict_needs_is_there_by_variant() -> None:
    made = metrics()
    made.assigned("desk", "new")
    made.observe(exchange(variant="new", status=502))
    made.rated(Rated("desk", "new"), 4)
    side = made.side("desk", "new")
    assert side is not None
    assert (side.n_assigned, side.statuses, side.ratings[4]) == (1, {200: 0, 502: 1}, 1)
    assert made.side("desk", "unknown") is None
