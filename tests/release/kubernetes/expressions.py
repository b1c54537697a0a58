"""The part of Argo Rollouts' expression language (expr-lang) that the AnalysisTemplate uses; the rest is refused.

expression = ["not"] operand        operand = "(" expression ")" | "result in" list
"""

from __future__ import annotations

import json
import re
from typing import Any


def evaluate(text: str, result: Any) -> bool:
    """Return what a condition says of a result. A value of another kind is in no list of words, as in Go."""
    text = text.strip()
    if text.startswith("not "):
        return not evaluate(text.removeprefix("not "), result)
    if text.startswith("(") and text.endswith(")"):
        return evaluate(text[1:-1], result)
    found = re.fullmatch(r"result in (\[[^\[\]]*\])", text)
    assert found, f"{text!r}: is not understood here"
    words = json.loads(found[1])
    assert all(isinstance(word, str) for word in words)
    return isinstance(result, str) and result in words
