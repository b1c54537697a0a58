"""A rollout's counters for Prometheus.

The label `process` is new with each start, and no count ever falls: so no series is ever reset, and the sum over all
series of `max_over_time` is what all replicas counted, those that are gone included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.serving.epochs import Arm
from pipelines.serving.exposition import Exposition
from pipelines.serving.splitting import Splitting
from pipelines.serving.tally import AB_TEST, Tally
from pipelines.serving.trial import Trial

EVENTS = ("errors", "refusals", "truncations", "schema_failures", "rejections")
SUMS = ("n", "total", "squares")
PREFIX = "gatehouse_rollout_"


class Series(NamedTuple):
    """One side of one epoch."""

    labels: dict[str, str]
    arm: Arm


def render(splitting: Splitting, out: Exposition) -> None:
    """Add the families of the last rollout, and how the split in force is known."""
    text = "The candidate's percent of the users, as the split in force says."
    weight = splitting.split.weight if splitting.split is not None else 0.0
    out.single(f"{PREFIX}weight", "gauge", text, weight)
    text = "Split documents that were refused; the one before stays in force."
    out.single(f"{PREFIX}refused_total", "counter", text, splitting.n_refused)
    age_s = splitting.age_s()
    if age_s is not None:
        text = "How long ago the source of the weights answered; they stay in force while it does not."
        out.single(f"{PREFIX}weights_age_seconds", "gauge", text, age_s)
    if splitting.tally is not None:
        series = list(_series(splitting.tally, splitting.process))
        _render_counts(series, out)
        _render_distributions(series, out)
        if splitting.tally.trial is not None:
            _render_trial(splitting.tally.trial, splitting.tally, splitting.process, out)


def _series(tally: Tally, process: str) -> Iterator[Series]:
    for epoch in tally.epochs.values():
        for variant, arm in (("candidate", epoch.candidate), ("stable", epoch.stable)):
            yield Series(_labels(tally, epoch.stage, epoch.weight, variant, process), arm)


def _labels(tally: Tally, stage: str, weight: float, variant: str, process: str) -> dict[str, str]:
    place = {"rollout": tally.rollout, "stage": stage, "weight": f"{weight:.12g}"}
    return {**place, "variant": variant, "process": process}


def _render_counts(series: list[Series], out: Exposition) -> None:
    _render_count("requests", "Requests of a rollout whose outcome is known.", series, out)
    name = f"{PREFIX}events_total"
    out.family(name, "counter", "Those that failed, were refused, cut off, ill-formed or called wrong.")
    for labels, arm in series:
        for event in EVENTS:
            out.sample(name, {**labels, "event": event}, getattr(arm, event))
    _render_count("departures", "Further requests, whose client left before their outcome was known.", series, out)
    _render_count("users", "Users of a rollout, counted at their first request of a stage and weight.", series, out)
    name = f"{PREFIX}ratings_total"
    out.family(name, "counter", "Ratings that were given, 0 to 1.")
    for labels, arm in series:
        for rating, count in arm.ratings.items():
            out.sample(name, {**labels, "rating": f"{rating:g}"}, count)
    name = f"{PREFIX}ratings_withdrawn_total"
    out.family(name, "counter", "Ratings that were changed: to be subtracted from those that were given.")
    for labels, arm in series:
        for rating, count in arm.withdrawn.items():
            out.sample(name, {**labels, "rating": f"{rating:g}"}, count)


def _render_count(count: str, text: str, series: list[Series], out: Exposition) -> None:
    name = f"{PREFIX}{count}_total"
    out.family(name, "counter", text)
    for labels, arm in series:
        out.sample(name, labels, getattr(arm, count))


def _render_distributions(series: list[Series], out: Exposition) -> None:
    name = f"{PREFIX}duration_seconds"
    out.family(name, "histogram", "Start to the end of a rollout's requests, however they ended.")
    for labels, arm in series:
        out.histogram(name, labels, arm.latency)
    name = f"{PREFIX}time_to_first_token_seconds"
    out.family(name, "histogram", "Start to the first content byte of a rollout's streams.")
    for labels, arm in series:
        out.histogram(name, labels, arm.ttft)


def _render_trial(trial: Trial, tally: Tally, process: str, out: Exposition) -> None:
    found = trial.as_json()
    name = f"{PREFIX}admitted_total"
    out.family(name, "counter", "Users (or requests) that were admitted to the A/B test.")
    for side, count in found["admitted"].items():
        out.sample(name, _labels(tally, AB_TEST, trial.weight, side, process), count)
    name = f"{PREFIX}outcomes_total"
    out.family(name, "counter", "Their outcomes, added up by metric: how many, their sum, the sum of their squares.")
    for metric, both in found["outcomes"].items():
        for side, sums in both.items():
            labels = _labels(tally, AB_TEST, trial.weight, side, process)
            for part, value in zip(SUMS, sums, strict=True):
                out.sample(name, {**labels, "metric": metric, "sum": part}, value)
