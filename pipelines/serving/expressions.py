"""Regular expressions taken apart: their structure, how long a match can get, and what it depends on."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pipelines.serving.folding import fold_character

MOST_LOOK_BEHIND = 32
ANCHOR_REACH = 2
"""`$` looks past a line's end and for what follows it."""
SAMPLE = frozenset([chr(code) for code in range(128)] + list("\xa0\xe9\xdf\u0416\u4e2d\u0663"))
"""Characters by which two sets of characters are taken to overlap or not."""
_parser: Any = importlib.import_module("re._parser")  # no public way leads to a pattern's structure


class Refused(ValueError):
    """A pattern that is not taken, and why."""


class Characters(NamedTuple):
    """One character of a set; `literal` if it is a certain one."""

    has: Callable[[str], bool]
    literal: str = ""


class Anchor(NamedTuple):
    """A place; whether a text matches there depends on so many further characters."""

    reach: int


class Sequence(NamedTuple):
    """One after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """One of them."""

    branches: tuple[Node, ...]


class Repeat(NamedTuple):
    """Again and again; `is_final`: what was once matched is not tried otherwise."""

    part: Node
    least: int
    most: float
    is_final: bool


Node = Characters | Anchor | Sequence | Choice | Repeat


def parse(pattern: str) -> Node:
    """Take a pattern apart.

    Raises:
        Refused: It uses what cannot be matched on a stream.
    """
    try:
        return _sequence(_parser.parse(pattern, re.IGNORECASE))
    except RecursionError:
        raise Refused("is nested too deeply") from None


def width(node: Node) -> float:
    """Return the most characters that a match can have."""
    match node:
        case Characters():
            return 1
        case Anchor():
            return 0
        case Sequence(parts):
            return sum(map(width, parts))
        case Choice(branches):
            return max(map(width, branches))
        case Repeat(part, _, most, _):
            inner = width(part)
            return inner * most if inner else 0


def least_width(node: Node) -> int:
    """Return the fewest characters that a match can have."""
    match node:
        case Characters():
            return 1
        case Anchor():
            return 0
        case Sequence(parts):
            return sum(map(least_width, parts))
        case Choice(branches):
            return min(map(least_width, branches))
        case Repeat(part, least, _, _):
            return least * least_width(part)


def beyond(node: Node) -> int:
    """Return how many characters after a match's end can decide about it."""
    match node:
        case Characters():
            return 0
        case Anchor(reach):
            return reach
        case Sequence(parts):
            rests = [sum(map(least_width, parts[index + 1 :])) for index in range(len(parts))]
            return max((beyond(part) - rest for part, rest in zip(parts, rests, strict=True)), default=0)
        case Choice(branches):
            return max(map(beyond, branches))
        case Repeat(part, _, _, _):
            return beyond(part)


def reach(node: Node) -> float:
    """Return how many characters from its start decide about a match."""
    return width(node) + max(0, beyond(node))


def is_nullable(node: Node) -> bool:
    """Tell whether it can match nothing."""
    match node:
        case Characters():
            return False
        case Anchor():
            return True
        case Sequence(parts):
            return all(map(is_nullable, parts))
        case Choice(branches):
            return any(map(is_nullable, branches))
        case Repeat(part, least, _, _):
            return least == 0 or is_nullable(part)


def first(node: Node) -> frozenset[str]:
    """Return the sample's characters with which it can begin."""
    match node:
        case Characters(has, _):
            return frozenset(filter(has, SAMPLE))
        case Anchor():
            return frozenset()
        case Sequence(parts):
            return first_of(parts, frozenset())
        case Choice(branches):
            return frozenset().union(*map(first, branches))
        case Repeat(part, _, _, _):
            return first(part)


def first_of(parts: Iterable[Node], follows: frozenset[str]) -> frozenset[str]:
    """Return with which characters a sequence can begin, before what can follow it."""
    found: frozenset[str] = frozenset()
    for part in parts:
        found |= first(part)
        if not is_nullable(part):
            return found
    return found | follows


# --- from Python's own parser


def _sequence(parsed: Any) -> Node:
    parts = tuple(_node(str(operation), value) for operation, value in parsed)
    return parts[0] if len(parts) == 1 else Sequence(parts)


def _node(operation: str, value: Any) -> Node:
    match operation:
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
            return Characters(_test(operation, value), chr(value).lower() if operation == "LITERAL" else "")
        case "BRANCH":
            return Choice(tuple(map(_sequence, value[1])))
        case "SUBPATTERN":
            return _sequence(value[3])
        case "ATOMIC_GROUP":
            return Repeat(_sequence(value), 1, 1, True)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, part = value
            unbounded = most == _parser.MAXREPEAT
            return Repeat(_sequence(part), least, float("inf") if unbounded else most, operation[0] == "P")
        case "AT":
            return Anchor(ANCHOR_REACH)
        case "ASSERT" | "ASSERT_NOT":
            direction, part = value
            if direction < 0:
                if width(_sequence(part)) > MOST_LOOK_BEHIND:
                    raise Refused(f"looks back at more than {MOST_LOOK_BEHIND} characters")
                return Anchor(0)
            ahead = reach(_sequence(part))
            if ahead == float("inf"):
                raise Refused("looks ahead without end")
            return Anchor(int(ahead))
    raise Refused("refers back to what it matched, which cannot be done in bounded time")


def _test(operation: str, value: Any) -> Callable[[str], bool]:
    if operation == "ANY":
        return lambda character: True
    if operation == "IN":
        is_negated = bool(value) and str(value[0][0]) == "NEGATE"
        tests = [_member(str(kind), what) for kind, what in value[is_negated:]]
    else:
        is_negated, tests = operation == "NOT_LITERAL", [_member("LITERAL", value)]

    def has(character: str) -> bool:
        spelt = {character, character.lower(), character.upper()}  # case is ignored
        return any(test(each) for test in tests for each in spelt) != is_negated

    return has


def _member(kind: str, what: Any) -> Callable[[str], bool]:
    if kind == "LITERAL":
        literal = chr(what)
        return lambda character: character == literal
    if kind == "RANGE":
        low, high = map(chr, what)
        if fold_character(low) != low or fold_character(high) != high:
            raise Refused(f"has the range {low}-{high}, but accents and look-alikes are folded; name the letters")
        return lambda character: len(character) == 1 and low <= character <= high
    name = str(what)
    positive: Callable[[str], bool]
    if name.endswith("DIGIT"):
        positive = str.isdecimal
    elif name.endswith("SPACE"):
        positive = str.isspace
    else:
        positive = _is_word
    return (lambda character: not positive(character)) if "_NOT_" in name else positive


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()
