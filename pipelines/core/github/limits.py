"""What GitHub takes at most, and Markdown shortened to fit."""

from __future__ import annotations

import re
from collections.abc import Callable

BODY_CHARACTERS = 65_536  # a comment; one more is refused with 422
SUMMARY_BYTES = 1024 * 1024  # a step's summary; a longer one is dropped whole
DESCRIPTION_CHARACTERS = 140  # a commit status

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_OPEN = re.compile(r"<(details|table)\b", re.IGNORECASE)
_CLOSE = re.compile(r"</(details|table)\s*>", re.IGNORECASE)


def utf8(text: str) -> int:
    """Return how many bytes the text takes."""
    return len(text.encode("utf-8", "replace"))


def fit(markdown: str, most: int, last_line: str, *, size: Callable[[str], int] = len) -> str:
    """Shorten Markdown at the end of a line; what is open there is closed, so that the last line is seen.

    Args:
        markdown: What would be written.
        most: Greatest size of the result.
        last_line: Says that something is missing, and where the whole is; only used where something is cut.
        size: Counts a text as the limit does: characters by default.

    Returns:
        The Markdown itself if it fits. A code block that does not fit is left out as a whole.
    """
    if size(markdown) <= most:
        return markdown
    kept: list[str] = []
    safe = 0  # so many lines stand outside of any code block
    fence = ""
    open_tags: list[str] = []
    safe_tags: list[str] = []
    room = most - size(last_line) - 400  # for what closes: at most 20 tags of 12 characters, and blank lines
    for line in markdown.split("\n"):
        room -= size(line) + 1
        if room < 0 or len(open_tags) > 20:
            break
        kept.append(line)
        fence = _fence_after(line, fence)
        if not fence:
            _follow(line, open_tags)
            safe, safe_tags = len(kept), open_tags.copy()
    closing = "".join(f"\n</{tag}>" for tag in reversed(safe_tags))
    return "\n".join(kept[:safe]).rstrip() + f"\n{closing}\n\n{last_line}\n"


def _fence_after(line: str, fence: str) -> str:
    """Return the code fence that is open after this line, "" for none."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    mark, rest = found.groups()
    if fence:
        closes = mark[0] == fence[0] and len(mark) >= len(fence) and not rest.strip()
        return "" if closes else fence
    return "" if mark[0] == "`" and "`" in rest else mark


def _follow(line: str, open_tags: list[str]) -> None:
    open_tags += [found.lower() for found in _OPEN.findall(line)]
    for closed in _CLOSE.findall(line):
        if closed.lower() in open_tags:
            open_tags.reverse()
            open_tags.remove(closed.lower())
            open_tags.reverse()
