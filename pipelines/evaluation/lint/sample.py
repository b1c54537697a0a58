"""How many examples a suite will have for a metric, told from the raw data before anything is prepared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pipelines.core.params import Dataset, Params, SplitColumn, SplitOverride, Suite
from pipelines.evaluation.catalogue import LATENCY_SUITE, METRICS
from pipelines.evaluation.lint.project import Rows
from pipelines.evaluation.safety import attempts_injection, holds_personal_data

Raw = dict[str, Any]
Applies = Callable[[Raw], bool]


def expected_rows(dataset: Dataset, rows: Rows, split: str, applies: Applies = lambda _: True) -> float:
    """Return how many rows a split will have: exact where a column decides, else the mean of the content hash."""
    return sum(_share(dataset, row, split) for _, row in rows if applies(row))


def rows_of_metric(params: Params, rows: dict[str, Rows], suite_name: str, metric: str) -> int | None:
    """Return how many examples a metric will have in a suite, rounded down, or None if that cannot be told.

    Args:
        params: The declared parameters.
        rows: Raw rows per data set.
        suite_name: A suite, or `latency`.
        metric: A metric that the suite measures.
    """
    if suite_name == LATENCY_SUITE:
        return params.latency.requests
    suite = params.suites[suite_name]
    dataset = params.datasets.get(suite.dataset)
    if dataset is None or not rows.get(suite.dataset):
        return None
    found = rows[suite.dataset]
    every = expected_rows(dataset, found, suite.split)
    kept = 1.0 if suite.max_rows is None or every == 0 else min(1.0, suite.max_rows / every)
    share = 0.5 if _needs(metric) == "twin" else 1.0  # a pair of twins is one example
    count = expected_rows(dataset, found, suite.split, _applies(dataset, suite, metric))
    return math.floor(count * kept * share + 1e-6)


def clusters_of_metric(params: Params, rows: dict[str, Rows], suite_name: str, metric: str) -> int | None:
    """Return how many clusters of one size (conversations, pairs of twins) a metric's examples will come from.

    Sizes that differ count as fewer (Kish: the sum of the sizes squared, by the sum of their squares).

    Args:
        params: The declared parameters.
        rows: Raw rows per data set.
        suite_name: A suite, or `latency`.
        metric: A metric that the suite measures.

    Returns:
        Clusters, rounded down; None if each example stands alone, or if that cannot be told.
    """
    if suite_name == LATENCY_SUITE or _needs(metric) == "twin":
        return None
    suite = params.suites[suite_name]
    dataset = params.datasets.get(suite.dataset)
    if dataset is None or (dataset.group is None and dataset.twin is None):
        return None
    applies = _applies(dataset, suite, metric)
    members: dict[Any, list[float]] = {}
    for number, row in rows.get(suite.dataset, ()):
        if applies(row) and (share := _share(dataset, row, suite.split)):
            members.setdefault(_cluster(dataset, row, number), []).append(share)
    if all(len(shares) < 2 for shares in members.values()):
        return None
    every = sum(sum(shares) for shares in members.values())
    squares = sum(sum(shares) * len(shares) for shares in members.values())
    kept = 1.0 if suite.max_rows is None else min(1.0, suite.max_rows / every)
    return max(1, math.floor(kept * every**2 / squares + 1e-6))


def _cluster(dataset: Dataset, row: Raw, number: int) -> tuple[str, Any]:
    for kind, column in (("group", dataset.group), ("twin", dataset.twin)):
        if column and row.get(column) is not None:
            return kind, str(row[column])
    return "row", number


def _needs(metric: str) -> str:
    return METRICS[metric].needs if metric in METRICS else ""


def _applies(dataset: Dataset, suite: Suite, metric: str) -> Applies:
    def has_attack(row: Raw) -> bool:
        attack = row.get(dataset.attack) if dataset.attack else None
        concerns = holds_personal_data if metric == "personal_data_leak_rate" else attempts_injection
        return isinstance(attack, dict) and concerns(attack)

    def has_twin(row: Raw) -> bool:
        return dataset.twin is not None and row.get(dataset.twin) is not None

    return {"attack": has_attack, "twin": has_twin}.get(_needs(metric), lambda _: True)


def _share(dataset: Dataset, row: Raw, split: str) -> float:
    """Return the probability that a row ends up in a split; the first override that fits decides."""
    for override in dataset.overrides:
        if fits(override, row):
            return float(getattr(override.splits, split))
    if isinstance(dataset.splits, SplitColumn):
        return float(row.get(dataset.splits.column) in getattr(dataset.splits, split))
    return float(getattr(dataset.splits, split))


def fits(override: SplitOverride, row: Raw) -> bool:
    """Tell whether an override concerns a row."""
    value = row.get(override.column)
    return value is not None and (override.equals is None or value == override.equals)
