"""Characters that nobody sees, written out: a page that only people read must not hide what a model reads."""

from __future__ import annotations

import unicodedata

from pipelines.core.markdown import INVISIBLE

_JOINERS = "\u200c\u200d"  # of Persian words and of emoji: at home between two letters that are not ASCII


def uncover(text: str) -> str:
    r"""Write every hidden, control and bidirectional character as an escape such as `\u202e`.

    Args:
        text: Any text; may hold lone surrogates, which no file can.

    Returns:
        The text, fit for UTF-8. Line breaks, tabs, spaces of all kinds and joiners within words stay.
    """
    if text.isprintable() and not INVISIBLE.search(text):
        return text
    return "".join(
        one if _is_plain(one) or _joins(text, index) else one.encode("unicode_escape").decode("ascii")
        for index, one in enumerate(text)
    )


def _is_plain(one: str) -> bool:
    return one in "\n\t" or ((one.isprintable() or unicodedata.category(one) == "Zs") and not INVISIBLE.match(one))


def _joins(text: str, index: int) -> bool:
    return text[index] in _JOINERS and 0 < index < len(text) - 1 and not (text[index - 1] + text[index + 1]).isascii()
