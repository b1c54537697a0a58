"""Prometheus' text format 0.0.4: families, labels, histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram:
    """Counts values by the bounds that they are not above.

    Attributes:
        bounds: Upper bounds, growing; the last one, infinity, is not among them.
        counts: Values per bound, each counted once; one more than bounds. Shape (n_bounds + 1,).
        total: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Exposition:
    """Collects lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: Kind, meaning: str) -> None:
        """Begin a family; its samples follow."""
        self._lines.append(f"# HELP {name} {meaning}\n# TYPE {name} {kind}")

    def sample(self, name: str, labels: Labels, value: float) -> None:
        """Add one value."""
        self._lines.append(f"{name}{_braces(labels)} {_number(value)}")

    def single(self, name: str, kind: Kind, meaning: str, value: float) -> None:
        """Add a family of one value without labels."""
        self.family(name, kind, meaning)
        self.sample(name, {}, value)

    def histogram(self, name: str, labels: Labels, histogram: Histogram) -> None:
        """Add the buckets, the sum and the count of a histogram."""
        inside = "".join(f'{key}="{value.translate(_ESCAPES)}",' for key, value in labels.items())
        n_values = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            n_values += count
            self._lines.append(f'{name}_bucket{{{inside}le="{_number(bound)}"}} {n_values}')
        self.sample(f"{name}_sum", labels, histogram.total)
        self.sample(f"{name}_count", labels, n_values)

    def text(self) -> bytes:
        """Return everything."""
        return ("\n".join(self._lines) + "\n").encode() if self._lines else b""


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items()) + "}"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
