"""One look at a release as lines of a terminal: the ladder, the share of traffic, the gates, the verdict."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from pipelines.core.errors import one_line
from pipelines.release import figures
from pipelines.release.cells import Line, cells, cut, wide
from pipelines.release.looks import Look, Progress, Told

TONE = {"advance": "good", "rollback": "bad", "hold": "warn", "unknown": "warn", "invalid": "warn"}
RUNG_TONE: dict[Progress, str] = {"done": "good", "now": "now", "next": "dim", "failed": "bad"}
STATUS_TONE = {"proven": "good", "within": "good", "failed": "bad", "worse": "bad", "watched": "dim", "open": ""}
BAR = 20
NARROWEST = 20
MOST_ROWS = 3
WIDEST = 120


class Glyphs(NamedTuple):
    """Signs that this terminal can write."""

    done: str = "✓"
    now: str = "▶"
    next: str = "·"
    failed: str = "✗"
    full: str = "█"
    empty: str = "░"
    between: str = " · "


PLAIN = Glyphs("+", ">", ".", "x", "#", "-", " | ")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: Its heading.
        cells: One per row.
        keep: Columns of the lowest number go first where the terminal is narrow.
        is_left: Whether it is set flush left.
    """

    title: str
    cells: list[str]
    keep: int
    is_left: bool = False


def lines(look: Look, width: int, glyphs: Glyphs = Glyphs()) -> list[Line]:  # noqa: B008 - a constant
    """Return a look as lines, none wider than the terminal.

    Args:
        look: What to show; its texts may be anybody's.
        width: Columns of the terminal.
        glyphs: What it can write.
    """
    width = max(NARROWEST, min(width, WIDEST))
    found = [_title(look, glyphs), *_ladder(look, width, glyphs), [], _traffic(look, glyphs)]
    if look.told:
        found += [[], *_gates(look.told, width), *_compared(look.told, width)]
    found += [[], *_verdict(look, width, glyphs)]
    return [cut(line, width) for line in found]


def _title(look: Look, glyphs: Glyphs) -> Line:
    instead = f" instead of {one_line(look.instead, 40)}" if look.instead else ", the first release"
    since = f"{glyphs.between}{figures.duration(look.total_s)} since it began"
    return [(one_line(look.tag, 40), "bold"), (instead, ""), (since, "dim")]


def _ladder(look: Look, width: int, glyphs: Glyphs) -> list[Line]:
    """Lay the rungs side by side, on as many lines as they need."""
    found: list[Line] = [[]]
    for rung in look.rungs:
        part = (f"{getattr(glyphs, rung.progress)} {one_line(rung.name, 30)}", RUNG_TONE[rung.progress])
        if found[-1] and cells(found[-1]) + 2 + wide(part[0]) > width:
            found.append([])
        found[-1] += [("  ", ""), part] if found[-1] else [part]
    return found


def _traffic(look: Look, glyphs: Glyphs) -> Line:
    full = round(look.weight * BAR) or (1 if look.weight > 0 else 0)
    bar: Line = [(glyphs.full * full, "now"), (glyphs.empty * (BAR - full), "dim")]
    said = f"  {figures.share(look.weight)} of traffic"
    if look.told and look.told.candidate is not None:
        sides = f"candidate {figures.count(look.told.candidate)}, stable {figures.count(look.told.stable)}"
        said += f"{glyphs.between}requests: {sides}"
    return [*bar, (said, "")]


def _gates(found: Told, width: int) -> list[Line]:
    if not found.gates:
        return []
    rows = found.gates
    has_proof = any(one.is_to_prove for one in rows)
    columns = [
        Column("gate", [_named(one.name, one.kind) for one in rows], 9, True),
        Column("counted", [figures.counted(one) for one in rows], 7),
        Column("rate", [figures.value(one, one.value) for one in rows], 4),
        Column("interval", [figures.interval(one) for one in rows], 5),
        Column("limit", [figures.limit(one) for one in rows], 8),
        Column("e harm", [figures.e_value(one.harm) for one in rows], 3),
        *([Column("e proof", [figures.e_value(one.proof) for one in rows], 2)] if has_proof else []),
    ]
    tail = [figures.status(one) for one in rows]
    note = ""
    if found.alpha:
        e = f"{1 / found.alpha:g}"
        note = f"e-values: a mean harm of {e} rolls back{f', a proof of {e} is enough' if has_proof else ''}"
    return _table(columns, tail, width, note)


def _compared(found: Told, width: int) -> list[Line]:
    if not found.compared:
        return []
    rows = found.compared
    columns = [
        Column("A/B test", [one_line(one.metric, 30) for one in rows], 9, True),
        Column("candidate", [figures.measure(one.metric, one.mean_candidate) for one in rows], 6),
        Column("stable", [figures.measure(one.metric, one.mean_stable) for one in rows], 5),
        Column("gain", [figures.measure(one.metric, one.gain, is_signed=True) for one in rows], 7),
        Column("interval", [figures.gain_interval(one) for one in rows], 4),
        Column("margin", [figures.measure(one.metric, one.margin) for one in rows], 8),
        Column("p harm", [figures.p_value(one.adjusted_p_harm) for one in rows], 3),
        Column("p safe", [figures.p_value(one.p_safe) for one in rows], 2),
    ]
    lines = _table(columns, [figures.standing(one, found.alpha) for one in rows], width, "")
    return [[], *lines] if found.gates else lines


def _named(name: str, kind: str) -> str:
    return f"{one_line(name, 30)}{' / stable' if kind == 'ratio' else ''}"


def _table(columns: list[Column], tail: list[str], width: int, note: str) -> list[Line]:
    """Set a table whose last column tells how each row stands; columns give way until it fits."""
    columns = list(columns)
    tail_width = max(map(len, tail))
    while len(columns) > 1 and sum(_column_width(one) + 2 for one in columns) + tail_width > width:
        columns.remove(min(columns, key=lambda one: one.keep))
    widths = [_column_width(one) for one in columns]
    head = "  ".join(_set(one.title, size, one) for one, size in zip(columns, widths, strict=True))
    found: list[Line] = [[(head, "dim")]]
    for at, last in enumerate(tail):
        cells = "  ".join(_set(one.cells[at], size, one) for one, size in zip(columns, widths, strict=True))
        found.append([(f"{cells}  ", ""), (last, STATUS_TONE.get(last, ""))])
    return [*found, [(note, "dim")]] if note else found


def _column_width(column: Column) -> int:
    return max(wide(column.title), *(wide(cell) for cell in column.cells))


def _set(text: str, size: int, column: Column) -> str:
    space = " " * (size - wide(text))
    return text + space if column.is_left else space + text


def _verdict(look: Look, width: int, glyphs: Glyphs) -> list[Line]:
    """Say what the verdict is and why, what is still needed, and what else stands in the way."""
    found: list[Line] = []
    if look.held:
        found += _paragraph("held", "warn", f"by {look.held}", width)
    if look.told is not None and look.told.verdict:
        tone = TONE.get(look.told.verdict, "warn")
        found += _paragraph(look.told.verdict, tone, look.told.reasons[0] if look.told.reasons else "", width)
    elif look.waiting:
        found += _paragraph("waiting", "warn", look.waiting, width)
    elif look.end:
        is_back = any(rung.progress == "failed" for rung in look.rungs)
        return [*found, *_paragraph(*(("taken back", "bad") if is_back else ("released", "good")), look.end, width)]
    return [*found, [(glyphs.between.join(_times(look)), "dim")]]


def _paragraph(word: str, tone: str, text: str, width: int) -> list[Line]:
    """Set a word and what it means on as few lines as that takes, and no more than three."""
    word = one_line(word, 20)
    indent = " " * (len(word) + 2)
    rows = textwrap.wrap(
        one_line(text, 400), max(10, width - len(indent)), max_lines=MOST_ROWS, placeholder=" …"
    ) or [""]  # fmt: skip
    return [[(word, tone), (f"  {rows[0]}", "")], *([(indent + row, "")] for row in rows[1:])]


def _times(look: Look) -> list[str]:
    most = f" of at most {figures.duration(look.most_s)}" if look.most_s is not None else ""
    found = [f"{one_line(look.stage, 30)}: {figures.duration(look.elapsed_s)}{most}"]
    if look.told and look.told.verdict == "hold" and look.told.more:
        about = expected_s(look)
        found.append(
            f"about {figures.count(look.told.more)} more requests"
            + (f", {figures.duration(about)}" if about is not None else "")
        )
    if look.told and look.told.verdict == "hold" and look.told.closed:
        least = f" of at least {figures.count(look.told.min_per_arm)}" if look.told.min_per_arm else ""
        candidate, stable = map(figures.count, look.told.closed)
        found.append(f"outcomes of each side: {candidate} and {stable}{least}")
    if look.blind_s:
        found.append(f"nothing measured for {figures.duration(look.blind_s)}")
    return found


def expected_s(look: Look) -> float | None:
    """Return the seconds until a stage is decided, if requests go on coming as they did in it."""
    if look.told is None or not look.told.more or not look.told.n_stage or not look.elapsed_s:
        return None
    left = look.told.more * look.elapsed_s / look.told.n_stage
    return left if look.most_s is None else min(left, max(0.0, look.most_s - look.elapsed_s))
