"""Which patterns are taken: those of bounded length, looked for in bounded time; and what a stream must hold back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serving import credentials, injections, pii
from pipelines.serving.detectors import Detector
from pipelines.serving.expressions import parse, reach, width
from pipelines.serving.hardness import problem, ways
from pipelines.serving.hints import Hints, hint
from pipelines.serving.tails import Tails

BUILT_IN = [*pii.detectors(list(pii.KINDS), "redact"), *credentials.detectors("redact"), *injections.detectors("flag")]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"foo.*bar", "more than 256 characters"),
        (r"x{257}", "more than 256 characters"),
        (r"(a+)+b", "more than 256 characters"),
        (r"(a{1,20}){1,12}b", "more than 1000 ways"),
        (r"(?:a|a){1,30}", "more than 1000 ways"),
        (r"(?:a?){1,30}b", "more than 1000 ways"),
        (r"(?:\w{1,9}\s?){1,20}!", "more than 1000 ways"),
        (r".{0,60}.{0,60}x", "more than 1000 ways"),
        (r"(\w)\1", "refers back"),
        (r"(?P<a>x)(?P=a)", "refers back"),
        (r"a?", "empty text"),
        (r"\b", "empty text"),
        (r"a(?=b.*)", "looks ahead without end"),
        (r"(?<=a{40})b", "looks back"),
        (r"[à-ü]x", "range"),
    ],
)
def test_a_pattern_that_is_too_hard_is_refused_with_the_reason(pattern: str, said: str) -> None:
    assert said in problem(pattern, 256)


@pytest.mark.parametrize(
    "pattern",
    [
        r"x{256}",
        r"foo.{0,80}bar",
        r"\b(?:secret|top\s?secret)\b",
        r"(?:[a-z]{1,20}\.){1,4}com",
        r"[\w.]{1,64}@[a-z]{1,60}\.com",
        r"(?:a{1,20}+){1,12}b",
        r"(?>a{1,20}){1,10}b",
        r"müller|straße",
        r"(?<!\d)\d{4}(?!\d)",
        r"[一-龥]{2}",
        r"[a-z]{1,40}?-\d{1,9}",
    ],
)
def test_a_pattern_with_an_end_is_taken(pattern: str) -> None:
    assert problem(pattern, 256) == ""


@pytest.mark.parametrize("detector", BUILT_IN, ids=lambda detector: detector.pattern.pattern[:40])
def test_our_own_patterns_are_bounded_too(detector: Detector) -> None:
    node = parse(detector.pattern.pattern)
    assert reach(node) <= 9000
    assert ways(node, frozenset()) <= 5000
    assert detector.pattern.search("") is None


@pytest.mark.parametrize(
    ("pattern", "text", "held"),
    [
        ("secret", "no s", "s"),
        ("secret", "no secre", "secre"),
        ("secret", "secret", ""),
        ("secret", "secrx", ""),
        (r"secret\b", "secret", "secret"),
        (r"(?!000)\d{3}-\d", "see 1", "1"),
        (r"(?!a.{3}z)ab", "ab", "ab"),
        (r"secrets?", "secret", "secret"),
        (r"a.{0,3}b", "xa12", "a12"),
        (r"\d{3}-\d{2}", "it is 12", "12"),
        (r"\d{3}-\d{2}", "it is 123-4", "123-4"),
        (r"ab|bcd", "xab", "b"),
        (r"ab|bcd", "xabc", "bc"),
        (r"(?:ab){2}", "xabab", ""),
        (r"(?<=x)yz", "xy", "y"),
        (r"y(?!z)", "xy", "y"),
        ("SECRET", "sEc", "sEc"),
        ("[^a-z]x", "a1", "1"),
    ],
)
def test_the_end_that_could_still_become_a_match_is_held_back(pattern: str, text: str, held: str) -> None:
    node = parse(pattern)
    found = text[Tails([node], int(reach(node))).begin(text, 0) :]
    assert found == held or (held == "" and found in ("abab", "bab", "ab"))  # repeats are taken to have no end


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\d", "c", r"\b"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["?", "{0,2}", "{2}", "{1,3}"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.text("abc1 ", max_size=12), st.text("abc1 ", max_size=8))
def test_nothing_is_let_go_that_more_text_can_turn_into_a_match(pattern: str, text: str, more: str) -> None:
    node = parse(pattern)
    low = Tails([node], int(max(1, reach(node)))).begin(text, 0)
    compiled = re.compile(pattern, re.IGNORECASE)
    for start in range(low):
        now, later = compiled.match(text, start), compiled.match(text + more, start)
        assert (now and now.span()) == (later and later.span())
        assert later is None or later.end() - start <= width(node)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.text("abcABC1 ", max_size=12))
def test_no_text_that_matches_is_ruled_out_beforehand(pattern: str, text: str) -> None:
    if re.search(pattern, text, re.IGNORECASE):
        assert Hints([hint(parse(pattern))]).likely(text) == [0]


@pytest.mark.parametrize(
    ("pattern", "words", "n_digits"),
    [
        (r"\bacme( corp)?\b", ("acme",), 0),
        (r"(?:ignore|forget) (?:all )?rules?", ("ignore", "forget"), 0),
        (r"\d{3}-\d{2,4}", ("-",), 5),
        (r"[a-z]+", (), 0),
        (r"(?:secret)?x\d?", ("x",), 0),
        (r"(?:abc|\d)", (), 0),
    ],
)
def test_what_a_text_must_hold_is_read_from_the_pattern(pattern: str, words: tuple[str, ...], n_digits: int) -> None:
    assert hint(parse(pattern)) == (words, n_digits)
