"""Personal data by its form: found with its check digits, and not where only the form is alike."""

# ruff: noqa: RUF001 - letters that look like others are among what this is about

from __future__ import annotations

import pytest

from pipelines.serving import pii
from pipelines.serving.detectors import Detectors
from pipelines.serving.pii import has_luhn_digit
from tests.serving.test_detectors import whole

ALL = Detectors(pii.detectors(list(pii.KINDS), "redact"))


@pytest.mark.parametrize(
    "address",
    ["a@b.co", "jane.doe+tag@mail.example.com", "JANE@EXAMPLE.COM", "j_d%x@sub.a-b.example.museum", "jané@exämple.de"],
)
def test_an_address_is_found(address: str) -> None:
    assert whole(f"to {address}, please", ALL) == "to [EMAIL], please"


@pytest.mark.parametrize("text", ["@jane", "jane@home", "a @ b.com", "1@2", "10 @ 3.50", "me@", "x@y.z"])
def test_what_only_has_an_at_sign_is_no_address(text: str) -> None:
    assert whole(text, ALL) == text


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5500 0000 0000 0004",
        "3400 000000 00009",
        "3530111333300000", "6011000000000004", "6200000000000005",
        "４１１１ １１１１ １１１１ １１１１", "2223003122003222",
    ],
)  # fmt: skip
def test_a_card_number_is_found(number: str) -> None:
    assert whole(f"card: {number}.", ALL) == "card: [CARD]."
    assert whole(f"12 {number}.", ALL) == "12 [CARD]."


@pytest.mark.parametrize(
    "number",
    ["4111111111111112", "1234567812345670", "41111111111111110000", "4111 1111 1111", "0000000000000000"],
)
def test_a_number_with_a_wrong_digit_length_or_issuer_is_no_card(number: str) -> None:
    assert whole(f"order {number}", ALL) == f"order {number}"


def test_luhns_digit_is_checked() -> None:
    digits = [4, 5, 3, 9, 1, 4, 8, 8, 0, 3, 4, 3, 6, 4, 6, 7]  # a textbook example
    assert has_luhn_digit(digits)
    for place in range(16):
        changed = digits.copy()
        changed[place] = (changed[place] + 1) % 10
        assert not has_luhn_digit(changed)


@pytest.mark.parametrize(
    "iban",
    [
        "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19",
        "gb29nwbk60161331926819",
        "FR14 2004 1010 0505 0001 3M02 606", "NO93 8601 1117 947", "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "DE89-3704-0044-0532-0130-00",
    ],
)  # fmt: skip
def test_an_iban_is_found(iban: str) -> None:
    assert whole(f"to {iban} please", ALL) == "to [IBAN] please"


@pytest.mark.parametrize("text", ["DE88370400440532013000", "DE8937040044053201300", "XX89370400440532013000"])
def test_an_iban_with_a_wrong_digit_length_or_country_is_none(text: str) -> None:
    assert "[IBAN]" not in whole(f"to {text} please", ALL)


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 1234567", "+1 (212) 555-0123", "(212) 555-0123", "212-555-0123", "212.555.0123", "0049 30 123456",
        "+442079460958", "030 1234 5678", "+33 1 23 45 67 89", "(030) 901820-12",
    ],
)  # fmt: skip
def test_a_phone_number_is_found(number: str) -> None:
    assert whole(f"call {number}, now", ALL) == "call [PHONE], now"


@pytest.mark.parametrize(
    "text",
    [
        "order 123456789", "2024-01-02", "01/02/2024", "12:30:45", "1,234,567.89", "v1.22.333", "x = 3 + 45", "IMEI 35",
        "10.000.000 EUR", "room 0815", "2024-01-02 12:30:45", "ISBN 978-3-16",
    ],
)  # fmt: skip
def test_other_numbers_are_left_alone(text: str) -> None:
    assert whole(text, ALL) == text


@pytest.mark.parametrize(
    "address",
    ["192.168.10.7", "8.8.8.8", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a", "2001:DB8:0:0:8:800:200C:417A"]
)  # fmt: skip
def test_an_internet_address_is_found(address: str) -> None:
    assert whole(f"from {address}, today", ALL) == "from [IP], today"


@pytest.mark.parametrize("text", ["256.1.1.1", "1.2.3", "1.2.3.4.5", "a::b", "12:30", "::", "std::vector", "00:00:00"])
def test_what_only_has_dots_or_colons_is_none(text: str) -> None:
    assert whole(text, ALL) == text


def test_a_social_security_number_is_found_and_impossible_ones_are_not() -> None:
    assert whole("ssn 078-05-1120", ALL) == "ssn [SSN]"
    for text in ("000-12-3456", "666-12-3456", "912-12-3456", "078-00-1120", "078-05-0000", "1078-05-1120"):
        assert "[SSN]" not in whole(text, ALL)


def test_only_declared_kinds_are_looked_for() -> None:
    only = Detectors(pii.detectors(["email"], "redact"))
    assert whole("a@b.com 4111111111111111", only) == "[EMAIL] 4111111111111111"
