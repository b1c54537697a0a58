"""`metrics.json`: every metric of a suite with its interval, over all rows and by slice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.estimate import estimate
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.results import Results

Summary = dict[str, Any]


def summarise(suite: str, results: Results, metrics: Mapping[str, Metric]) -> Summary:
    """Return what `metrics.json` holds: values with one-sided 95 % bounds on each side.

    Args:
        suite: Name of the suite.
        results: Its rows, repeats averaged.
        metrics: Its metrics by name.
    """
    everything = np.ones(len(results.ids), dtype=bool)
    slices = [str(name) for name in np.unique(results.slices) if name]
    return {
        "schema_version": 1,
        "suite": suite,
        "metrics": _table(results, metrics, everything),
        "slices": {name: _table(results, metrics, results.slices == name) for name in slices},
    }


def _table(results: Results, metrics: Mapping[str, Metric], chosen: NDArray[np.bool_]) -> dict[str, Summary]:
    """Summarise the chosen rows; in a slice, a metric that applies to none of its rows is left out."""
    found = {name: _entry(results, metric, chosen) for name, metric in metrics.items()}
    return found if chosen.all() else {name: entry for name, entry in found.items() if entry["n"] + entry["n_missing"]}


def _entry(results: Results, metric: Metric, chosen: NDArray[np.bool_]) -> Summary:
    column = results.columns[metric.name]
    applies = column.applies & chosen
    has_value = applies & ~np.isnan(column.values)
    n_missing = int(applies.sum() - has_value.sum())
    entry: Summary = {"value": None, "lower": None, "upper": None, "n": 0, "n_missing": n_missing}
    method = "none"
    if has_value.any():
        found = estimate(
            column.values[has_value],
            kind=metric.kind,
            low=metric.low,
            high=metric.high,
            is_exact=metric.is_safety,
            quantile=metric.quantile,
            is_log=metric.is_log,
            clusters=None if results.clusters is None else _if_shared(results.clusters[has_value]),
        )
        method = found.method
        bounds = {"value": found.value, "lower": found.lower, "upper": found.upper}
        # JSON has no infinity: null says that the rows bound nothing on this side.
        entry |= {key: value if math.isfinite(value) else None for key, value in bounds.items()} | {"n": found.n}
    return entry | {"direction": metric.direction, "method": method, "kind": metric.kind}


def _if_shared(clusters: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the clusters, or None where each of these rows stands alone after all."""
    return clusters if len(np.unique(clusters)) < len(clusters) else None


def as_lines(summary: Summary) -> list[str]:
    """Write a summary as aligned lines for a terminal: name, value, bounds, rows, missing rows."""
    entries = summary["metrics"]
    width = max((len(name) for name in entries), default=0)
    lines = []
    for name, entry in entries.items():
        bounds = f"[{_number(entry['lower'])}, {_number(entry['upper'])}]"
        missing = f", {entry['n_missing']} missing" if entry["n_missing"] else ""
        lines.append(f"{name:<{width}}  {_number(entry['value']):>10}  {bounds:<24}  {entry['n']} rows{missing}")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
