"""Disorder in a text: what tells a secret that a machine made from words, names and paths."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

_ENTROPY_HEX_BITS_MIN: Final = 2.8
_ENTROPY_BITS_MIN: Final = 2.6
_JUDGED_CHARS: Final = 64
"""So much of a long run is enough, and bounds what judging it costs."""
_DIGIT: Final = re.compile("[0-9]")
_LETTER: Final = re.compile("[A-Za-z]")
_PLACEHOLDER: Final = re.compile(
    r"example|sample|dummy|placeholder|changeme|change[-_]me|your[-_]?|redacted|xxx|\*\*\*|\.\.\."
    r"|…|insert|replace|todo|fixme|^\$|^%|^<|^process\.env|^os\.|^env\.|^self\.|^config|^args\."
    r"|^null$|^undefined$|^none$|^true$|^false$|^https?:|^file:|^/",
    re.IGNORECASE,
)
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")
_CODE: Final = re.compile(r"[A-Za-z_][A-Za-z_]*(?:[.:/\-][A-Za-z_]+)*")


def entropy(text: str) -> float:
    """Of Shannon, in bits a character."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values()) if size else 0.0


def is_placeholder(value: str) -> bool:
    """What examples and code have in place of a secret."""
    return _PLACEHOLDER.search(value) is not None or len(set(value)) <= 2


def is_disordered(value: str) -> bool:
    """Of what a machine made, or somebody who was told to mix signs: no word, path or name."""
    value = value[:_JUDGED_CHARS]
    if is_placeholder(value) or _CODE.fullmatch(value):
        return False
    bits = _ENTROPY_HEX_BITS_MIN if _HEX.fullmatch(value) else _ENTROPY_BITS_MIN
    kinds = (
        any(map(str.isdigit, value))
        + any(map(str.islower, value))
        + any(map(str.isupper, value))
        + (not value.isalnum())
    )
    return entropy(value) >= min(bits, math.log2(len(value)) * 0.8) and kinds >= 2


def is_mixed(text: str) -> bool:
    """Digits among letters: no word, no name."""
    begin = text[:_JUDGED_CHARS]
    return (
        _DIGIT.search(begin) is not None
        and _LETTER.search(begin) is not None
        and entropy(begin) > 3
    )
