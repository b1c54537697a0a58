"""What GitHub takes at most, and Markdown shortened to fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

BODY_CHARACTERS = 65_536  # a comment; one more is refused with 422
SUMMARY_BYTES = 1024 * 1024  # a step's summary; a longer one is dropped whole
DESCRIPTION_CHARACTERS = 140  # a commit status

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")
_OPEN = re.compile(r"<(details|table)\b", re.IGNORECASE)
_CLOSE = re.compile(r"</(details|table)\s*>", re.IGNORECASE)


class Fence(NamedTuple):
    """An open code block: how far its first line is indented, and what it began with."""

    indent: int
    mark: str


CLOSED = Fence(0, "")


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
    fences = {CLOSED}  # whatever may be open here: where a list ends is not always told by one line
    open_tags: list[str] = []
    safe_tags: list[str] = []
    room = most - size(last_line) - 400  # for what closes: at most 20 tags of 12 characters, and blank lines
    for line in markdown.split("\n"):
        room -= size(line) + 1
        if room < 0 or len(open_tags) > 20:
            break
        kept.append(line)
        fences = set().union(*(_fences_after(line, fence) for fence in fences))
        if fences == {CLOSED}:
            _follow(line, open_tags)
            safe, safe_tags = len(kept), open_tags.copy()
    closing = "".join(f"\n</{tag}>" for tag in reversed(safe_tags))
    return "\n".join(kept[:safe]).rstrip() + f"\n{closing}\n\n{last_line}\n"


def _fences_after(line: str, fence: Fence) -> set[Fence]:
    """Return the code fences that may be open after this line, `CLOSED` for none."""
    found = _FENCE.match(line)
    indent, mark, rest = (len(found[1]), found[2], found[3]) if found else (0, "", "")
    if fence == CLOSED:
        return {Fence(indent, mark) if mark and not (mark[0] == "`" and "`" in rest) else CLOSED}
    closes = mark[:1] == fence.mark[0] and len(mark) >= len(fence.mark) and not rest.strip()
    possible = {CLOSED if closes else fence}
    if line.strip() and len(line) - len(line.lstrip(" ")) < fence.indent:
        possible |= _fences_after(line, CLOSED)  # the item of a list that it stood in may end here, and it with it
    return possible


def _follow(line: str, open_tags: list[str]) -> None:
    open_tags += [found.lower() for found in _OPEN.findall(line)]
    for closed in _CLOSE.findall(line):
        if closed.lower() in open_tags:
            open_tags.reverse()
            open_tags.remove(closed.lower())
            open_tags.reverse()
