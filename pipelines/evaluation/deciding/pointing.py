"""Point at the line of `gates.yaml` that a candidate does not keep to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pipelines.core.source import Source
from pipelines.evaluation.gate import Decision


class Point(NamedTuple):
    """Something to draw at a line of `gates.yaml`: what blocks is an error, what asks for a person a warning."""

    level: Literal["error", "warning"]
    line: int | None
    title: str
    message: str


def point(decision: Decision, source: Source) -> Iterator[Point]:
    """Yield one point for each check that keeps the candidate from passing.

    Args:
        decision: What was decided.
        source: The `gates.yaml` that it was decided by, with its lines.
    """
    for index, gate in enumerate(decision.gates):
        for check in gate.checks:
            if check.verdict in ("pass", "not_applicable"):
                continue
            blocks = gate.required and check.verdict in ("fail", "error")
            line = source.line(("evaluation", "gates", index, "metrics", check.metric, check.rule))
            yield Point("error" if blocks else "warning", line, f"{gate.name}: {check.verdict}", check.reason)
