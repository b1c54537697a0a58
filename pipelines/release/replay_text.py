"""A recorded rollout that was judged again, as a table: what was said then, what the same counters say now."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.core.errors import one_line
from pipelines.release import figures
from pipelines.release.looks import requests_of
from pipelines.release.replay import Replayed

NAME_CHARACTERS = 24


def table(tag: str, found: Sequence[Replayed]) -> list[str]:
    """Return a line for every verdict, and what differs below the line that it is about.

    Args:
        tag: The release's tag.
        found: Its verdicts, judged again in order.
    """
    if not found:
        return [f"{one_line(tag, 60)}: nothing was judged; a first release has nothing to be compared with"]
    rows: list[tuple[str, ...]] = [("when", "stage", "candidate", "stable", "recorded", "again", "")]
    for one in found:
        event = one.event
        candidate, stable = requests_of(event.counters or {})
        cells = [event.at, str((event.stage or {}).get("name", event.step)), figures.count(candidate)]
        words = [str((event.verdict or {}).get("name")), str(one.verdict.get("name"))]
        cells += [figures.count(stable), *words, "DIFFERS" if one.difference else "agrees"]
        rows.append(tuple(one_line(cell, NAME_CHARACTERS) for cell in cells))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for at, row in enumerate(rows):
        cells = [
            f"{cell:>{size}}" if 2 <= i <= 3 else f"{cell:<{size}}"
            for i, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if at and found[at - 1].difference:
            lines.append(f"    {one_line(found[at - 1].difference, 200)}")
    n_differ = sum(bool(one.difference) for one in found)
    end = f"{n_differ} of {len(found)} differ" if n_differ else "all agree"
    return [*lines, f"{len(found)} verdicts of {one_line(tag, 60)} judged again: {end}"]
