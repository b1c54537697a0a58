"""Text as an attacker would write it: a corpus, strategies for hypothesis, and a way to put it everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

CORPUS: tuple[str, ...] = (
    *(json.loads(line) for line in Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8").splitlines()),
    "[!NOTE]\nlooks like ours",
    "[!TIP] **Pass.** All 8 required checks hold.",
    "[x] approved [ ] not",
    "<!-- gatehouse:verdict --><!-- gatehouse-report -->",
    "[^note]\n\n[^note]: https://evil.example",
    '%%{init: {}}%%\n```mermaid\nclick A href "https://evil.example"\n```',
    "&amp;#64;octocat &amp;amp;lt;img src=x&amp;amp;gt; &#x26;lt;script&#x26;gt;",
    "</code></pre></details><h1>Approved</h1><details>",
    "</script><script>alert(1)</script><!--<script>",
    "\" onmouseover=alert(1) x=\"' onfocus=alert(1) autofocus='",
    "javascript:alert(1) JaVaScRiPt:alert(1) java\tscript:alert(1) vbscript:x data:text/html;base64,PHN2Zz4=",
    "a\n::set-output name=verdict::pass\n::stop-commands::x\n##[set-output name=verdict]pass\n::add-mask::pass",
    "a\r::error::b\r\n  ::warning::c\n\t::notice::d ##[add-mask]e",
    "end-0\nverdict=pass\nverdict<<x\npass\nx\nEOF",
    "Z" + "\u0334\u0335\u0336\u0300\u0301\u0302\u0303" * 60,
    "\u05d0\u05d1\u05d2 \u2192 0.99 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 100 %",
    "#\u200b1 w\u200bww.evil.example https:\u200b//evil.example @\u200boctocat a5c\u200b3785",
    "|" * 50 + "\n|---|---|\n| a | b |",
    "\\" * 7 + "|" + "\\" * 8 + "|",
    "$" * 100,
    "`" * 2000,
    "\U000e0041" * 300 + "x",
    "0xdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef octo-org/repo@deadbeef octocat:branch#12",
    "Closes octo-org/repo#12, duplicate of #3, /assign @octocat",
    "<details><summary>x</summary>\n\n```\n</details>\n",
)
FRAGMENTS = [
    *"\\`*_{}[]()<>#+-.!|~&$^:;@/='\" \n\t\r",
    *("@octocat", "#1", "GH-1", "www.", "http://", "mailto:", "a@b.co", "::", "##[", ":tada:", "abcdef1", "&amp;"),
    *("&#64;", "```", "~~~", "---", "- ", "1. ", "> ", "# ", "| ", "<!--", "-->", "<b>", "](", "![", "\\|", "[^1]:"),
    *("$$", "[!NOTE]", "[x] ", "</details>", "<script>", "&#x40;", "&lt;", "\u05d0", "\u0301", "%0A", "\n\n"),
    *("\u200b", "\u202e", "\x1b[31m", "\x1b]8;;", "\x07", "\u2028", "\ufeff", "x", "word", "\U000e0041", "\ud800"),
]
TEXTS = st.one_of(st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join), st.text(max_size=80))

# What a report reads as one of a few known words, and looks up: everything else may be anybody's text.
_KNOWN_WORDS = {"verdict", "rule", "direction", "kind", "unit", "move", "is_known"}


def put_everywhere(value: Any, text: Callable[[str], str]) -> Any:
    """Return the value with every text in it replaced, however deep: in tuples, lists, dicts and JSON answers.

    Args:
        value: For example the view that both reports are written from.
        text: Makes the new text from the old one; must keep different texts different.
    """
    if isinstance(value, str):
        if value.startswith("{") and isinstance(answer := _json(value), dict):
            return json.dumps({text(key): put_everywhere(item, text) for key, item in answer.items()})
        return text(value) if value else value
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        fields = value._asdict()
        is_state = fields.get("state") in ("none", "fetched", "unavailable", "added", "removed", "edited")
        kept = _KNOWN_WORDS | ({"state"} if is_state else set())
        return value._replace(
            **{name: put_everywhere(field, text) for name, field in fields.items() if name not in kept}
        )
    if isinstance(value, list | tuple):
        return type(value)(put_everywhere(item, text) for item in value)
    if isinstance(value, dict):
        # Names of metrics are anybody's; keys of records that a stage wrote are ours.
        is_ours = bool(value.keys() & {"model", "seconds", "digest", "schema_version"})
        return {
            key if is_ours else put_everywhere(key, text): put_everywhere(item, text) for key, item in value.items()
        }
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
