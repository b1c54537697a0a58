"""What a text must hold for a pattern to match at all: found in a fraction of the time that the pattern takes."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as List
from typing import NamedTuple

from pipelines.serving.expressions import Anchor, Characters, Choice, Node, Repeat, Sequence, first

DIGITS = b"0123456789"
MOST_WORDS = 24


class Hint(NamedTuple):
    """What a matching text holds.

    Attributes:
        words: At least one of these, in lower case; () if that cannot be said.
        n_digits: At least so many digits.
    """

    words: tuple[str, ...]
    n_digits: int


def hint(node: Node) -> Hint:
    """Return what every text holds that a pattern matches, texts being folded."""
    return Hint(_words(node), _least_digits(node))


class Hints:
    """The hints of several patterns, asked together: a word that many of them have is looked for once."""

    def __init__(self, hints: List[Hint]) -> None:
        self._least = [each.n_digits for each in hints]
        self._without_words = [place for place, each in enumerate(hints) if not each.words]
        self._words: dict[str, list[int]] = {}
        for place, each in enumerate(hints):
            for word in each.words:
                self._words.setdefault(word, []).append(place)

    def likely(self, text: str) -> list[int]:
        """Return the places of the patterns that a folded text does not rule out."""
        lowered = text.lower()
        found = {place for word, places in self._words.items() if word in lowered for place in places}
        found.update(self._without_words)
        if not found:
            return []
        n_digits = _count_digits(text)
        return sorted(place for place in found if self._least[place] <= n_digits)


def _count_digits(text: str) -> int:
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded) - len(encoded.translate(None, DIGITS))


def _words(node: Node) -> tuple[str, ...]:
    """Return words of which every match holds one: of several such lists, the one whose shortest word is longest."""
    match node:
        case Characters(_, literal):
            return (literal,) if literal.isascii() and literal else ()
        case Anchor():
            return ()
        case Sequence(parts):
            return _best([*_runs(parts), *map(_words, parts)])
        case Choice(branches):
            found = [_words(branch) for branch in branches]
            return tuple(dict.fromkeys(word for words in found for word in words)) if all(found) else ()
        case Repeat(part, least, _, _):
            return _words(part) if least else ()


def _runs(parts: tuple[Node, ...]) -> Iterator[tuple[str, ...]]:
    """Return the words that stand in a sequence, letter after letter."""
    run = ""
    for part in parts:
        if isinstance(part, Characters) and part.literal and part.literal.isascii():
            run += part.literal
        elif not isinstance(part, Anchor):
            if run:
                yield (run,)
            run = ""
    if run:
        yield (run,)


def _best(lists: List[tuple[str, ...]]) -> tuple[str, ...]:
    known = [words for words in lists if words and len(words) <= MOST_WORDS]
    return max(known, key=lambda words: (min(map(len, words)), -len(words)), default=())


def _least_digits(node: Node) -> int:
    match node:
        case Characters():
            begins = first(node)
            return int(bool(begins) and all(character.isdecimal() for character in begins))
        case Anchor():
            return 0
        case Sequence(parts):
            return sum(map(_least_digits, parts))
        case Choice(branches):
            return min(map(_least_digits, branches))
        case Repeat(part, least, _, _):
            return least * _least_digits(part)
