"""When two questions may share an answer, beyond their embeddings: what a sentence embedding does not tell apart.

Sentence embeddings put "cancel order 17" beside "cancel order 18", "I can pay" beside "I cannot pay", and "from Rome
to Paris" beside "from Paris to Rome". Such pairs are told apart here by their words; a pair told apart by mistake only
costs an answer from the cache.
"""

# ruff: noqa: RUF001, SIM905 - letters that look like others are what this is about

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SIGN = re.compile(r"[-+<>=≤≥≠%$€£¥]|https?://\S+|\S+@\S+")
TELLING = frozenset(
    (
        "not no never none nothing nobody neither nor without cannot unless except only all both either before after "
        "until since more less fewer most least higher lower bigger smaller first last next previous on off up down "
        "above below left right true false old new who when where why enable disable enabled disabled activate "
        "deactivate start stop open close opened closed lock unlock add remove increase decrease raise buy sell send "
        "receive sent received lend borrow join leave accept reject allow deny install uninstall subscribe "
        "unsubscribe upgrade downgrade login logout import export upload download today tomorrow yesterday monday "
        "tuesday wednesday thursday friday saturday sunday morning evening night one two three four five six seven "
        "eight nine ten dozen hundred thousand million half twice nicht kein keine keinen nie niemals ohne pas sans "
        "jamais nunca non senza mai "
    ).split()
)
"""Words that turn a meaning round, or that numbers, places and people hang on."""
FUNCTION_WORDS = frozenset(
    "a an the please thanks thank hello hi hey i my me we our us do does can could would is are am".split()
)
"""Words that may differ; all others, less a plural's s, must be the same in the same order."""


class Features(NamedTuple):
    """What two texts must have in common to share an answer.

    Attributes:
        telling: Numbers, signs, addresses, negations and the like, in the order of the text.
        words: All words, sorted; where they are the same, their order must be too.
        order: All words in the order of the text.
        content: Its words but function words, without a plural's s.
    """

    telling: tuple[str, ...]
    words: tuple[str, ...]
    order: tuple[str, ...]
    content: tuple[str, ...]


def features(text: str) -> Features:
    """Return what decides, beside the embedding, whether a text may share another's answer."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    order = tuple(match.group() for match in WORD.finditer(folded))
    telling = [word for word in order if is_telling(word)]
    telling += SIGN.findall(folded)
    content = tuple(_singular(word) for word in order if word not in FUNCTION_WORDS)
    return Features(tuple(telling), tuple(sorted(order)), order, content)


def is_telling(word: str) -> bool:
    """Tell whether a word must be in both texts."""
    return word in TELLING or word.endswith("n't") or any(character.isnumeric() for character in word)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def may_share(one: Features, other: Features) -> bool:
    """Tell whether two texts of near embeddings may share an answer."""
    if one.telling != other.telling or one.content != other.content:
        return False
    return one.words != other.words or one.order == other.order
