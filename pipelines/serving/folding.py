r"""Text as a reader sees it: what rules are held against, so that look-alike letters and invisible ones hide nothing.

Folded are, character by character: compatibility forms (full width, bold mathematical, ligatures), accents on Latin,
Greek and Cyrillic letters, letters that look like Latin ones, digits of every script, JSON's `\\uXXXX`. Left out are
characters that nobody sees: zero-width ones, soft hyphens, marks above and below.
"""

# ruff: noqa: RUF001 - letters that look like others are what this is about

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

MOST_KNOWN = 20_000
ACCENTED = range(0x80, 0x530)
ACCENTED_MORE = range(0x1E00, 0x2000)
INVISIBLE = frozenset({"Cf", "Mn", "Me"})
# Blank letters that are no format characters, and variation selectors' kin.
BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
LOOK_ALIKES = str.maketrans(
    {
        look_alike: letter
        for letter, look_alikes in {
            "a": "аαɑᴀ", "b": "ЬЪƅ", "c": "сϲᴄ", "d": "ԁᴅ", "e": "еεєҽᴇ", "g": "ɡɢց", "h": "һнʜհ", "i": "іιıɩɪӏ",
            "j": "јϳᴊ", "k": "кκᴋ", "l": "ⅼʟǀ", "m": "мᴍ", "n": "ոռɴη", "o": "оοσօᴏ", "p": "рρᴘ", "q": "ԛգ", "r": "гʀᴦ",
            "s": "ѕꜱ", "t": "тτᴛ", "u": "υսᴜ", "v": "νѵᴠ", "w": "ԝωᴡ", "x": "хχ", "y": "уγүʏ", "z": "ᴢ",
            "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙӀ", "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν",
            "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "УΥҮ", "Z": "Ζ",
            "-": "‐‑‒–—―−⁃﹣", ".": "․。", ",": "‚，", ":": "։∶꞉", "/": "∕⁄", "@": "＠﹫", "'": "’‘ʼ′",
        }.items()
        for look_alike in look_alikes
    }
)  # fmt: skip
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")


class _Folds(dict[int, str]):
    """What each character is folded to, as `str.translate` asks for it."""

    def __missing__(self, code: int) -> str:
        if len(self) >= MOST_KNOWN:
            self.clear()
        found = self[code] = fold_character(chr(code))
        return found


def fold_character(character: str) -> str:
    """Return what a reader takes a character for: mostly one, sometimes none or several."""
    if character < "\x80":
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in BLANK:
        return ""
    code = ord(character)
    form: Literal["NFKD", "NFKC"] = "NFKD" if code in ACCENTED or code in ACCENTED_MORE else "NFKC"
    kept = (each for each in unicodedata.normalize(form, character) if unicodedata.category(each) not in INVISIBLE)
    return "".join(kept).translate(LOOK_ALIKES)


FOLDS = _Folds()


class Folded(NamedTuple):
    """A folded text.

    Attributes:
        text: What rules see.
        begins: Where each of its characters begins in the text itself; None where both are the same.
        ends: Where it ends there.
    """

    text: str
    begins: list[int] | None = None
    ends: list[int] | None = None


def fold(text: str) -> Folded:
    """Fold a text."""
    has_escapes = "\\u" in text
    if not has_escapes:
        if text.isascii():
            return Folded(text)
        if all(len(FOLDS[ord(character)]) == 1 for character in set(text)):
            return Folded(text.translate(FOLDS))
    return _fold_slowly(text)


def _fold_slowly(text: str) -> Folded:
    pieces: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    place = 0
    while place < len(text):
        escape = ESCAPE.match(text, place) if text[place] == "\\" else None
        end = escape.end() if escape else place + 1
        found = fold_character(chr(int(escape[1], 16))) if escape else FOLDS[ord(text[place])]
        pieces.append(found)
        begins.extend([place] * len(found))
        ends.extend([end] * len(found))
        place = end
    return Folded("".join(pieces), begins, ends)


def complete(text: str) -> int:
    """Return how much of a text can be folded before more of it is known: all but an escape that is cut off."""
    cut = CUT_ESCAPE.search(text, max(0, len(text) - 5)) if "\\" in text[-5:] else None
    return cut.start() if cut else len(text)
