"""Personal data by its form: addresses, numbers with check digits, numbers as people write them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from pipelines.serving.detectors import Check, Detector, compiled
from pipelines.serving.exchange import Action

IBAN_CHARACTERS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
"""ISO 13616 register, release 100."""
CARD_DIGITS = (13, 19)
ISSUERS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|35(?:2[89]|[3-8])|6(?:011|4[4-9]|5|2)|"
    r"50|5[6-9]|6[37]"
)
"""Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro."""
PHONE_DIGITS = (8, 15)

OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
EMAIL = r"[\w.%+-]{1,64}@(?:\w[\w-]{0,62}\.){1,5}[^\W\d_]{2,24}"
PHONES = (
    r"(?<![\w+])(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){6,14}(?!\d)",
    r"(?<![\w+])\(?[2-9]\d\d\)?[ .\-]{1,2}[2-9]\d\d[ .\-]\d{4}(?!\w)",
    r"(?<![\w+])\(?0[1-9]\d{1,3}\)?[ /\-]{1,3}\d{2,5}(?:[ \-]?\d{2,5}){1,3}(?!\d)",
)
CARD = r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"
IBAN = r"(?<!\w)[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}(?!\w)"
IP4 = rf"(?<![\w.])(?:{OCTET}\.){{3}}{OCTET}(?!\w)(?!\.\d)"
IP6 = r"(?<![\w:.])(?:[0-9A-F]{0,4}:){2,7}[0-9A-F]{0,4}(?![\w:])"
SSN = r"(?<![\w-])(?!000|666|9)\d{3}[- ](?!00)\d\d[- ](?!0000)\d{4}(?![\w-])"


def card_end(match: re.Match[str]) -> int | None:
    """Return where the longest card number ends that begins a run of digits: issuer, length and Luhn's digit fit."""
    text = match.group()
    places = [place for place, character in enumerate(text) if character.isdigit()]
    digits = [int(text[place]) for place in places]
    if not ISSUERS.match("".join(map(str, digits[:6]))):
        return None
    for n_digits in range(min(len(digits), CARD_DIGITS[1]), CARD_DIGITS[0] - 1, -1):
        end = places[n_digits - 1] + 1
        if not text[end : end + 1].isdigit() and has_luhn_digit(digits[:n_digits]):
            return match.start() + end
    return None


def has_luhn_digit(digits: Sequence[int]) -> bool:
    """Tell whether the last digit is Luhn's check digit of the others (ISO/IEC 7812-1)."""
    doubled = (2 * digit - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban_end(match: re.Match[str]) -> int | None:
    """Return where an IBAN ends: length of its country, check digits by ISO 7064 MOD 97-10."""
    text = match.group().upper()
    n_wanted = IBAN_CHARACTERS.get(text[:2])
    places = [place for place, character in enumerate(text) if character.isalnum()]
    if n_wanted is None or len(places) < n_wanted:
        return None
    end = places[n_wanted - 1] + 1
    if text[end : end + 1].isalnum():
        return None
    iban = "".join(text[place] for place in places[:n_wanted])
    if not iban.isascii():
        return None
    number = "".join(str(int(character, 36)) for character in iban[4:] + iban[:4])
    return match.start() + end if int(number) % 97 == 1 else None


def phone_end(match: re.Match[str]) -> int | None:
    """Return where a phone number ends, if it has a phone number's count of digits."""
    n_digits = sum(map(str.isdigit, match.group()))
    return match.end() if PHONE_DIGITS[0] <= n_digits <= PHONE_DIGITS[1] else None


def ip6_end(match: re.Match[str]) -> int | None:
    """Return where an IPv6 address ends; times and ratios have colons too."""
    try:
        address = ipaddress.IPv6Address(match.group())
    except ValueError:
        return None
    return match.end() if any(map(str.isdigit, match.group())) and not address.is_loopback else None


KINDS: dict[str, tuple[tuple[str, Check | None], ...]] = {
    "iban": ((IBAN, iban_end),),
    "card": ((CARD, card_end),),
    "email": ((EMAIL, None),),
    "ssn": ((SSN, None),),
    "phone": tuple((pattern, phone_end) for pattern in PHONES),
    "ip": ((IP4, None), (IP6, ip6_end)),
}
"""By kind: patterns, and what looks closer."""


def detectors(kinds: Sequence[str], action: Action) -> list[Detector]:
    """Return what looks for these kinds of personal data."""
    return [
        Detector("pii", action, f"[{kind.upper()}]", compiled(pattern), check)
        for kind in KINDS
        if kind in kinds
        for pattern, check in KINDS[kind]
    ]
