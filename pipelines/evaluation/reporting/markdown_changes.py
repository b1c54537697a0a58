"""The comment's section on what changed: keys, prompts word by word, data row by row, model."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.core.markdown import code, inline
from pipelines.evaluation.reporting.changes import KeyChange, PromptChange
from pipelines.evaluation.reporting.data_changes import DataChange
from pipelines.evaluation.reporting.difference import Piece
from pipelines.evaluation.reporting.text import counted
from pipelines.evaluation.reporting.view import View

LONGEST_TEXT = 4_000  # characters, as written, of one difference: about a screen
LONGEST_CELL = 1_000
MOST_NAMES = 20
MOST_OPEN = 3  # prompts that are not folded


def write(view: View, most: int) -> str:
    """Write the section.

    Args:
        view: What to show.
        most: Most items of each kind; the rest is counted.
    """
    found = view.changes
    if not found.is_known:
        return "### What changed\n\nUnknown: there is no baseline tree to compare with."
    if found.is_nothing:
        return "### What changed\n\nNothing declared: prompts, parameters, gates, data and model are the baseline's."
    lines: list[str] = []
    for title, keys in (("Parameters", found.parameters), ("Gates", found.gates)):
        lines += _listing(title, [_key(change) for change in keys], most)
    lines += _listing("Model", [f"{_name(m.suite)}: {_name(m.before)} → {_name(m.after)}" for m in found.models], most)
    lines += _listing("Not comparable", [inline(line, 300) for line in found.unreadable], most)
    for prompt in found.prompts[: min(most, MOST_OPEN)]:
        lines += _prompt(prompt, most)
    if folded := found.prompts[MOST_OPEN:most]:
        lines += [f"<details><summary>{counted(len(folded), 'more prompt')}</summary>", ""]
        lines += [line for prompt in folded for line in _prompt(prompt, most)] + ["</details>", ""]
    lines += _left_out("prompt", [prompt.path for prompt in found.prompts[most:]], most)
    for data in found.data[:most]:
        lines += _data(data, most)
    lines += _left_out("data file", [data.path for data in found.data[most:]], most)
    return "\n".join(["### What changed", "", *lines]).rstrip()


def _listing(title: str, items: list[str], most: int) -> list[str]:
    if not items:
        return []
    return [f"**{title}**", "", *(f"- {item}" for item in items[:most]), *rest(len(items), most), ""]


def _key(change: KeyChange) -> str:
    sides = ["(not set)" if side is None else code(side, 200) for side in (change.before, change.after)]
    return f"{code(change.key, 120)}: {sides[0]} → {sides[1]}"


def _name(name: str) -> str:
    return code(name, 120)


def _prompt(change: PromptChange, most: int) -> list[str]:
    lines = [f"**Prompt** {_name(change.path)} {change.state}", ""]
    for item in change.texts[:most]:
        lines += [f"> {inline(item.label, 40)}: {_marked(item.pieces, LONGEST_TEXT)}", ""]
    keys = [f"- {_key(key)}" for key in change.keys[:most]]
    hidden = max(0, len(change.texts) - most) + max(0, len(change.keys) - most)
    return [*lines, *keys, *rest(hidden, 0), ""]


def _left_out(noun: str, paths: list[str], most: int) -> list[str]:
    """Name what is not shown; of very many, the first."""
    if not paths:
        return []
    named = MOST_NAMES if most > 1 else 3
    names = ", ".join(code(path, 60) for path in paths[:named])
    more = f" and {len(paths) - named:,} more" if len(paths) > named else ""
    return [f"**{counted(len(paths), f'more {noun}')} changed**, in report.html: {names}{more}", ""]


def _marked(pieces: Iterable[Piece], longest: int) -> str:
    """Mark a difference inside one line; long stretches that both sides share are shortened in their middle."""
    tags = {"same": "", "removed": "del", "added": "ins"}
    parts, room, left_out = [], longest, 0
    for kind, words in pieces:
        if room <= 0:
            left_out += kind != "same"
            continue
        shown = words if kind != "same" or len(words) <= 120 else _shortened(words)
        lead, tail = (" " if shown[:1].isspace() else ""), (" " if shown[-1:].isspace() else "")
        tag, inner = tags[kind], inline(shown.strip(), 600)
        if tag and shown.strip() and not inner:
            inner = "(hidden characters)"
        parts.append(f"{lead}<{tag}>{inner}</{tag}>{tail}" if tag and inner else f"{lead}{inner}{tail}")
        room -= len(parts[-1])
    end = f" … {counted(left_out, 'change')} more in report.html" if left_out else ""
    return "".join(parts).strip() + end


def _shortened(words: str) -> str:
    """Keep both ends, cut between words where there are any."""
    start, end = words[:60], words[-60:]
    return f"{start[: start.rfind(' ', 30)]} … {end[end.find(' ', 0, 30) + 1 :]}"


def _data(change: DataChange, most: int) -> list[str]:
    counts = ", ".join(
        f"{len(rows):,} {name}"
        for name, rows in zip(
            ("added", "removed", "edited"), (change.added, change.removed, change.edited), strict=True
        )
    )
    lines = [f"**Data** {_name(change.path)}: {counts} ({change.n_before:,} → {change.n_after:,} rows)", ""]
    lines += [f"- {inline(sentence, 200)}" for sentence in change.shift[:most]]
    shown = min(most, 3)
    for row in change.edited[:shown]:
        cells = "; ".join(
            f"{inline(column, 40)}: {_marked(pieces, LONGEST_CELL)}" for column, pieces in row.columns[:4]
        )
        lines.append(f"- line {row.line} edited: {cells}")
    lines += [f"- line {line} added: {code(row, 200)}" for line, row in change.added[:shown]]
    lines += [f"- line {line} of the baseline removed: {code(row, 200)}" for line, row in change.removed[:shown]]
    return [*lines, ""]


def rest(total: int, most: int) -> list[str]:
    """Return the lines that count what a shortened list or table leaves out."""
    return ["", f"{total - most:,} more in report.html"] if total > most else []
