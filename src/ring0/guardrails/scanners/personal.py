"""Personal data by its form, with its checksum where it has one: e-mail, phone, IBAN, card,
social security number, IP address.

Says that text has that form. Whose it is, and whether it may be there, others know.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from ring0.guardrails.scanners.findings import Confidence, Hit, Severity

_EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]{1,64}+@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}+[A-Za-z]{2,24}(?![A-Za-z0-9\-])"
)
_RESERVED_HOSTS: Final = re.compile(
    r"(?:^|[.@])(?:example\.(?:com|net|org)|[a-z0-9\-]+\.(?:example|test|invalid|local|localhost))$",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?<![\w.+\-/#$€£])[+(]?\d(?:[ .\-/()]{0,2}\d){6,21}(?![\w\-/])")
"""Digits in groups, as people write numbers."""
_PHONE_INTERNATIONAL: Final = re.compile(
    r"\+[1-9]\d{0,3}[ .\-/()]{0,2}(?:\d[ .\-/()]{0,2}){5,13}\d"
)
_PHONE_NATIONAL: Final = re.compile(
    r"(?:1[ .\-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([.\-]))[2-9]\d{2}[.\-]\d{4}"
    r"|\(?0[1-9]\d{1,4}\)?[ /\-]\d{3,}(?:[ \-]?\d{2,}){0,3}"
)
_SSN: Final = re.compile(r"(?!000|666|9)\d{3}([ \-])(?!00)\d{2}\1(?!0000)\d{4}")
_SSN_KNOWN: Final = frozenset({"078-05-1120", "219-09-9999", "123-45-6789"})
"""Printed in advertisements and in every manual; still the form, but nobody's."""
_IBAN: Final = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]{4}){2,7}(?:[ \-]?[A-Z0-9]{1,3})?"
    r"(?![A-Za-z0-9])"
)
_IPV4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_NOT_DIGIT: Final = re.compile(r"\D")

_IBAN_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
IBAN_CHARS: Final = {
    country: chars for chars, countries in _IBAN_COUNTRIES.items() for country in countries.split()
}
"""How long an IBAN of a country is (SWIFT's registry)."""

_CARD_RANGES: Final = (
    (r"4", (13, 16, 19)),
    (r"5[1-5]", (16,)),
    (r"2(?:2[2-9]|[3-6]|7[01]|720)", (16,)),
    (r"3[47]", (15,)),
    (r"3(?:0[0-5]|[689])", (14, 16)),
    (r"35(?:2[89]|[3-8])", (16,)),
    (r"6(?:011|4[4-9]|5)", (16, 19)),
    (r"62", (16, 17, 18, 19)),
    (r"(?:50|5[6-9]|6[0-9])", (16, 18, 19)),
)
"""What the numbers of each brand begin with, and their lengths (ISO/IEC 7812)."""
_CARDS: Final = tuple((re.compile(begins), lengths) for begins, lengths in _CARD_RANGES)


def luhn(digits: str) -> bool:
    """The checksum of card numbers (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Length of its country, and mod 97 (ISO 13616)."""
    bare = text.replace(" ", "").replace("-", "")
    if IBAN_CHARS.get(bare[:2]) != len(bare):
        return False
    return int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1


def is_card(digits: str) -> bool:
    if len(set(digits)) < 2 or not luhn(digits):
        return False
    return any(len(digits) in lengths and begins.match(digits) for begins, lengths in _CARDS)


def find(text: str) -> Iterator[Hit]:
    """All personal data in `text`."""
    if "@" in text:
        yield from _emails(text)
    if len(text.encode("utf-8", "replace").translate(None, _NO_DIGITS)) >= _DIGITS_MIN:
        yield from _ibans(text)
        for found in _NUMBER.finditer(text):
            yield from _number(found.start(), found.group())
        if text.count(".") >= 3:
            yield from _addresses(text, _IPV4)
    if text.count(":") >= 2 and _HEX_GROUP.search(text) is not None:
        yield from _addresses(text, _IPV6)


_NO_DIGITS: Final = bytes(code for code in range(256) if not 48 <= code <= 57)
_DIGITS_MIN: Final = 4
_HEX_GROUP: Final = re.compile(r"[0-9A-Fa-f]:{1,2}[0-9A-Fa-f]{1,4}:|::[0-9A-Fa-f]")


def _emails(text: str) -> Iterator[Hit]:
    for found in _EMAIL.finditer(text):
        if not _RESERVED_HOSTS.search(found.group()):
            yield _hit("email", Severity.MEDIUM, Confidence.HIGH, *found.span())


def _ibans(text: str) -> Iterator[Hit]:
    for found in _IBAN.finditer(text):
        run, end = found.group(), found.end()
        while run and not is_iban(run):  # the next word may look like its last group
            run = run.rpartition(" ")[0]
            end = found.start() + len(run)
        if run:
            yield _hit("iban", Severity.HIGH, Confidence.HIGH, found.start(), end)


def _number(start: int, run: str) -> Iterator[Hit]:
    """One run of digits is one thing at most: what has a checksum goes first."""
    digits = _NOT_DIGIT.sub("", run)
    end = start + len(run)
    if run[0].isdigit() and 13 <= len(digits) <= 19 and is_card(digits):
        yield _hit("card", Severity.HIGH, Confidence.HIGH, start, end)
    elif _SSN.fullmatch(run):
        known = run.replace(" ", "-") in _SSN_KNOWN
        severity = Severity.LOW if known else Severity.HIGH
        yield _hit("ssn", severity, Confidence.MEDIUM, start, end)
    elif _PHONE_INTERNATIONAL.fullmatch(run) and len(digits) >= 8:
        yield _hit("phone", Severity.MEDIUM, Confidence.HIGH, start, end)
    elif _PHONE_NATIONAL.fullmatch(run):
        yield _hit("phone", Severity.MEDIUM, Confidence.MEDIUM, start, end)


def _addresses(text: str, pattern: re.Pattern[str]) -> Iterator[Hit]:
    for found in pattern.finditer(text):
        try:
            address = ipaddress.ip_address(found.group())
        except ValueError:
            continue
        if address.is_global:
            yield _hit("ip", Severity.LOW, Confidence.MEDIUM, *found.span())


def _hit(name: str, severity: Severity, confidence: Confidence, start: int, end: int) -> Hit:
    shown = f"({end - start} characters)"
    return Hit(f"personal/{name}", severity, confidence, start, end, shown)
