"""Word's .docx: paragraphs, headings by their style, tables. No macros, fields or images."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any, Final
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from ring0 import limits
from ring0.memory.documents.inside.said import Block, Unreadable

_PART: Final = "word/document.xml"
_PIECE_BYTES: Final = 65_536
_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STYLE: Final = re.compile(r"(?:heading|berschrift|titre|ttulo)\s*([1-9])", re.IGNORECASE)


def office(data: bytes) -> Iterator[Block]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        part = archive.open(_PART)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, ValueError):
        raise Unreadable("it is no .docx of Word") from None
    table: list[str] = []
    try:
        for node in _ends(part):
            if node.tag == _W + "tr":
                table.append(" | ".join(_text(cell) for cell in node.iter(_W + "tc")))
            elif node.tag == _W + "tbl":
                yield Block("table", "\n".join(table))
                table = []
            else:
                text = _text(node)
                level = _level(node)
                if text.strip():
                    yield Block("heading" if level else "paragraph", text, level)
            node.clear()
    except (ParseError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise Unreadable(f"its text is damaged: {error}") from None


def _ends(part: IO[bytes]) -> Iterator[Element]:
    """Outermost paragraphs and rows and tables, each when it is complete."""
    parser: Any = XMLPullParser(events=("start", "end"))
    size = depth = 0
    while piece := part.read(_PIECE_BYTES):
        size += len(piece)
        if size > limits.DOCUMENT_UNPACKED_SIZE_BYTES_MAX:
            raise Unreadable(
                f"unpacked, it is larger than {limits.DOCUMENT_UNPACKED_SIZE_BYTES_MAX:,} bytes"
            )
        if b"<!DOCTYPE" in piece or b"<!ENTITY" in piece:
            raise Unreadable("it declares entities, which Word never does")
        parser.feed(piece)
        for event, node in parser.read_events():
            if node.tag == _W + "tbl":
                depth += 1 if event == "start" else -1
            # A paragraph or a table within no table, a row of the outermost one.
            within = {_W + "p": 0, _W + "tbl": 0, _W + "tr": 1}.get(node.tag)
            if event == "end" and within == depth:
                yield node


def _text(node: Element) -> str:
    parts = []
    for inner in node.iter():
        if inner.tag == _W + "t":
            parts.append(inner.text or "")
        elif inner.tag in (_W + "tab", _W + "br", _W + "p"):
            parts.append(" ")
    return "".join(parts).strip()


def _level(node: Element) -> int:
    style = node.find(f"{_W}pPr/{_W}pStyle")
    said = style.get(_W + "val", "") if style is not None else ""
    if said.lower() == "title":
        return 1
    found = _STYLE.search(said)
    return int(found[1]) if found else 0
