"""Text that a model reads and a person does not see: tag characters, variation selectors that are
bytes, long runs of invisible characters, overriding bidi controls, terminal escapes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ring0.guardrails.scanners.findings import Confidence, Hit, Severity
from ring0.guardrails.scanners.fold import ESCAPE_BEGINS, ESCAPES

_TAG: Final = "\U000e0020-\U000e007e"
_HIDDEN: Final = (
    ("tags", f"(?<!\U0001f3f4)(?<![{_TAG}])[{_TAG}]{{2,}}", Severity.HIGH),
    ("variation-selectors", "[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}", Severity.HIGH),
    ("invisible", "[\u200b-\u200d\u2060-\u2064\ufeff\u00ad\u180e\u034f]{8,}", Severity.MEDIUM),
    ("bidi", "[\u202d\u202e]", Severity.MEDIUM),
)
"""The first is not that of a flag, as of England: such tags follow a black flag."""
_PATTERNS: Final = tuple((name, re.compile(text), grade) for name, text, grade in _HIDDEN)


def find(text: str) -> Iterator[Hit]:
    """Of the text as it is, not as it is seen."""
    if not text.isascii():
        for name, pattern, severity in _PATTERNS:
            for found in pattern.finditer(text):
                yield _hit(name, severity, *found.span())
    # The first escape stands for all: colours come by the hundred.
    escape = ESCAPES.search(text) if ESCAPE_BEGINS.search(text) else None
    if escape is not None:
        yield _hit("escapes", Severity.LOW, *escape.span())


def _hit(name: str, severity: Severity, start: int, end: int) -> Hit:
    return Hit(
        f"hidden/{name}", severity, Confidence.HIGH, start, end, f"({end - start} characters)"
    )
