"""Secrets that nobody told us of: those with a form of their own, private keys, and what stands
after a name for one and has much disorder in it.

Not the secrets that ring0 holds: those are known, and `guardrails/redact.py` takes them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ring0 import limits
from ring0.guardrails.scanners.disorder import is_disordered
from ring0.guardrails.scanners.findings import Confidence, Hit, Severity
from ring0.guardrails.scanners.forms import FORMS, Form, matches
from ring0.guardrails.scanners.reading import Reading, small

_SEEN_CHARS: Final = 4
_VALUE_CHARS_MIN: Final = 8


PRIVATE_KEY_ANCHOR: Final = "-----BEGIN"
PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN[ ](?:[A-Z0-9]{1,16}[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----"
    r"[A-Za-z0-9+/=\s\\:,.()]{0,7900}+(?:-----END[ ][A-Z0-9 ]{4,40}-----)?"
)

_PRIVATE_KEY_BEGUN: Final = re.compile(
    r"-----BEGIN(?:\Z|[ ][A-Z0-9 ]{0,72}+(?:-{0,4}\Z|-----[A-Za-z0-9+/=\s\\:,.()]{0,7900}+"
    r"(?:-{0,5}|-----E|-----EN|-----END(?:[ ][A-Z0-9 ]{0,40}+-{0,5})?)\Z))"
)
"""What could become one."""

KEYWORDS: Final = (
    "passw", "passphrase", "pwd", "secret", "token", "credential", "key", "bearer"
)  # fmt: skip
"""What a name of a secret has in it, in small letters."""
KEYWORD_CHARS_MAX: Final = 48
"""From its keyword to where the value begins, at most."""
_KEYED: Final = re.compile(
    r"(?:api|access|private|auth|account|client|encryption|signing|service|shared|master|ssh)"
    r"[_\- ]?$"
)
"""What makes a `key` one that opens something."""
_KEYED_CHARS: Final = 12
_NAMED_ENDS: Final = r"\s\"'`,;<>(){}\[\]|\\«»"
_NAMED: Final = re.compile(
    r"(?:bearer[ \t]{1,3}+|[a-z]{3}[a-z0-9_\-]{0,24}+[\"'`\]]{0,2}+[ \t]{0,3}+(?::=|=>|[:=]|is\b)"
    r"[ \t]{0,3}+[\"'`]?+(?:(?:bearer|basic|token)[ ])?+)"
    rf"([^{_NAMED_ENDS}]{{{_VALUE_CHARS_MIN},{limits.SECRET_VALUE_CHARS_MAX}}}+)",
    re.IGNORECASE,
)
"""From the keyword on: `password = value`, `"api_key": "value"`, `Bearer value`."""

_NAMED_BEGUN: Final = re.compile(
    r"(?:bearer[ \t]{1,3}+|[a-z]{3}[a-z0-9_\-]{0,24}+[\"'`\]]{0,2}+[ \t]{0,3}+"
    r"(?:i?\Z|(?::=|=>|[:=]|is)"
    r"[ \t]{0,3}+[\"'`]?+(?:(?:bearer|basic|token)[ ])?+))"
    rf"[^{_NAMED_ENDS}]{{0,{limits.SECRET_VALUE_CHARS_MAX - 1}}}+\Z",
    re.IGNORECASE,
)
"""What could become that."""


def forms(text: str, long: str) -> Iterator[tuple[Form, int, int]]:
    """Every secret with a form of its own. `long`: what of the text is long enough for one."""
    for form in FORMS:
        if any(anchor in long for anchor in form.anchors):
            for start, end in matches(form, text, 0, len(text)):
                yield form, start, end


def private_keys(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Those that begin in text[first:last]."""
    place = text.find(PRIVATE_KEY_ANCHOR, first)
    while 0 <= place < last:
        found = PRIVATE_KEY.match(text, place)
        if found is not None:
            yield found.span()
        place = text.find(PRIVATE_KEY_ANCHOR, found.end() if found else place + 1)


def open_private_key(text: str, first: int) -> int:
    """Where in text[first:] one begins that has not ended, or the end of the text."""
    place = text.find(PRIVATE_KEY_ANCHOR, first)
    while place >= 0:
        if _PRIVATE_KEY_BEGUN.match(text, place):
            return place
        place = text.find(PRIVATE_KEY_ANCHOR, place + 1)
    return len(text)


def open_named(text: str, first: int) -> int:
    """Where in text[first:] a keyword begins whose value has not ended, or the end of the text."""
    lower = small(text)
    found = len(text)
    for keyword in KEYWORDS:
        place = lower.find(keyword, first)
        while 0 <= place < found:
            if _NAMED_BEGUN.match(text, place):
                found = place
            place = lower.find(keyword, place + 1)
    return found


def _is_mark(text: str, place: int) -> bool:
    """A secret that was taken out, with its name in its place."""
    return text[place - 1 : place] == "«"


def named(text: str, lower: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Start and end of each value after a keyword that begins in text[first:last].

    `lower`: the text in small letters, place for place.
    """
    for keyword in KEYWORDS:
        place = lower.find(keyword, first)
        while 0 <= place < last:
            if _is_mark(text, place):
                pass
            elif keyword != "key" or _KEYED.search(lower, max(0, place - _KEYED_CHARS), place):
                found = _NAMED.match(text, place)
                if found is not None and is_disordered(found.group(1)):
                    yield found.span(1)
            place = lower.find(keyword, place + 1)


def find(reading: Reading) -> Iterator[Hit]:
    """All secrets in a text."""
    text = reading.text
    for form, start, end in forms(text, reading.long) if reading.long else ():
        yield _hit(form.name, form.severity, form.confidence, start, end, text[start:end])
    for start, end in private_keys(text, 0, len(text)):
        yield _hit("private-key", Severity.CRITICAL, Confidence.HIGH, start, end, "")
    for start, end in named(text, reading.lower, 0, len(text)):
        yield _hit("named", Severity.HIGH, Confidence.MEDIUM, start, end, "")


def _hit(
    name: str, severity: Severity, confidence: Confidence, start: int, end: int, text: str
) -> Hit:
    """Shows its length, and of a form with a prefix as much as every secret of that form has."""
    known = text[:_SEEN_CHARS] if text.startswith(_PREFIXES) else ""
    shown = f"{known}… ({end - start} characters)" if known else f"({end - start} characters)"
    return Hit(f"secret/{name}", severity, confidence, start, end, shown)


_PREFIXES: Final = tuple(
    anchor
    for form in FORMS
    for anchor in form.anchors
    if len(anchor) >= _SEEN_CHARS and anchor[0].isalpha()
)
