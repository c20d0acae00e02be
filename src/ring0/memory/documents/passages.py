"""From blocks to passages: what is recalled whole, and cited by where it stands.

A passage never crosses a heading, keeps blocks whole where they fit, and has its headings in front
of its text, so that it says what it is about. Not for deciding what has changed (ingesting).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from ring0 import limits
from ring0.memory.documents.blocks import Block, unreadable
from ring0.types import Frozen

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
_BY_LINES: Final = ("code", "list", "table", "row")
_JOINED: Final = {"code": "\n\n", "row": "\n"}
_HEAD_LINES: Final = 2
"""Of a table in Markdown: names and a rule. They stand above each part of a long one."""


class Passage(Frozen, frozen=True, kw_only=True):
    """A part of a document as it is remembered."""

    text: str
    """Its headings in one line, and beneath them what stands there."""
    place: str
    """`Refunds > Limits, lines 12-30`, `p. 3`."""

    @property
    def digest(self) -> str:
        """Of what it says, wherever in the file it has moved to."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Piece(Frozen, frozen=True, kw_only=True):
    """A block, or a part of one that was too long."""

    kind: str
    text: str
    size_bytes: int
    page: int
    first: int
    last: int


def passages_of(name: str, blocks: Iterable[Block]) -> list[Passage]:
    """All of a document, in its order. Raises DocumentUnreadable."""
    found: list[Passage] = []
    for path, pieces in _sections(blocks):
        found.extend(_section(path, pieces))
        if len(found) > limits.DOCUMENT_PASSAGES_MAX:
            raise unreadable(
                name,
                f"it makes more than {limits.DOCUMENT_PASSAGES_MAX:,} passages",
                "Split the file.",
            )
    if not found:
        raise unreadable(name, "there is no text in it", "Leave it out.")
    return found


def _sections(blocks: Iterable[Block]) -> Iterator[tuple[tuple[str, ...], list[_Piece]]]:
    """What stands between two headings, with those that it stands beneath."""
    path: list[tuple[int, str]] = []
    pieces: list[_Piece] = []
    heading: Block | None = None
    for block in blocks:
        if block.kind != "heading":
            pieces.extend(_cut(block))
            continue
        if pieces or (heading and heading.text and block.level <= heading.level):
            yield _titles(path), pieces or _alone(heading)
        pieces = []
        heading = block
        path = [one for one in path if one[0] < block.level]
        if block.text:
            path.append((block.level, block.text))
    if pieces or (heading and heading.text):
        yield _titles(path), pieces or _alone(heading)


def _titles(path: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(title for _, title in path[-limits.DOCUMENT_HEADINGS_MAX :])


def _alone(heading: Block | None) -> list[_Piece]:
    """A heading beneath which nothing stands is all that there is to be said."""
    assert heading is not None
    return [_piece(heading, heading.text, heading.first, heading.last)]


def _section(path: tuple[str, ...], pieces: list[_Piece]) -> Iterator[Passage]:
    """As many pieces to a passage as come near the target."""
    held: list[_Piece] = []
    size_bytes = 0
    for piece in pieces:
        if held and _is_full(held[-1], size_bytes, piece):
            yield _passage(path, held)
            held, size_bytes = [], 0
        held.append(piece)
        size_bytes += piece.size_bytes
    yield _passage(path, held)


def _is_full(last: _Piece, size_bytes: int, piece: _Piece) -> bool:
    together = size_bytes + piece.size_bytes
    if together > limits.PASSAGE_SIZE_BYTES_MAX:
        return True
    if size_bytes < limits.PASSAGE_SIZE_BYTES_TARGET // 2:
        return False
    # Of long rows of equals it is their text that says where to part them: a row that is put in
    # between then moves one border, and not all that follow.
    if last.kind == piece.kind == "row":
        return hashlib.sha256(last.text.encode()).digest()[0] % 4 == 0
    return together > limits.PASSAGE_SIZE_BYTES_TARGET


def _passage(path: tuple[str, ...], pieces: list[_Piece]) -> Passage:
    body = pieces[0].text
    for before, piece in pairwise(pieces):
        glue = _JOINED.get(piece.kind, "\n\n") if before.kind == piece.kind else "\n\n"
        body += glue + piece.text
    headings = " > ".join(path)
    alone = len(pieces) == 1 and pieces[0].kind == "heading"
    text = headings if alone else f"{headings}\n\n{body}" if headings else body
    return Passage(text=text, place=_place(headings, pieces))


def _place(headings: str, pieces: list[_Piece]) -> str:
    where = []
    lines = [line for piece in pieces for line in (piece.first, piece.last) if line]
    pages = [piece.page for piece in pieces if piece.page]
    if pages:
        where.append(_span("p.", "pp.", min(pages), max(pages)))
    if lines:
        where.append(_span("line", "lines", min(lines), max(lines)))
    said = ", ".join(where)
    room = limits.RECORD_FIELD_CHARS_MAX - len(said) - 3
    if len(headings) > room:
        headings = "…" + headings[-room:]
    return ", ".join(part for part in (headings, said) if part)


def _span(one: str, many: str, first: int, last: int) -> str:
    return f"{one} {first}" if first == last else f"{many} {first}-{last}"


# --- what is too long ------------------------------------------------------------------------


def _cut(block: Block) -> Iterator[_Piece]:
    """The block whole where it fits; else by lines or sentences, and only then anywhere."""
    if len(block.text.encode()) <= limits.PASSAGE_SIZE_BYTES_MAX:
        yield _piece(block, block.text, block.first, block.last)
    elif block.kind in _BY_LINES:
        yield from _by_lines(block)
    else:
        yield from _by_sentences(block)


def _by_lines(block: Block) -> Iterator[_Piece]:
    lines = block.text.split("\n")
    head = _head(block, lines)
    above = "\n".join(head) + "\n" if head else ""
    room = limits.PASSAGE_SIZE_BYTES_TARGET - len(above.encode())
    held: list[str] = []
    size_bytes, first = 0, len(head)
    for number, line in enumerate(lines[len(head) :], len(head)):
        for part in _anywhere(line, room):
            length = len(part.encode()) + 1
            if held and size_bytes + length > room:
                yield _piece(block, above + "\n".join(held), *_lines(block, first, number))
                held, size_bytes, first = [], 0, number
            held.append(part)
            size_bytes += length
    if held:
        yield _piece(block, above + "\n".join(held), *_lines(block, first, len(lines)))


def _head(block: Block, lines: list[str]) -> list[str]:
    """The names of a table's columns, unless they are long themselves."""
    if block.kind != "table":
        return []
    ruled = len(lines) > 1 and set(lines[1]) <= set("|-: \t")
    head = lines[: _HEAD_LINES if ruled else 1]
    size_bytes = sum(len(line.encode()) for line in head)
    return head if size_bytes <= limits.PASSAGE_SIZE_BYTES_TARGET // 4 else []


def _lines(block: Block, first: int, last: int) -> tuple[int, int]:
    """Of the file: `first` and `last` are places in the block, the last exclusive."""
    if not block.first:
        return 0, 0
    begin = min(block.first + first, block.last)
    return begin, max(begin, min(block.first + last - 1, block.last))


def _by_sentences(block: Block) -> Iterator[_Piece]:
    """Each part begins with the end of the one before."""
    text, target = block.text, limits.PASSAGE_SIZE_BYTES_TARGET
    ends = [found.end() for found in _SENTENCE.finditer(text)] + [len(text)]
    start = begin = 0
    sentences: list[str] = []
    for end in ends:
        sentences.extend(_anywhere(text[start:end], target - limits.PASSAGE_OVERLAP_BYTES))
        start = end
    held: list[str] = []
    size_bytes = place = 0
    for sentence in sentences:
        length = len(sentence.encode())
        if held and size_bytes + length > target:
            said = "".join(held)
            yield _piece(block, said.strip(), *_spot(block, begin, place))
            held = _overlap(held)
            size_bytes = sum(len(one.encode()) for one in held)
            begin = place - sum(map(len, held))
        held.append(sentence)
        size_bytes += length
        place += len(sentence)
    yield _piece(block, "".join(held).strip(), *_spot(block, begin, len(text)))


def _spot(block: Block, begin: int, end: int) -> tuple[int, int]:
    """The lines between two places of the text."""
    return _lines(
        block, block.text.count("\n", 0, begin), block.text.count("\n", 0, max(end - 1, 0)) + 1
    )


def _overlap(held: list[str]) -> list[str]:
    """The last sentences that fit into it."""
    room, kept = limits.PASSAGE_OVERLAP_BYTES, 0
    for sentence in reversed(held):
        room -= len(sentence.encode())
        if room < 0:
            break
        kept += 1
    return held[len(held) - kept :] if kept < len(held) else []


def _anywhere(text: str, size_bytes: int) -> Iterator[str]:
    """In parts of so many bytes at most, none of them in the middle of a character."""
    data = text.encode()
    if len(data) <= size_bytes:
        yield text
        return
    start = 0
    while start < len(data):
        end = min(start + size_bytes, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        space = data.rfind(b" ", start + size_bytes // 2, end)
        if space > 0 and end < len(data):
            end = space + 1
        yield data[start:end].decode()
        start = end


def _piece(block: Block, text: str, first: int, last: int) -> _Piece:
    return _Piece(
        kind=block.kind,
        text=text,
        size_bytes=len(text.encode()),
        page=block.page,
        first=first,
        last=last,
    )
