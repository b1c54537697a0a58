"""Lines of a terminal: texts with a style, how many cells they take, and how they are written."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

Part = tuple[str, str]  # text, and its style
Line = list[Part]
STYLES = {"bold": "1", "dim": "2", "good": "32", "bad": "31", "warn": "33", "now": "1;36"}


def painted(line: Line) -> str:
    """Return a line with its colours."""
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in line)


def bare(line: Line) -> str:
    """Return a line without colours."""
    return "".join(text for text, _ in line).rstrip()


def height(line: Line, width: int) -> int:
    """Return how many rows a line takes on a terminal of this width, which may have become narrower since."""
    return max(1, math.ceil(cells(line) / max(1, width)))


def cells(line: Sequence[Part]) -> int:
    """Return how many cells a line takes."""
    return sum(wide(text) for text, _ in line)


def wide(text: str) -> int:
    """Return how many cells a text takes; letters of East Asia take two."""
    return len(text) if text.isascii() else sum(_cell(one) for one in text)


def _cell(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def cut(line: Line, width: int) -> Line:
    """Return a line no wider than the terminal; what is cut off becomes `…`."""
    if cells(line) <= width:
        return line
    found: Line = []
    left = width - 1
    for text, style in line:
        kept = ""
        for letter in text:
            left -= _cell(letter)
            if left < 0:
                return [*found, (f"{kept}…", style)]
            kept += letter
        found.append((kept, style))
    return found
