"""Disguises of a text, one for every rule of the normaliser that undoes it, and which of them can
be worn over each other. For `ring0 bench scanners` and the tests."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterator
from typing import Final

_CYRILLIC: Final = str.maketrans("aceopxyiAEOPCTXHK", "асеорхуіАЕОРСТХНК")
_FULLWIDTH: Final = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_LEET: Final = str.maketrans("aeio", "4310")


def compatible(text: str) -> str:
    return text.translate(_FULLWIDTH)


def zero_width(text: str) -> str:
    return "\u200b".join(text)


def bidi(text: str) -> str:
    return "\u202a\u2066" + "\u200f".join(text) + "\u2069\u202c"


def accents(text: str) -> str:
    return "".join(char + "\u0336" if char.isalnum() else char for char in text)


def confusables(text: str) -> str:
    return text.translate(_CYRILLIC)


def escapes(text: str) -> str:
    return "".join(f"\x1b[3{place % 8}m{char}\x1b[0m" for place, char in enumerate(text))


def tags(text: str) -> str:
    """What is no ASCII has no tag: it stays."""
    return "".join(chr(ord(char) + 0xE0000) if " " <= char <= "~" else char for char in text)


def variation_selectors(text: str) -> str:
    data = text.encode()
    hidden = (chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16) for byte in data)
    return "\U0001f600" + "".join(hidden)


def spaced(text: str) -> str:
    return "  ".join(" ".join(word) for word in text.split(" "))


def percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def entities(text: str) -> str:
    return "".join(f"&#{ord(char)};" for char in text)


def backslashes(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def base64_(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def base64_url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def hexadecimal(text: str) -> str:
    return text.encode().hex()


def rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def leet(text: str) -> str:
    """For profanity alone: nothing else is looked for in it."""
    return text.translate(_LEET)


LOOKS: Final[dict[str, Callable[[str], str]]] = {
    "compatible": compatible,
    "zero-width": zero_width,
    "bidi": bidi,
    "accents": accents,
    "confusables": confusables,
    "escapes": escapes,
    "spaced": spaced,
}
"""They change how it looks."""

CODES: Final[dict[str, Callable[[str], str]]] = {
    "tags": tags,
    "variation-selectors": variation_selectors,
    "percent": percent,
    "entities": entities,
    "backslashes": backslashes,
    "base64": base64_,
    "base64url": base64_url,
    "hex": hexadecimal,
    "rot13": rot13,
}
"""They encode it."""

ALL: Final = LOOKS | CODES

UNDONE: Final = {
    ("tags", "tags"): "a tag has no tag: nothing changes",
    ("tags", "rot13"): "tags are no letters: nothing changes",
    ("variation-selectors", "rot13"): "they are no letters: nothing changes",
    ("escapes", "spaced"): "a terminal would not obey it any more, and show it",
    ("rot13", "rot13"): "it is what it was",
}
"""Pairs, the inner first, that are no disguise of their own."""


def pairs() -> Iterator[tuple[str, str]]:
    """Every two, the inner one first, the same one twice included."""
    for inner in ALL:
        for outer in ALL:
            if (inner, outer) not in UNDONE:
                yield inner, outer
