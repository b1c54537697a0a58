"""Untrusted text in Markdown, held against a real parser: nothing of it may be live."""

from __future__ import annotations

import re
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipelines.core.markdown import MOST_MARKS, block, code, inline
from tests.hostile import CORPUS, TEXTS

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

# What GitHub does to text after Markdown: autolinks, mentions, issue numbers, commits, emoji, formulas.
LIVE = {
    "mention or e-mail address": re.compile(r"@[A-Za-z0-9_.-]"),
    "issue": re.compile(r"#[0-9]|\b(?:GH|JIRA|CVE)-[0-9]|GHSA-\w", re.IGNORECASE),
    "commit": re.compile(r"[0-9a-fA-F]{7}"),
    "address": re.compile(r"://|www\.|(?:mailto|xmpp|javascript|data):[^\s\0\u200b\u2069]", re.IGNORECASE),
    "emoji or workflow command": re.compile(r":[\w+-]+:|::"),
    "formula": re.compile(r"\$"),
}
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2028\u2029\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ud800-\udfff\U000e0000-\U000e0fff]"
)
PLACES: dict[str, Callable[[str], str]] = {
    "alone": lambda text: text,
    "sentence": lambda text: f"before {text} after",
    "cell": lambda text: f"| a | b |\n|---|---|\n| {text} | {text} |\n",
    "heading": lambda text: f"### {text}\n",
    "item": lambda text: f"- {text}\n- next\n",
    "quote": lambda text: f"> [!NOTE]\n> {text}\n",
    "bold": lambda text: f"**{text}**",
    "link": lambda text: f"[{text}](https://ours.example)",
    "summary": lambda text: f"<details><summary>{text}</summary>\n\nours\n\n</details>",
}


def leaves(markdown: str) -> list[Token]:
    """Return all tokens in order, those inside of others after them."""
    return [leaf for token in PARSER.parse(markdown) for leaf in (token, *(token.children or []))]


def shape(markdown: str) -> list[str]:
    """Return the structure: types of all tokens, text and its dollars left out."""
    plain = {"text", "text_special"}
    return [
        leaf.type
        for leaf in leaves(markdown)
        if leaf.type not in plain and not (leaf.type == "html_inline" and leaf.content in ("<span>", "</span>"))
    ]


def text_of(markdown: str) -> str:
    """Return the text outside of code, as GitHub reads it after rendering; other nodes end a run of text."""
    return "".join(
        leaf.content if leaf.type in ("text", "text_special") else "\0"
        for leaf in leaves(markdown)
        if leaf.type != "inline"
    )


def seen(markdown: str) -> str:
    """Return what a person sees."""
    kinds = ("text", "text_special", "code_inline", "fence")
    return "".join(leaf.content for leaf in leaves(markdown) if leaf.type in kinds).replace("\u200b", "")


def is_dead(markdown: str) -> None:
    text = text_of(markdown).replace("\0$\0", "\0")  # <span>$</span>
    for what, pattern in LIVE.items():
        assert not pattern.search(text), f"{what} in {markdown!r}"
    assert not HIDDEN.search(markdown.replace("\u200b", "")), repr(markdown)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_nothing_hostile_is_live_anywhere(text: str, place: str) -> None:
    for write in (inline, code):
        written = write(text, 100)
        is_dead(written)
        if written:
            harmless = write("x | x" if write is code and not written.removeprefix("&#8296;").startswith("`") else "x")
            assert shape(PLACES[place](written)) == shape(PLACES[place](harmless)), repr(written)


@settings(max_examples=1500, deadline=None)
@given(TEXTS, st.sampled_from(sorted(PLACES)))
def test_no_text_changes_what_is_around_it(text: str, place: str) -> None:
    written = inline(text)
    assert "\n" not in written
    is_dead(written)
    if written:
        assert shape(PLACES[place](written)) == shape(PLACES[place]("x"))


@settings(max_examples=1500, deadline=None)
@given(TEXTS, st.sampled_from(["alone", "sentence", "cell", "item"]))
def test_no_text_gets_out_of_inline_code(text: str, place: str) -> None:
    written = code(text)
    assert "\n" not in written
    is_dead(written)
    if written.startswith("`"):
        assert shape(PLACES[place](written)) == shape(PLACES[place]("`x`"))


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
def test_no_text_gets_out_of_a_block(text: str) -> None:
    written = block(text)
    markdown = f"before\n\n{written}\n\nafter"
    assert shape(markdown) == shape("before\n\n```text\nx\n```\n\nafter")
    assert not re.search(r"^\s*::|##\[", written, re.MULTILINE)
    is_dead(markdown)


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_nothing_hostile_gets_out_of_a_block(text: str) -> None:
    markdown = f"<details><summary>s</summary>\n\n{block(text, 100)}\n\n</details>"
    assert shape(markdown) == shape("<details><summary>s</summary>\n\n```text\nx\n```\n\n</details>")
    is_dead(markdown)


@settings(max_examples=500, deadline=None)
@given(st.text(string.printable[:-5], max_size=100))
def test_what_can_be_seen_is_shown_as_it_is(text: str) -> None:
    line = " ".join(text.split())
    assert seen(inline(text)) == line
    assert seen(code(text)) == line
    assert seen(block(text)) == text.strip("\n") + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("&lt;b&gt; &amp;lt;", "&lt;b&gt; &amp;lt;"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\x1b[31mred\x1b[0mb", "aredb"),
        ("a\x1b]8;;https://evil.example\x07link\x1b]8;;\x07b", "alinkb"),
        ("\x1b]0;never ended, yet to be read", "0;never ended, yet to be read"),
        ("one\r\ntwo\u2028three\x85four", "one two three four"),
        ("lone \ud83d", "lone \ufffd"),
        ("\u00a0a\u3000b\u2003", "a b"),
        ("ta\U000e0041g", "tag"),
    ],
)
def test_hidden_characters_go_and_the_rest_stays(text: str, shown: str) -> None:
    assert seen(inline(text)) == shown


def test_a_text_at_its_limit_is_whole_and_one_above_it_is_cut() -> None:
    assert inline("x" * 20, 20) == "x" * 20
    assert inline("x" * 21, 20) == "x" * 19 + "…"
    assert code("x" * 21, 20) == "`" + "x" * 19 + "…`"
    assert block("x" * 21, 20) == "```text\n" + "x" * 19 + "…\n```"


def test_the_limit_counts_what_is_seen_and_not_how_it_is_written() -> None:
    assert seen(inline("<" * 20, 20)) == "<" * 20


def test_a_cut_behind_a_flood_of_hidden_characters_is_shown() -> None:
    assert seen(inline("a" + "\u200b" * 100_000 + "b")) == "a…"


def test_megabytes_take_no_time() -> None:
    start = time.process_time()
    for text in ("x" * 5_000_000, "`" * 5_000_000, "\x1b]" * 2_500_000, "\u200b" * 5_000_000, ":a" * 2_500_000):
        inline(text)
        block(text)
    assert time.process_time() - start < 20


def test_an_empty_text_is_nothing() -> None:
    assert (inline(" \u200b\n"), code(""), block("")) == ("", "", "```text\n\n```")


def test_a_pipe_makes_code_plain_text_because_a_table_would_cut_it() -> None:
    assert code("a|b") == "a&#124;b"


def test_right_to_left_letters_do_not_turn_round_what_stands_beside_them() -> None:
    assert inline("\u05d0\u05d1 1") == "&#8296;\u05d0\u05d1 1&#8297;"
    assert code("\u0661") == "&#8296;`\u0661`&#8297;"
    assert inline("caf\u00e9 \u4e2d") == "caf\u00e9 \u4e2d"


def test_a_pile_of_accents_is_cut_down_and_what_scripts_need_stays() -> None:
    assert seen(inline("e" + "\u0301" * 50 + "x")) == "e" + "\u0301" * MOST_MARKS + "x"
    assert seen(inline("\u1ea5 a\u0302\u0301 \u0e17\u0e35\u0e48")) == "\u1ea5 a\u0302\u0301 \u0e17\u0e35\u0e48"


def test_what_looks_like_an_alert_or_a_task_is_broken_up_and_other_brackets_are_not() -> None:
    assert "\u200b" in text_of(inline("[!NOTE]"))
    assert "\u200b" in text_of(inline("[x] done"))
    assert inline("[a-z] x[0]") == "&#91;a-z&#93; x&#91;0&#93;"
