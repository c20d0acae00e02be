"""Files for the tests of documents, made by hand: no writer of ours is asked what a reader says."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest

from ring0.memory.documents import Block, Passage, passages_of
from ring0.memory.documents.inside import main
from ring0.memory.documents.inside.said import Block as Said

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def pdf_of(*pages: bytes) -> bytes:
    """A PDF whose pages have these content streams."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, stream in enumerate(pages):
        packed = zlib.compress(stream, 9)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources"
            b" << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % (5 + 2 * number)
        )
        objects.append(
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
        )
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table, len(objects) + 1, len(out))
    )


def page_of(*lines: str) -> bytes:
    shown = b" ".join(b"(%s) Tj 0 -14 Td" % line.encode() for line in lines)
    return b"BT /F1 12 Tf 50 700 Td %s ET" % shown


def docx_of(body: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "word/document.xml", f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'
        )
    return held.getvalue()


def paragraph(text: str, style: str = "") -> str:
    said = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{said}<w:r><w:t>{text}</w:t></w:r></w:p>"


def passages(parser: str, data: bytes | str) -> list[Passage]:
    """What a parser and the kernel make of a file, without the sandbox between them."""
    for needed in {"html": ["justhtml"], "pdf": ["pypdf"]}.get(parser, []):
        pytest.importorskip(needed, reason="`make optional` installs it")
    found = main.parser_of(parser)(data.encode() if isinstance(data, str) else data)
    return passages_of("a file", [block(one) for one in found])


def block(one: Said) -> Block:
    return Block(
        kind=one.kind,  # type: ignore[arg-type]
        text=one.text,
        level=one.level,
        page=one.page,
        first=one.first,
        last=one.last,
    )
