"""Which regular expressions are too hard: in how many ways one can be looked for, and how long its matches can get.

Python's matcher tries one way after the other, so a pattern that can match in exponentially many ways would stop the
gateway. Such patterns are refused when they are declared, and so are those that cannot be matched on a stream.
"""

from __future__ import annotations

import re

from pipelines.serving.expressions import (
    Anchor,
    Characters,
    Choice,
    Node,
    Refused,
    Repeat,
    Sequence,
    first,
    first_of,
    is_nullable,
    parse,
    width,
)

MOST_WAYS = 1000
WITHOUT_END = 256
"""A repeat without end counts as one of so many times: its text's length is what bounds it."""


def problem(pattern: str, most_characters: int) -> str:
    """Return why a declared pattern is not taken, or "".

    Args:
        pattern: A regular expression that compiles.
        most_characters: Longest match that is allowed.
    """
    try:
        node = parse(pattern)
    except Refused as refused:
        return str(refused)
    if is_nullable(node):
        return "matches an empty text, so it would match everywhere"
    if width(node) > most_characters:
        return (
            f"can match more than {most_characters} characters (max_match_characters); give its repeats an end, "
            "for example .{0,80} for .*"
        )
    if ways(node, frozenset()) > MOST_WAYS:
        return (
            f"can be looked for in more than {MOST_WAYS} ways at one place and would be too slow; do not repeat what "
            "repeats itself, or make it possessive (a++)"
        )
    return ""


def is_too_slow(pattern: str) -> bool:
    """Tell whether a pattern, which may be no regular expression at all, could take too long on some text."""
    try:
        return ways(parse(pattern), frozenset()) > MOST_WAYS
    except (Refused, re.error, OverflowError):
        return True


def ways(node: Node, follows: frozenset[str]) -> float:
    """Return in how many ways it can match from one place at most, after what can follow it."""
    match node:
        case Characters() | Anchor():
            return 1
        case Sequence(parts):
            found = 1.0
            for index, part in enumerate(parts):
                found *= ways(part, first_of(parts[index + 1 :], follows))
            return found
        case Choice(branches):
            counts = [ways(branch, follows) for branch in branches]
            begins = [first(branch) | (follows if is_nullable(branch) else frozenset()) for branch in branches]
            is_clear = sum(map(len, begins)) == len(frozenset().union(*begins))
            return max(counts) if is_clear else sum(counts)
        case Repeat():
            return _ways_to_repeat(node, follows)


def _ways_to_repeat(node: Repeat, follows: frozenset[str]) -> float:
    begins = first(node.part)
    if node.is_final:  # the first way that fits is the only one
        return ways(node.part, begins if node.most > 1 else frozenset())
    inner = ways(node.part, follows | begins)
    if node.most > 1 and is_nullable(node.part):
        return float("inf")
    is_clear = not begins & follows
    if inner <= 1:
        return 1 if is_clear else max(1, min(node.most, WITHOUT_END) - node.least + 1)
    most = min(node.most, 64)  # at least 2 to the 64th: more than enough
    return float(inner**most) if is_clear else float(sum(inner**n for n in range(node.least, int(most) + 1)))
