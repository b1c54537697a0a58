"""Untrusted text made safe for GitHub comments: shown as it is, and nothing in it links, notifies, formats or hides."""

from __future__ import annotations

import re
import unicodedata

INLINE_LIMIT = 200
BLOCK_LIMIT = 4000
CUT = "…"
MOST_MARKS = 4  # accents on one letter: scripts need up to four, and a pile of them covers the lines around it

# An escaped character is a plain character to Markdown, but what GitHub does after rendering (mentions, issue
# numbers, commits, e-mail addresses, emoji) reads the unescaped text: only a character in between stops that.
_BREAK = "\u200b"
_BREAK_WRITTEN = "&#8203;"  # in sight of whoever reads the source

_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Shown as nothing although Unicode does not class them as format characters: fillers and variation selectors
# (U+FE0E and U+FE0F stay: they choose how an emoji looks).
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0d\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_REFERENCES = (
    re.compile(r"@()"),  # @user, @org/team, e-mail addresses, repository@commit
    re.compile(r"#()(?=[0-9])"),  # #1, owner/repository#1
    re.compile(r"(?<=[A-Za-z])-()(?=[0-9])"),  # GH-1, CVE-2026-1, and what a repository declares for its own tracker
    re.compile(r"GHSA-()", re.IGNORECASE),
    re.compile(r":()(?=\S)"),  # every scheme, :emoji:, ::workflow commands::
    re.compile(r"www()(?=\.)", re.IGNORECASE),
    re.compile(r"[0-9a-fA-F]{6}()(?=[0-9a-fA-F])"),  # commits are linked from seven digits on
    re.compile(r"\[()(?=!|[ xX]\])"),  # [!NOTE] and task lists, which may be looked for after rendering
)
_STRUCTURE = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_[]#|~<>"} | {
    ord("&"): "&amp;",
    ord("$"): "<span>$</span>",  # how GitHub wants a dollar written that opens no formula
    ord(_BREAK): _BREAK_WRITTEN,
}
# Lists, headings underlined, rules, and /commands that bots read at the start of a comment.
_LINE_START = re.compile(r"(?P<digits>[0-9]{0,9})(?P<mark>[-+=/]|(?<=[0-9])[.)])")
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_ISOLATED = "&#8296;{}&#8297;"  # letters of such scripts would turn round what stands beside them: `old → new`
# Runners take both for orders when a report is printed into a log; the second anywhere in a line.
_COMMAND = re.compile(r"^(\s*:)(?=:)|(##)(?=\[)", re.MULTILINE)


def inline(text: str, limit: int = INLINE_LIMIT) -> str:
    """Write untrusted text as one line of plain text, safe in a sentence, a table cell or a heading.

    Not for attributes of HTML tags and not for Mermaid.

    Args:
        text: Anything.
        limit: Most characters that are seen; what is cut off becomes `…`. The source may be longer.

    Returns:
        Markdown that shows the text. Hidden and control characters are gone, white space is one space.
    """
    text = _line(text, limit)
    for reference in _REFERENCES:
        text = reference.sub(lambda found: found.group(0) + _BREAK, text)
    start = _LINE_START.match(text)
    written = text.translate(_STRUCTURE)
    if start:
        written = f"{start['digits']}&#{ord(start['mark'])};{text[start.end() :].translate(_STRUCTURE)}"
    return _ISOLATED.format(written) if _is_right_to_left(text) else written


def code(text: str, limit: int = INLINE_LIMIT) -> str:
    """Write untrusted text as inline code, safe in a sentence or a table cell.

    Args:
        text: Anything.
        limit: Most characters that are seen; what is cut off becomes `…`.

    Returns:
        A code span; plain text if it holds `|`, which no code span can hold both inside and outside of tables;
        nothing if nothing is to be seen.
    """
    line = _line(text, limit)
    if not line or "|" in line:
        return inline(line, limit)
    line = _without_commands(line)
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    written = f"{fence}{pad}{line}{pad}{fence}"
    return _ISOLATED.format(written) if _is_right_to_left(line) else written


def block(text: str, limit: int = BLOCK_LIMIT) -> str:
    """Write untrusted text as a code block that it cannot leave.

    Args:
        text: Anything.
        limit: Most characters that are seen; what is cut off becomes `…`.

    Returns:
        A fenced code block, from the fence to the fence, for lines of its own that are not indented.
    """
    text = _cut(_visible(text, limit).strip("\n"), limit)
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{_without_commands(text)}\n{fence}"


def _line(text: str, limit: int) -> str:
    return _cut(" ".join(_visible(text, limit).split()), limit)


def _visible(text: str, limit: int) -> str:
    """Return the text without what cannot be seen, and with one kind of line break."""
    enough = 8 * limit + 1000  # for what is shown, even if most of it is hidden: nobody waits for megabytes
    text = text if len(text) <= enough else text[:enough] + CUT
    text = _LINE_BREAKS.sub("\n", _ANSI.sub("", text))
    return _without_piles(INVISIBLE.sub("", "".join(map(_character, text))))


def _character(one: str) -> str:
    if one in "\n\t" or one.isprintable():
        return one
    kind = unicodedata.category(one)
    if kind == "Zs":
        return " "
    # Control and format characters: bidirectional, zero-width, tags. Others (private, unassigned) are seen as boxes.
    return "" if kind in ("Cc", "Cf") else "\ufffd"


def _without_piles(text: str) -> str:
    if text.isascii():
        return text
    found, marks = [], 0
    for one in text:
        marks = marks + 1 if unicodedata.category(one) in ("Mn", "Me") else 0
        if marks <= MOST_MARKS:
            found.append(one)
    return "".join(found)


def _is_right_to_left(text: str) -> bool:
    return not text.isascii() and any(unicodedata.bidirectional(one) in _RIGHT_TO_LEFT for one in text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 1)] + CUT


def _without_commands(text: str) -> str:
    return _COMMAND.sub(lambda found: found.group(0) + _BREAK, text)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
