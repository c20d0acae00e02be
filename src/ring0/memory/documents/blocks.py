"""What a parser in its sandbox said, read as if an enemy had written it: it may have.

Every block has a kind that is known, text without control characters, and numbers within bounds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.types import Frozen

Kind = Literal["heading", "paragraph", "list", "table", "code", "row"]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
_Text = Annotated[str, msgspec.Meta(max_length=limits.DOCUMENT_BLOCK_CHARS_MAX)]
_Row = tuple[Kind, _Text, _Number, _Number, _Number, _Number]
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Also what turns the direction of writing, and what nobody sees."""
_read = msgspec.json.Decoder(_Row).decode


NOT_INGESTED: Final = "was not ingested."


class DocumentUnreadable(InvalidInput):
    """A file that no passages can be made of."""

    code = "document_unreadable"


class Block(Frozen, frozen=True, kw_only=True):
    """A part of a document that is best kept whole."""

    kind: Kind
    text: str
    level: int = 0
    """Of a heading, from 1; one without text ends the headings of its level and beneath."""
    page: int = 0
    first: int = 0
    last: int = 0
    """Lines of the file, from 1; 0: not known."""


def read(name: str, said: bytes) -> list[Block]:
    """The blocks of a document. Raises DocumentUnreadable for what a parser could not read, and for
    what no parser of ours says."""
    lines = said.split(b"\n", limits.DOCUMENT_BLOCKS_MAX + 2)
    if len(lines) > limits.DOCUMENT_BLOCKS_MAX + 2:
        raise unreadable(
            name, f"it has more than {limits.DOCUMENT_BLOCKS_MAX:,} parts", "Split the file."
        )
    rows, last = lines[:-2], lines[-2] if len(lines) > 1 else b""
    if lines[-1]:
        raise unreadable(name, "its parser was cut off", _TODO)
    _check_end(name, last, len(rows))
    try:
        return [block for row in rows if (block := _block(_read(row))) is not None]
    except (msgspec.MsgspecError, UnicodeError):
        raise unreadable(name, "its parser said what no parser says", _TODO) from None


def unreadable(name: str, why: str, todo: str) -> DocumentUnreadable:
    return DocumentUnreadable(
        f"{shown(name)!r} was not ingested.",
        why=f"{why[:1].upper()}{why[1:].rstrip('.')}.",
        todo=todo,
    )


def shown(text: str) -> str:
    """A file's name or a parser's words in one line that does nothing to a terminal."""
    line = " ".join(clean(text).split())
    return line[: limits.DOCUMENT_FAULT_CHARS_MAX]


def clean(text: str) -> str:
    """Without what no reader sees."""
    return _CONTROL.sub("", text.encode("utf-8", "replace").decode())


_TODO: Final = "Look whether the file is damaged, or give its text as .txt or .md."


def _check_end(name: str, last: bytes, count: int) -> None:
    """The last line says that it is complete, or why it isn't."""
    try:
        said: Any = msgspec.json.decode(last)
    except (msgspec.MsgspecError, UnicodeError):
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), str):
        raise unreadable(name, shown(said["error"]) or "its parser does not say why", _TODO)
    if not isinstance(said, dict) or said.get("done") != count:
        raise unreadable(name, "its parser ended in the middle", _TODO)


def _block(row: _Row) -> Block | None:
    kind, text, level, page, first, last = row
    text = clean(text)
    if kind == "heading":
        text = " ".join(text.split())[: limits.DOCUMENT_HEADING_CHARS_MAX]
    elif not text.strip():
        return None
    level = min(max(level, 1), 9) if kind == "heading" else 0
    last = max(first, last)
    return Block(kind=kind, text=text, level=level, page=page, first=first, last=last)
