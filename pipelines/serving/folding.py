r"""Text as a reader sees it: what rules are held against, so that look-alike letters and invisible ones hide nothing.

Folded are, character by character: compatibility forms (full width, bold mathematical, ligatures), accents on Latin,
Greek and Cyrillic letters, letters that look like Latin ones, digits of every script, JSON's `\\uXXXX` (surrogate pairs
too) and `\\/`. Left out are characters that nobody sees: zero-width ones, soft hyphens, marks above and below.
"""

# ruff: noqa: RUF001 - letters that look like others are what this is about

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
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
HEX, HIGH, LOW = "[0-9a-fA-F]", "[dD][89abAB][0-9a-fA-F]{2}", "[dD][c-fC-F][0-9a-fA-F]{2}"
ESCAPE = re.compile(rf"\\{{1,8}}(?:u({HIGH})\\{{1,8}}u({LOW})|u({HEX}{{4}})|(/))")
"""JSON's escapes of what a reader would read: two that are one letter (a surrogate pair), one, and a slash.

JSON in JSON doubles the backslashes; up to eight are taken for one."""
CUT_ESCAPE = re.compile(rf"(?:\\{{1,8}}u{HIGH})?(?:\\{{1,8}}(?:u{HEX}{{0,3}})?)?\Z")
"""The beginning of one at a text's end, or half of two that are one."""
MOST_CUT = 26
"""Longer than any such beginning."""


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
    if text.isascii() and "\\" not in text:
        return Folded(text)
    places = list(_places(text))
    return _with_places(text, places) if places else Folded(_translated(text))


def fold_text(text: str) -> str:
    """Return a folded text alone, where nobody asks where its characters stood."""
    if "\\" in text:
        text = ESCAPE.sub(_unescaped, text)
    return _translated(text)


def complete(text: str) -> int:
    """Return how much of a text can be folded before more of it is known: all but an escape that is cut off."""
    if "\\" not in text[-MOST_CUT:]:
        return len(text)
    cut = CUT_ESCAPE.search(text, max(0, len(text) - MOST_CUT))
    return cut.start() if cut else len(text)


def _places(text: str) -> Iterator[re.Match[str]]:
    """Return the places at which a text and its folded text are not one character each."""
    several = "" if text.isascii() else "".join(each for each in set(text) if len(FOLDS[ord(each)]) != 1)
    if not several:
        return ESCAPE.finditer(text)
    return re.finditer(f"{ESCAPE.pattern}|[{re.escape(several)}]", text)


def _with_places(text: str, places: list[re.Match[str]]) -> Folded:
    pieces: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    at = 0
    for place in places:
        begin, end = place.span()
        found = FOLDS[ord(text[begin] if end - begin == 1 else _unescaped(place))]
        pieces += (_translated(text[at:begin]), found)
        begins += range(at, begin)
        ends += range(at + 1, begin + 1)
        begins += [begin] * len(found)
        ends += [end] * len(found)
        at = end
    pieces.append(_translated(text[at:]))
    begins += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    return Folded("".join(pieces), begins, ends)


def _unescaped(escape: re.Match[str]) -> str:
    high, low, one, slash = escape.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    return str(slash or chr(int(one, 16)))


def _translated(text: str) -> str:
    return text if text.isascii() else text.translate(FOLDS)
