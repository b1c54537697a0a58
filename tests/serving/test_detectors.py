"""A text in pieces says what it says whole: nothing split gets through, nothing innocent is lost."""

# ruff: noqa: RUF001 - letters that look like others are among what this is about

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serving import credentials, pii
from pipelines.serving.config_policies import PatternRule
from pipelines.serving.detectors import Detector, Detectors, Scan
from pipelines.serving.parts import Blocked
from pipelines.serving.text_rules import detectors_of

WORDS = detectors_of(
    PatternRule(
        rule="patterns",
        name="words",
        patterns=(r"\bsecret\b", r"se.{0,6}et", r"ab{1,3}c?", r"(?<=x)yz?(?!w)", r"cret at"),
        action="redact",
    )
)
PERSONAL = pii.detectors(list(pii.KINDS), "redact")
SECRETS = credentials.detectors("redact")
EVERYTHING = Detectors([*PERSONAL, *SECRETS, *WORDS])
TEXTS = [
    "write to jane.doe@example.com, or call +49 30 1234567 today",
    "card 4111 1111 1111 1111 and iban DE89 3704 0044 0532 0130 00, thanks",
    "the secret is s\u200be\u200bcret and ѕесrеt",
    'arguments {"mail": "jane\\u0040example.com", "ip": "192.168.10.7"}',
    "4111111111111111, 4111-1111-1111-1112, 12344111111111111111",
    "token=ghp_abcdefghijklmnopqrstuvwxyz0123456789 and sk-abcdefghijklmnopqrstuvwx.",
    "postgres://admin:hunter2hunter2@db.example.com:5432/x password: correct-horse",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nabc=\n-----END RSA PRIVATE KEY----- after",
    "no personal data at all: order 20240102, 12:30:45, 3.14159, v1.2.3, ratio 16:9, half ab cent",
    "xyz xyzw abbbbc sexet seabcet 078-05-1120 fe80::1ff:fe23:4567:890a",
]


def whole(text: str, detectors: Detectors = EVERYTHING) -> str:
    scan = Scan(detectors, lambda detector: None)
    return scan.feed(text) + scan.close()


def in_pieces(text: str, cuts: list[int], detectors: Detectors = EVERYTHING) -> str:
    scan = Scan(detectors, lambda detector: None)
    places = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]
    return "".join(scan.feed(text[low:high]) for low, high in pairwise(places)) + scan.close()


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_cut_anywhere_and_everywhere_leaves_as_it_does_whole(text: str) -> None:
    expected = whole(text)
    for cut in range(len(text) + 1):
        assert in_pieces(text, [cut]) == expected
    assert in_pieces(text, list(range(len(text)))) == expected
    for size in (2, 3, 7):
        assert in_pieces(text, list(range(0, len(text), size))) == expected


ALPHABET = st.one_of(
    st.sampled_from(
        ["se", "cret", "a", "b", "c", "x", "y", "z", "w", "et", "@", ".", " ", "4", "1", "-", ":", "\u200b"]
    ),
    st.sampled_from(
        ["ﬁ", "é", "\\", "\\u0040", "\\u00", "ѕ", "jane", "@ex.com", "4111 1111", "+49 30 12", "DE89", "sk-"]
    ),
    st.characters(max_codepoint=0x2100, exclude_categories=["Cs"]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(ALPHABET, max_size=40), st.lists(st.integers(0, 120), max_size=12))
def test_any_text_in_any_pieces_leaves_as_it_does_whole(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    assert in_pieces(text, cuts) == whole(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_text_in_which_nothing_is_found_leaves_unchanged(text: str, cuts: list[int]) -> None:
    nothing = Detectors(detectors_of(PatternRule(rule="patterns", name="n", patterns=("\\x00never\\x00",))))
    assert in_pieces(text, cuts, nothing) == text


def test_what_the_words_of_the_whole_texts_become() -> None:
    assert whole(TEXTS[0]) == "write to [EMAIL], or call [PHONE] today"
    assert whole(TEXTS[1]) == "card [CARD] and iban [IBAN], thanks"
    assert whole(TEXTS[2]) == "the [WORDS] is [WORDS] and [WORDS]"
    assert whole(TEXTS[3]) == 'arguments {"mail": "[EMAIL]", "ip": "[IP]"}'
    assert whole(TEXTS[8], Detectors([*PERSONAL, *SECRETS])) == TEXTS[8]
    assert "PRIVATE" not in whole(TEXTS[7])
    assert "MII" not in whole(TEXTS[7])


@pytest.mark.parametrize("cut", range(6))
def test_a_blocked_word_stops_a_stream_before_any_of_it_left(cut: int) -> None:
    def stop(detector: Detector) -> None:
        raise Blocked(detector.rule)

    words = Detectors(detectors_of(PatternRule(rule="patterns", name="words", patterns=("secret",))))
    scan = Scan(words, stop)
    left = scan.feed("it is " + "secret"[:cut])
    assert left == "it is "
    with pytest.raises(Blocked, match="words"):
        scan.feed("secret"[cut:])


def test_only_what_could_become_a_match_waits() -> None:
    scan = Scan(Detectors(PERSONAL), lambda detector: None)
    assert scan.feed("Hello there, ") == "Hello there, "
    assert scan.feed("dear") == ""  # the beginning of an address
    assert scan.feed(" Jane. ") == "dear Jane. "
    assert scan.feed("12") == ""
    assert scan.feed(" apples. ") == "12 apples. "


def test_memory_does_not_grow_with_a_stream() -> None:
    scan = Scan(EVERYTHING, lambda detector: None)
    for _ in range(3000):
        scan.feed("some words, é and more. ")
        assert len(scan._raw) < 300
