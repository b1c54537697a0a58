"""A metric's rows, and the same rows of the baseline beside them; what vanished is missing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.stats.estimate import Clusters
from pipelines.core.stats.judges import Agreement
from pipelines.core.stats.rules import at
from pipelines.evaluation.results import Column, Results

Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """One metric's rows that count, NaN where missing, shape (n_rows,)."""

    values: Floats
    clusters: Clusters


class Pair(NamedTuple):
    """One metric on both sides, NaN where missing, shape (n_rows,) each; of a quantile, each side's own rows."""

    candidate: Floats
    baseline: Floats
    clusters: Clusters
    ids: NDArray[np.str_]


def lost_rows(results: Results) -> int:
    """Return how many rows of the data set the rows file lacks."""
    return max(0, results.run.dataset.n - len(results.ids))


def metric_rows(results: Results, metric: str, baseline: Results | None) -> Rows:
    """Return the rows to which a metric applies.

    Rows that the file lacks are missing, and so are those to which the metric applied in the baseline and does not
    apply any more: no candidate gets better by losing rows.

    Args:
        results: The candidate's rows.
        metric: A metric that has a column.
        baseline: The baseline's rows, if there are any.
    """
    column = results.columns[metric]
    applies = column.applies.copy()
    if baseline is not None and metric in baseline.columns:
        applied = baseline.columns[metric].applies
        if not np.array_equal(results.ids, baseline.ids):
            applied = _taken(baseline.columns[metric], _places(results.ids, baseline.ids)).applies
        applies |= applied
    lost = lost_rows(results)
    values = np.concatenate([column.values[applies], np.full(lost, np.nan)])
    clusters = at(results.clusters, applies)
    if clusters is not None and lost:
        clusters = np.concatenate([clusters, clusters.max() + 1 + np.arange(lost)])
    return Rows(values, clusters)


def metric_pair(results: Results, baseline: Results, metric: str, *, is_paired: bool = True) -> Pair:
    """Return a metric's rows beside those of the baseline.

    With the same data set on both sides, a row that one side lacks is missing there. With another data set only the
    common rows are taken, for people to read.

    Args:
        results: The candidate's rows.
        baseline: The baseline's rows.
        metric: A metric that has a column on both sides.
        is_paired: Row by row; else each side's own rows.
    """
    ours, theirs = results.columns[metric], baseline.columns[metric]
    if not is_paired:
        own = metric_rows(results, metric, baseline)
        return Pair(own.values, theirs.values[theirs.applies], None, results.ids)
    if np.array_equal(results.ids, baseline.ids):
        ids, now_at, then_at = results.ids, None, None
        clusters = results.clusters
    else:
        is_same = results.run.dataset.digest == baseline.run.dataset.digest
        ids = (np.union1d if is_same else np.intersect1d)(results.ids, baseline.ids)
        now_at, then_at = _places(ids, results.ids), _places(ids, baseline.ids)
        clusters = _clusters(results, baseline, ids)
    now, then = _taken(ours, now_at), _taken(theirs, then_at)
    applies = now.applies | then.applies
    return Pair(now.values[applies], then.values[applies], at(clusters, applies), ids[applies])


def agreement_of(results: Results, judge: str) -> Agreement | None:
    """Return how a judge agreed with people in this run, or None if nobody labelled anything."""
    found = results.run.calibration.get(judge)
    return None if found is None else Agreement(found.m0, found.m1, found.correct0, found.correct1)


def _places(wanted: NDArray[np.str_], ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return where each wanted id stands among the sorted ids, -1 where it does not; shape (n_wanted,)."""
    if len(ids) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[places] == wanted, places, -1).astype(np.int64)


def _taken(column: Column, places: NDArray[np.int64] | None) -> Column:
    if places is None:
        return column
    is_there = places >= 0
    values = np.where(is_there, column.values[places] if len(column.values) else np.nan, np.nan)
    return Column(values, is_there & column.applies[places] if len(column.values) else is_there)


def _clusters(results: Results, baseline: Results, ids: NDArray[np.str_]) -> Clusters:
    """Return the clusters of the joined ids: the candidate's, or the baseline's where only it has the row."""
    if results.clusters is None and baseline.clusters is None:
        return None
    alone = np.arange(len(ids), dtype=np.int64)
    first = 1 + max(
        len(ids), *(0 if side.clusters is None else int(side.clusters.max(initial=0)) for side in (results, baseline))
    )
    found = alone
    for offset, side in ((2 * first, baseline), (first, results)):
        places = _places(ids, side.ids)
        if side.clusters is not None and len(side.clusters):
            found = np.where(places >= 0, side.clusters[places] + offset, found)
    return found
