"""What a rule sees of a text: look-alike, invisible and escaped letters as a reader takes them."""

# ruff: noqa: RUF001 - letters that look like others are what this is about

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serving.folding import complete, fold, fold_character, fold_text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("ｓｅｃｒｅｔ", "secret"),  # full width
        ("𝐬𝐞𝐜𝐫𝐞𝐭", "secret"),  # mathematical bold
        ("ѕесrеt", "secret"),  # Cyrillic
        ("sεcrετ", "secret"),  # Greek
        ("s\u200be\u200cc\u200dr\u2060e\ufefft", "secret"),  # zero width
        ("s\u00ade\u034fcret", "secret"),  # soft hyphen, combining joiner
        ("s\u0336e\u0336c\u0336ret", "secret"),  # struck out
        ("sécrèt", "secret"),
        ("ﬁle", "file"),
        ("４١۲3", "4123"),  # digits of four scripts
        (r"s\u0065cret", "secret"),  # JSON's escape
        (r"\u0073\u0065cret", "secret"),
        (r"https:\/\/bob:hunter22@h", "https://bob:hunter22@h"),  # JSON's slash
        (r"https:\\\/\\/bob", "https://bob"),  # in JSON in JSON
        (r"\\u0073ecret", "secret"),
        (r"\ud835\udc2cecret", "secret"),  # a surrogate pair: bold s
        (r"\\uD835\\uDC2cecret", "secret"),
        (r"\ud835 \udc2c", "\ud835 \udc2c"),  # two halves that are no pair
        (r"C:\new \U0041", r"C:\new \U0041"),
        ("a‐b–c", "a-b-c"),
        ("user＠example․com", "user@example.com"),
        ("Straße", "Straße"),
        ("日本語 한국어", "日本語 한국어"),
    ],
)
def test_a_text_is_seen_as_a_reader_takes_it(text: str, seen: str) -> None:
    assert fold(text).text == seen


def test_every_character_that_nobody_sees_is_left_out_and_ascii_stays() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if code < 128:
            assert fold_character(character) == character
        elif unicodedata.category(character) in ("Cf", "Mn", "Me") and not character.isdecimal():
            assert fold_character(character) == "", hex(code)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab\\\\u0065/dD83cé\u200bﬁ𝐬ё1 \u0301"), max_size=40), st.integers(0, 40))
def test_places_lead_back_and_a_cut_changes_nothing(text: str, cut: int) -> None:
    folded = fold(text)
    if folded.begins is None or folded.ends is None:
        assert len(folded.text) == len(text)
    else:
        assert len(folded.text) == len(folded.begins) == len(folded.ends)
        for character, begin, end in zip(folded.text, folded.begins, folded.ends, strict=True):
            assert character in fold(text[begin:end]).text
    assert fold_text(text) == folded.text
    n_whole = complete(text[:cut])
    assert fold(text[:n_whole]).text + fold(text[n_whole:]).text == folded.text


ESCAPES = ["\\", "\\\\", "\\ud835", "\\udc2c", "\\u00", "65", "\\/", "u", "d83", "x", "\\" * 9]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ESCAPES), max_size=8).map("".join), st.data())
def test_escapes_that_are_cut_anywhere_are_seen_as_they_are_whole(text: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 9))
    seen, rest = "", ""
    for begin in range(0, len(text), size):
        rest += text[begin : begin + size]
        n_whole = complete(rest)
        seen, rest = seen + fold(rest[:n_whole]).text, rest[n_whole:]
    assert seen + fold(rest).text == fold(text).text
