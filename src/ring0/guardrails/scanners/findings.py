"""What scanners say: findings and their grades. A finding raises a label or a risk, and never
decides; it never holds the secret that it tells of."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ring0 import limits


class Severity(enum.IntEnum):
    """How bad it is if it is so."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Confidence(enum.IntEnum):
    """How sure it is that it is so."""

    LOW = 1
    """The form fits."""
    MEDIUM = 2
    """The form is rare, or what stands around it fits too."""
    HIGH = 3
    """A checksum, a prefix that nothing else has, or a whole word."""


NOT_SCANNED: Final = "not-scanned"
"""The rule of what the budget left over: to be taken as untrusted, and asked about."""


class Hit(msgspec.Struct, frozen=True):
    """What one rule found in one view. Places are those of the view's text."""

    rule: str
    severity: Severity
    confidence: Confidence
    start: int
    end: int
    shown: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Places are those of the text that was scanned."""

    rule: str
    """Kind and name: `secret/aws-access-key`, `personal/iban`, `link/image-carries-data`."""
    severity: Severity
    confidence: Confidence
    start: int
    end: int
    shown: str
    """What a person sees of it. Never a secret, a number or an address itself."""
    view: tuple[str, ...] = ()
    """How the text was reached that it was found in: `("base64", "visible")`; empty: as it is."""
    exact: bool = True
    """Nothing stands between `start` and `end` that is not part of it."""


def excerpt(text: str) -> str:
    """The beginning of `text` as one line that is safe to print."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    most = limits.SCAN_SHOWN_CHARS_MAX
    return line if len(line) <= most else line[: most - 1] + "…"
