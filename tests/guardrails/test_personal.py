"""Personal data is known by its form, and by its checksum where it has one."""

import pytest

from ring0.guardrails.scanners import Severity, scan


def personal(text: str) -> list[tuple[str, str]]:
    found = [each for each in scan(text).findings if each.rule.startswith("personal/")]
    return [(each.rule[9:], text[each.start : each.end]) for each in found]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "ann.lee+x@acme.co.uk"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB82WEST12345698765432"),
        ("iban", "NO93 8601 1117 947"),
        ("card", "4111 1111 1111 1111"),
        ("card", "5555-5555-5555-4444"),
        ("card", "378282246310005"),
        ("ssn", "536-90-4399"),
        ("phone", "+49 30 901820"),
        ("phone", "(415) 555-2671"),
        ("phone", "+1-415-555-2671"),
        ("ip", "8.8.8.8"),
        ("ip", "2001:4860:4860::8888"),
    ],
)
def test_it_is_found_as_it_stands_and_not_shown(kind: str, text: str) -> None:
    assert personal(f"that is {text}, I think") == [(kind, text)]
    shown = [each.shown for each in scan(f"that is {text}").findings]
    assert shown == [f"({len(text)} characters)"]


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",
        "XX89370400440532013000",
        "4111 1111 1111 1112",
        "9999 9999 9999 9995",
        "0000 0000 0000 0000",
        "000-12-3456",
        "666-12-3456",
        "10.1.2.3",
        "1.2.3",
        "999.1.1.1",
        "10:30:00",
        "ann@example.com",
        "ann at acme",
        "@decorator.name",
        "2024-01-15 10:30",
        "550e8400-e29b-41d4-a716-446655440000",
        "$1,234,567.89",
    ],
)
def test_what_has_the_wrong_checksum_or_range_is_none(text: str) -> None:
    assert personal(f"that is {text}, I think") == []


def test_the_word_after_an_iban_is_not_part_of_it() -> None:
    text = "pay DE89 3704 0044 0532 0130 00 SOON or LATE"
    assert personal(text) == [("iban", "DE89 3704 0044 0532 0130 00")]


def test_a_number_from_every_manual_weighs_less() -> None:
    severities = {each.severity for each in scan("the number 078-05-1120").findings}
    assert severities == {Severity.LOW}
