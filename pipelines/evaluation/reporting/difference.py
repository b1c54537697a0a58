"""The difference of two texts, word by word, so that a reader sees what moved and not two walls of text."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from markupsafe import Markup

from pipelines.evaluation.reporting.hidden import uncover

WORD = re.compile(r"\s+|\w+|[^\w\s]")
MAX_WORDS = 2_000  # beyond, nobody reads a difference word by word
MAX_PAIRS = 5_000  # equal words across both texts: SequenceMatcher reads best, and is cubic in a text of few words

Kind = Literal["same", "removed", "added"]


class Piece(NamedTuple):
    """A run of words that both texts have (`same`), or only one of them (`removed`, `added`)."""

    kind: Kind
    text: str


def differences(before: str, after: str) -> tuple[Piece, ...]:
    """Compare two texts word by word; spaces and punctuation marks are words of their own.

    Args:
        before: The baseline's text.
        after: The candidate's text.

    Returns:
        Pieces in reading order, removed before added. Joining `same` and `removed` gives `before`, joining `same`
        and `added` gives `after`. Where the unlike middles exceed 2,000 words they are one removed and one added piece.
    """
    old, new = WORD.findall(before), WORD.findall(after)
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    old_middle, new_middle = old[start : len(old) - end], new[start : len(new) - end]
    found = [Piece("same", "".join(old[:start]))]
    if len(old_middle) + len(new_middle) > MAX_WORDS:
        found += [Piece("removed", "".join(old_middle)), Piece("added", "".join(new_middle))]
    else:
        found += _aligned(old_middle, new_middle)
    found.append(Piece("same", "".join(old[len(old) - end :])))
    return _merged(found)


def to_html(pieces: Iterable[Piece], *, side: Literal["both", "before", "after"] = "both") -> Markup:
    """Mark the difference with `<del>` and `<ins>`; every text is escaped.

    Args:
        pieces: What `differences` returned.
        side: Both texts in one, or only the pieces of one side, for two columns.
    """
    hidden = {"both": "", "before": "added", "after": "removed"}[side]
    frames = {"same": Markup("{}"), "removed": Markup("<del>{}</del>"), "added": Markup("<ins>{}</ins>")}
    return Markup("").join(frames[kind].format(uncover(text)) for kind, text in pieces if kind != hidden)


def _common(old: list[str], new: list[str]) -> int:
    count = 0
    for left, right in zip(old, new, strict=False):
        if left != right:
            break
        count += 1
    return count


def _aligned(old: list[str], new: list[str]) -> list[Piece]:
    found: list[Piece] = []
    for tag, i, j, k, m in _steps(old, new):
        if tag == "equal":
            text = "".join(old[i:j])
            between_changes = bool(found) and found[-1].kind != "same" and not text.strip()
            # A lone space between two replaced words is no island worth seeing: the phrase reads as one change.
            found += [Piece("removed", text), Piece("added", text)] if between_changes else [Piece("same", text)]
            continue
        found += [Piece("removed", "".join(old[i:j])), Piece("added", "".join(new[k:m]))]
    return found


def _steps(old: list[str], new: list[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """Return how to come from one text to the other, in the form of `SequenceMatcher.get_opcodes`."""
    there = Counter(new)
    if sum(count * there[word] for word, count in Counter(old).items()) <= MAX_PAIRS:
        return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    from rapidfuzz.distance import LCSseq  # here, for most texts need none of it

    return [
        (step.tag, step.src_start, step.src_end, step.dest_start, step.dest_end) for step in LCSseq.opcodes(old, new)
    ]


def _merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Join neighbours, so that each change is at most one removed and one added piece."""
    kinds: tuple[Kind, ...]
    merged: list[Piece] = []
    filled = (piece for piece in pieces if piece.text)
    for is_same, run in itertools.groupby(filled, lambda piece: piece.kind == "same"):
        texts = list(run)
        kinds = ("same",) if is_same else ("removed", "added")
        for kind in kinds:
            text = "".join(piece.text for piece in texts if piece.kind == kind)
            merged += [Piece(kind, text)] if text else []
    return tuple(merged)
