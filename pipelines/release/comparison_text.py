"""A comparison of two versions for people: a table in the terminal, or Markdown for a release page."""

from __future__ import annotations

from typing import Any

from pipelines.core.errors import one_line
from pipelines.core.markdown import block, code, inline
from pipelines.release.compare import Comparison, Pair, Value

SHORT = 12
MOST_CHARACTERS = 40


def table(found: Comparison) -> str:
    """Return the comparison as lines for a terminal."""
    rows = [("", found.before.tag, found.after.tag), ("verdict", found.before.verdict, found.after.verdict)]
    for title, pairs, is_digest in _parts(found):
        if pairs:
            rows.append((title.upper(), "", ""))
            rows += [(f"  {_mark(one)} {one.name}", *_sides(one, is_digest)) for one in pairs]
    cells = [tuple(one_line(cell, MOST_CHARACTERS + 20) for cell in row) for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(2)]
    lines = [f"{name:<{widths[0]}}  {before:<{widths[1]}}  {after}".rstrip() for name, before, after in cells]
    for path, diff in found.prompt_diffs.items():
        lines += ["", one_line(path, 200), *(f"  {one_line(line, 200)}" for line in diff)]
    return "\n".join([*lines, "", "* differs"])


def markdown(found: Comparison) -> str:
    """Return the comparison as Markdown; nothing in it can format, link or notify."""
    return f"## {inline(found.before.tag)} and {inline(found.after.tag)}\n\n{sections(found)}"


def sections(found: Comparison) -> str:
    """Return the comparison without its heading, for a page that has one."""
    lines = [f"Verdicts: {inline(found.before.verdict)}, then {inline(found.after.verdict)}.", ""]
    for title, pairs, is_digest in _parts(found):
        if pairs:
            lines += [
                f"### {title}",
                "",
                f"| | {inline(found.before.tag)} | {inline(found.after.tag)} |",
                "|---|---|---|",
            ]
            for one in pairs:
                before, after = (inline(side) for side in _sides(one, is_digest))
                name = code(one.name)
                lines.append(f"| {f'**{name}**' if one.is_changed else name} | {before} | {after} |")
            lines.append("")
    for path, diff in found.prompt_diffs.items():
        lines += [f"<details><summary>{inline(path)}</summary>", "", block("\n".join(diff)), "", "</details>", ""]
    return "\n".join(lines)


def _parts(found: Comparison) -> list[tuple[str, list[Pair], bool]]:
    return [
        ("Metrics", found.metrics, False),
        ("Parameters", found.parameters, False),
        ("Prompts", found.prompts, True),
        ("Data", found.data, True),
        ("Models", found.models, True),
    ]


def _mark(one: Pair) -> str:
    return "*" if one.is_changed else " "


def _sides(one: Pair, is_digest: bool) -> tuple[str, str]:
    return _shown(one.before, is_digest), _shown(one.after, is_digest)


def _shown(value: Any, is_digest: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, Value):
        bounds = f" [{_number(value.lower)}, {_number(value.upper)}]" if value.lower is not None else ""
        return f"{_number(value.value)}{bounds} n={value.n}"
    text = str(value)
    return text[:SHORT] if is_digest else one_line(text, MOST_CHARACTERS)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
