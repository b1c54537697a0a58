"""A terminal that remembers what is to be seen on it: lines that wrap, the cursor going up, what is below it erased."""

from __future__ import annotations

import io
import re
import unicodedata

SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Terminal(io.StringIO):
    def __init__(self, columns: int = 100, encoding: str = "utf-8") -> None:
        super().__init__()
        self.columns, self.rows, self.row, self.column = columns, [""], 0, 0
        self._encoding, self.colours = encoding, 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode(self._encoding)
        at = 0
        while at < len(text):
            if found := SEQUENCE.match(text, at):
                self._obey(found[2], found[1])
                at = found.end()
                continue
            self._put(text[at])
            at += 1
        return len(text)

    def _obey(self, order: str, number: str) -> None:
        if order == "F":
            self.row, self.column = max(0, self.row - int(number or 1)), 0
        elif order == "J":
            self.rows = [*self.rows[: self.row], self.rows[self.row][: self.column]]
        elif order == "m":
            self.colours += 1
        else:
            raise AssertionError(f"this terminal knows no {order!r}")

    def _put(self, letter: str) -> None:
        assert letter == "\n" or letter.isprintable(), f"{letter!r} would do something to a terminal"
        width = 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
        if letter == "\n" or self.column + width > self.columns:
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.rows):
                self.rows.append("")
        if letter != "\n":
            self.rows[self.row] = self.rows[self.row][: self.column] + letter
            self.column += width

    def resize(self, columns: int) -> None:
        """Become narrower, as terminals do: what is too long goes on in the next row; the cursor stays at the end."""
        rows = [part for row in self.rows for part in _broken(row, columns)]
        self.columns, self.rows, self.row, self.column = columns, rows, len(rows) - 1, len(rows[-1])

    def seen(self) -> list[str]:
        return [row.rstrip() for row in self.rows]


def _broken(row: str, columns: int) -> list[str]:
    return [row[at : at + columns] for at in range(0, max(1, len(row)), columns)]
