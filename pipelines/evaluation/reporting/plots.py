"""Geometry of the plots: positions in percent of a plot's width and height, so that SVG text never gets distorted."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipelines.core.files import canonical_json
from pipelines.evaluation.reporting.view import Check, Example, SliceResult, TrainingStep

MAX_LABELS = 12  # a larger confusion table is no longer read
MAX_POINTS = 400  # a finer line does not show


class Track(NamedTuple):
    """One interval on a horizontal axis, all positions in percent of its width; None is not drawn.

    Attributes:
        left: Lower bound.
        right: Upper bound.
        point: The estimate.
        limit: What the rule demands.
        other: The baseline's value.
        bad: Start and width of the side on which the rule does not hold.
    """

    left: float
    right: float
    point: float | None
    limit: float | None
    other: float | None
    bad: tuple[float, float] | None


class Tick(NamedTuple):
    """A labelled position on an axis, in percent."""

    at: float
    label: str


class Line(NamedTuple):
    """A path in a 100 x 100 box, y pointing down."""

    name: str
    path: str


class Plot(NamedTuple):
    """Lines over two axes, with marked positions on the x axis."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[tuple[str, Tick], ...] = ()


class Confusion(NamedTuple):
    """Gold against predicted values of one key; `shades` are 0 (none) to 6 (all of the row)."""

    suite: str
    key: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shades: tuple[tuple[int, ...], ...]


def forest(check: Check) -> Track | None:
    """Place a check's interval against its limit; a regression rule's axis is the gain, its limit a loss."""
    is_gain = check.rule == "max_regression"
    values = (check.gain_lower, check.gain_upper, check.gain) if is_gain else (check.lower, check.upper, check.value)
    lower, upper, point = values
    limit = None if check.limit is None else -check.limit if is_gain else check.limit
    other = 0.0 if is_gain else check.baseline_value
    if point is None and lower is None and upper is None:
        return None
    known = [x for x in (lower, upper, point, limit, other) if x is not None]
    low, high = _padded(min(known), max(known))
    if limit is None:
        bad = None
    else:
        at = _at(limit, low, high)
        bad = (at, 100 - at) if check.rule == "ceiling" else (0.0, at)
    return Track(
        left=_at(low if lower is None else lower, low, high),
        right=_at(high if upper is None else upper, low, high),
        point=None if point is None else _at(point, low, high),
        limit=None if limit is None else _at(limit, low, high),
        other=None if other is None else _at(other, low, high),
        bad=bad,
    )


def slice_tracks(slices: Sequence[SliceResult]) -> list[Track | None]:
    """Place the slices of one metric on one axis."""
    known = [
        x
        for item in slices
        for x in (item.estimate.lower, item.estimate.upper, item.estimate.value, item.baseline and item.baseline.value)
        if x is not None
    ]
    if not known:
        return [None for _ in slices]
    low, high = _padded(min(known), max(known))
    tracks: list[Track | None] = []
    for item in slices:
        now, then = item.estimate, item.baseline.value if item.baseline else None
        if now.value is None:
            tracks.append(None)
            continue
        left, right = (now.value if bound is None else bound for bound in (now.lower, now.upper))
        other = None if then is None else _at(then, low, high)
        point = _at(now.value, low, high)
        tracks.append(Track(_at(left, low, high), _at(right, low, high), point, None, other, None))
    return tracks


def latency(candidate: Sequence[float], baseline: Sequence[float], limit: float | None) -> Plot | None:
    """Draw the share of requests that were answered within a time (ECDF), in ms.

    Args:
        candidate: Sorted latencies.
        baseline: Likewise; may be empty.
        limit: Of the p95, drawn where it is within the axis.
    """
    if not candidate:
        return None
    high = 1.05 * max(*candidate, *baseline, 1.0)
    if limit is not None and high < limit <= 1.6 * high:
        high = limit * 1.05
    named = [("baseline", baseline), ("candidate", candidate)]
    marks = [("limit", Tick(_at(limit, 0, high), f"limit {limit:,.0f}"))] if limit and limit <= high else []
    for share in (0.50, 0.95):
        x = candidate[max(0, math.ceil(share * len(candidate)) - 1)]
        marks.append(("quantile", Tick(_at(x, 0, high), f"p{share * 100:.0f} {x:,.0f} ms")))
    return Plot(
        lines=tuple(Line(name, _steps(values, high)) for name, values in named if values),
        x_ticks=tuple(Tick(_at(x, 0, high), f"{x:,.0f}") for x in nice(0, high)),
        y_ticks=tuple(Tick(100 - share, f"{share} %") for share in (0, 50, 95)),
        marks=tuple(marks),
    )


def loss(curve: Sequence[TrainingStep]) -> Plot | None:
    """Draw the training loss over steps, from zero."""
    if len(curve) < 2:
        return None
    points = curve[:: max(1, len(curve) // MAX_POINTS)]
    first, last = points[0].step, points[-1].step
    high = 1.08 * max(point.loss for point in points) or 1.0
    path = "M" + "L".join(f"{_at(x, first, last):.2f} {100 - _at(y, 0, high):.2f}" for x, y in points)
    return Plot(
        lines=(Line("candidate", path),),
        x_ticks=tuple(Tick(_at(x, first, last), f"{x:g}") for x in nice(first, last)),
        y_ticks=tuple(Tick(100 - _at(y, 0, high), f"{y:g}") for y in nice(0, high, 4)),
    )


def confusions(suite: str, examples: Iterable[Example], read: Any) -> list[Confusion]:
    """Count gold against predicted values per key of JSON answers, where a key has 2 to 12 values.

    Args:
        suite: Name of the suite.
        examples: Its rows.
        read: Turns an answer into its JSON object, or None.
    """
    pairs = [(gold, read(example.output) or {}) for example in examples if (gold := read(example.gold))]
    found = []
    for key in dict.fromkeys(itertools.chain.from_iterable(gold for gold, _ in pairs)):
        labels = Counter(_label(gold[key]) for gold, _ in pairs if key in gold)
        if not 2 <= len(labels) <= MAX_LABELS:
            continue
        names = tuple(sorted(labels))
        cells = Counter(
            (_label(gold[key]), predicted if (predicted := _label(answer.get(key))) in labels else "other")
            for gold, answer in pairs
            if key in gold
        )
        columns = (*names, "other") if any(column == "other" for _, column in cells) and "other" not in names else names
        counts = tuple(tuple(cells[name, column] for column in columns) for name in names)
        shades = tuple(tuple(math.ceil(6 * count / max(1, sum(row))) for count in row) for row in counts)
        found.append(Confusion(suite, key, names, columns, counts, shades))
    return found


def nice(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two bounds, about so many."""
    if not high - low > 1e-300:  # a hundredth of it would be zero
        return [low]
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _steps(values: Sequence[float], high: float) -> str:
    n = len(values)
    chosen = range(0, n, max(1, n // MAX_POINTS))
    path = "M0 100"
    for index in [*chosen, n - 1]:
        path += f"H{_at(values[index], 0, high):.2f}V{100 - 100 * (index + 1) / n:.2f}"
    return path + "H100"


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.08 * (high - low) or max(abs(high), 1.0) * 0.08
    return low - room, high + room


def _at(x: float, low: float, high: float) -> float:
    at = 100 * (x - low) / (high - low) if high > low else 50.0
    return round(at, 2) if math.isfinite(at) else 50.0
