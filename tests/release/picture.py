"""Draw the terminal of a recorded release for the documentation.

python -m tests.release.picture HISTORY docs/release.svg [NUMBER]: the look at its verdict of that number, from 1.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

from pipelines.release import clock, screen
from pipelines.release.cells import Line, cells
from pipelines.release.history import History, read_history
from pipelines.release.looks import Look, Rung, told_of

COLOURS = {"": "#d7dce2", "bold": "#ffffff", "dim": "#8b949e", "good": "#5fd38d", "bad": "#ff7b72", "warn": "#e3b341"}
COLOURS |= {"now": "#79c0ff"}
WIDTH, LETTER, LINE = 100, 8.4, 20.0  # columns; pixels of a cell
BEFORE = ("staging", "smoke", "deploy")


def look_of(history: History, number: int) -> Look:
    """Return what was to be seen at a verdict."""
    events = history.of_attempt(1)
    judged = [event for event in events if event.verdict and event.stage]
    event = judged[number - 1]
    assert event.stage is not None
    stages = list(dict.fromkeys(str(one.stage["name"]) for one in judged if one.stage))
    names = [*BEFORE, *stages, *([] if "100 %" not in stages else ["champion"])]
    at = names.index(str(event.stage["name"]))
    is_back = event.action == "rollback"
    rungs = tuple(
        Rung(n, "done" if i < at else "next" if i > at else "failed" if is_back else "now") for i, n in enumerate(names)
    )
    instead = next((one.said for one in events if one.said.startswith("Make ")), "")
    before = instead.partition("instead of ")[2].partition(":")[0]
    began = clock.read(events[events.index(event) - 1].at)
    return Look(
        history.tag, before or "v0.1.0", rungs, names[at], float(event.stage["weight"]), told_of(event),
        total_s=clock.read(event.at) - clock.read(events[0].at), elapsed_s=clock.read(event.at) - began,
        most_s=float(event.stage["max_duration_s"]),
    )  # fmt: skip


def svg(lines: list[Line]) -> str:
    """Return lines as a picture with a dark ground, readable on white and on black pages."""
    columns = max(map(cells, lines))
    width, height = round(columns * LETTER + 40), round(len(lines) * LINE + 36)
    rows = []
    for at, line in enumerate(lines):
        column, spans = 0, []
        for text, style in line:
            weight = ' font-weight="bold"' if style in ("bold", "now") else ""
            for found in re.finditer(r"\S+(?: \S+)*", text):  # spaces in a row are places, not letters
                before, length = cells([(text[: found.start()], "")]), cells([(found[0], "")])
                x = f'x="{20 + (column + before) * LETTER:.1f}" textLength="{length * LETTER:.1f}"'
                spans.append(f'<tspan {x} fill="{COLOURS[style]}"{weight}>{escape(found[0])}</tspan>')
            column += cells([(text, style)])
        rows.append(f'<text y="{34 + at * LINE:.0f}">{"".join(spans)}</text>')
    body = "\n".join(rows)
    font = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{font}" font-size="14">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    source, target, *rest = sys.argv[1:]
    found = read_history(Path(source).read_bytes(), source)
    Path(target).write_text(svg(screen.lines(look_of(found, int(rest[0]) if rest else 4), WIDTH)), encoding="utf-8")
