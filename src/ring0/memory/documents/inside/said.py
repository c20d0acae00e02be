"""What parsers have in common: a block, and how bytes become text."""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple

_LOOKED_AT_BYTES: Final = 8_192
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Unreadable(Exception):
    """Why the file can't be read, in half a sentence."""


class Block(NamedTuple):
    """A part of a document that is best kept whole."""

    kind: str
    """`heading`, `paragraph`, `list`, `table`, `code`, `row`."""
    text: str
    level: int = 0
    """Of a heading; 1 is the highest."""
    page: int = 0
    first: int = 0
    last: int = 0
    """Lines, from 1; 0: not known."""


def text_of(data: bytes) -> str:
    """As text, its line ends all alike. Raises Unreadable."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            break
    else:
        if b"\0" in data[:_LOOKED_AT_BYTES]:
            raise Unreadable("it is no text: there are NULs in it")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
