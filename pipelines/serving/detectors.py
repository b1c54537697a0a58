"""What a rule looks for, and the scan of a text for all of them at once, whole or piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.serving.exchange import Action
from pipelines.serving.expressions import Node, parse, reach
from pipelines.serving.folding import complete, fold, fold_character, fold_text
from pipelines.serving.hints import Hints, hint
from pipelines.serving.tails import Tails

CONTEXT = 48
"""Characters kept before the place of the scan, for patterns that look back."""
CLASSES = (64, 512)
"""Patterns of like reach are held back together, so that a long one does not make short ones hold back more."""

Check = Callable[[re.Match[str]], int | None]
"""Returns where a match really ends, or None if it is none (a check digit is wrong)."""


class Detector(NamedTuple):
    """One pattern of a rule.

    Attributes:
        rule: Name of the rule.
        action: `block`, `redact` or `flag`.
        label: What a match is replaced by.
        pattern: Held against folded texts.
        check: Looks closer at a match.
    """

    rule: str
    action: Action
    label: str
    pattern: re.Pattern[str]
    check: Check | None = None

    def find(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the first match that begins in [start, end), as (begin, end)."""
        while start < end:
            match = self.pattern.search(text, start)
            if match is None or match.start() >= end:
                return None
            if self.check is None:
                return match.span()
            if (stop := self.check(match)) is not None:
                return match.start(), stop
            start = match.start() + 1
        return None


class Detectors:
    """All patterns of the rules that are applied together."""

    def __init__(self, found: Sequence[Detector]) -> None:
        self.found = tuple(found)
        nodes = [parse(detector.pattern.pattern) for detector in found]
        self._hints = Hints([hint(node) for node in nodes])
        by_class: dict[int, list[Node]] = {}
        for node in nodes:
            by_class.setdefault(sum(reach(node) > limit for limit in CLASSES), []).append(node)
        self._tails = [Tails(members, int(max(map(reach, members)))) for members in by_class.values()]

    def __bool__(self) -> bool:
        return bool(self.found)

    def settled(self, text: str, low: int) -> int:
        """Return up to where no match can begin that is not yet known whole."""
        return min((tails.begin(text, low) for tails in self._tails), default=len(text))

    def likely(self, text: str) -> list[int]:
        """Return the places of the patterns that a folded text may match."""
        return self._hints.likely(text)

    def has_any(self, *texts: str) -> bool:
        """Tell whether anything at all is found in one of these texts."""
        if not self.found or not texts:
            return False
        together = "\n".join(texts)
        if "\\" in together or not together.isascii():
            texts = tuple(map(fold_text, texts))
            together = "\n".join(texts)
        return any(
            self.found[index].find(text, 0, len(text)) is not None for index in self.likely(together) for text in texts
        )


class Scan:
    """Reads one text as it comes. Whatever the pieces, what leaves is the same in the end.

    Args:
        detectors: What is looked for.
        decide: Told of every match; may raise.
    """

    def __init__(self, detectors: Detectors, decide: Callable[[Detector], None]) -> None:
        self._detectors = detectors
        self._decide = decide
        self._cut = ""  # the beginning of an escape
        self._raw = ""
        self._text = ""  # folded
        self._begins: list[int] | None = None  # of the folded characters in the raw text; None where they are the same
        self._ends: list[int] | None = None
        self._at = 0  # in the folded text: before it everything is settled
        self._next = [0] * len(detectors.found)  # in the folded text: from where each detector looks on
        self._left = 0  # in the raw text: before it everything has left

    def feed(self, piece: str) -> str:
        """Take the next piece; return what may leave."""
        piece = self._cut + piece
        n_whole = complete(piece)
        piece, self._cut = piece[:n_whole], piece[n_whole:]
        self._append(piece)
        return self._advance(self._detectors.settled(self._text, self._at))

    def close(self) -> str:
        """Return what was held back, as far as it may leave."""
        self._append(self._cut)
        self._cut = ""
        return self._advance(len(self._text))

    def _append(self, piece: str) -> None:
        folded = fold(piece)
        if folded.begins is not None or self._begins is not None:
            shift = len(self._raw)
            if self._begins is None or self._ends is None:
                self._begins, self._ends = list(range(shift)), list(range(1, shift + 1))
            begins = range(len(piece)) if folded.begins is None else folded.begins
            ends = range(1, len(piece) + 1) if folded.ends is None else folded.ends
            self._begins.extend(shift + begin for begin in begins)
            self._ends.extend(shift + end for end in ends)
        self._raw += piece
        self._text += folded.text

    def _advance(self, limit: int) -> str:
        out: list[str] = []
        for begin, negative_end, index in sorted(self._matches(limit)):
            detector = self._detectors.found[index]
            self._decide(detector)
            if detector.action != "redact":
                continue
            begins = begin if self._begins is None else self._begins[begin]
            ends = -negative_end if self._ends is None else self._ends[-negative_end - 1]
            if ends > self._left:
                out += (self._raw[self._left : max(begins, self._left)], detector.label)
                self._left = ends
        settled = len(self._raw)
        if limit < len(self._text):
            settled = limit if self._begins is None else self._begins[limit]
        if settled > self._left:
            out.append(self._raw[self._left : settled])
            self._left = settled
        self._at = limit
        self._trim()
        return "".join(out)

    def _matches(self, limit: int) -> list[tuple[int, int, int]]:
        """Return (begin, -end, index of the detector) of every match that begins before a place."""
        found: list[tuple[int, int, int]] = []
        if limit <= self._at:
            return found
        for index in self._detectors.likely(self._text[self._at :]):
            detector, start = self._detectors.found[index], max(self._next[index], self._at)
            while start < limit and (span := detector.find(self._text, start, limit)) is not None:
                found.append((span[0], -span[1], index))
                start = max(span[1], span[0] + 1)
            self._next[index] = start
        return found

    def _trim(self) -> None:
        n_text = self._at - CONTEXT
        if n_text <= 0:
            return
        n_raw = n_text if self._begins is None else self._begins[n_text]
        self._text, self._raw = self._text[n_text:], self._raw[n_raw:]
        if self._begins is not None and self._ends is not None:
            self._begins = [begin - n_raw for begin in self._begins[n_text:]]
            self._ends = [end - n_raw for end in self._ends[n_text:]]
            if len(self._text) == len(self._raw) and self._begins == list(range(len(self._raw))):
                self._begins = self._ends = None
        self._at -= n_text
        self._left -= n_raw
        self._next = [max(0, start - n_text) for start in self._next]


def compiled(pattern: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """Compile a pattern, its letters folded as texts are."""
    return re.compile("".join(map(_fold_letter, pattern)), flags)


def _fold_letter(character: str) -> str:
    folded = fold_character(character)
    return folded if folded == character or folded.isalnum() else re.escape(folded)
