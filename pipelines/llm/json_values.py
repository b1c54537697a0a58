"""Where the JSON value of an answer ends: what is evaluated, and what the gateway hands out, is cut off there."""

from __future__ import annotations


class JsonScanner:
    """Tells, piece by piece, when the first JSON object or array of a text has closed."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, piece: str) -> int | None:
        """Read a piece; return how many of its characters belong to the value that it closes, None if it is open."""
        for index, character in enumerate(piece):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_in_string:
                self._is_escaped = character == "\\"
                self._is_in_string = character != '"'
            elif self._depth and character == '"':
                self._is_in_string = True
            elif character in "{[":
                self._depth += 1
            elif self._depth and character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return index + 1
        return None


def cropped(text: str) -> str:
    """Return an answer up to the end of its first JSON object or array; all of it where none closes."""
    return text[: JsonScanner().feed(text)]
