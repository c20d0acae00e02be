"""PDF, page by page; its outline gives the headings. No images: nothing is recognised in a scan."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

from pypdf import PdfReader
from pypdf.errors import LimitReachedError, PdfReadError

from ring0 import limits
from ring0.memory.documents.inside.said import Block, Unreadable


def pdf(data: bytes) -> Iterator[Block]:
    logging.disable()
    try:
        yield from _pages(data)
    except LimitReachedError:
        raise Unreadable("it unpacks to far more than it says: no PDF of text does") from None


def _pages(data: bytes) -> Iterator[Block]:
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("it is encrypted: save it without a password first")
        count = len(reader.pages)
    except PdfReadError as error:
        raise Unreadable(f"it is no PDF that can be read: {error}") from None
    if count > limits.DOCUMENT_PAGES_MAX:
        raise Unreadable(
            f"it has {count:,} pages; {limits.DOCUMENT_PAGES_MAX:,} are taken: split it"
        )
    headings = _headings(reader)
    found = False
    for number, page in enumerate(reader.pages, 1):
        if number > limits.DOCUMENT_PAGES_MAX:
            raise Unreadable(f"it has more than {limits.DOCUMENT_PAGES_MAX:,} pages: split it")
        for level, title in headings.get(number, ()):
            yield Block("heading", title, level, number)
        text = page.extract_text()
        for part in text.split("\n\n"):
            if part.strip():
                found = True
                yield Block("paragraph", part.strip(), 0, number)
    if not found:
        raise Unreadable("there is no text in it, only images perhaps: let OCR make text of it")


def _headings(reader: PdfReader) -> dict[int, list[tuple[int, str]]]:
    """By page: (level, title). A broken outline is as good as none."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        ways: list[tuple[Any, int]] = [(reader.outline, 1)]
        for _ in range(limits.DOCUMENT_OUTLINE_MAX):
            if not ways:
                break
            item, level = ways.pop()
            if isinstance(item, list):
                # What stands in a list within the list lies beneath the title before it.
                inner = [(one, level + isinstance(one, list)) for one in item]
                ways.extend(reversed(inner))
                continue
            page = reader.get_destination_page_number(item)
            title = " ".join(str(item.title).split())
            if page is not None and page >= 0 and title:
                found.setdefault(page + 1, []).append((level, title))
    except Exception:
        return {}
    return found
