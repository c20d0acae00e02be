"""The words for documents that are ingested: what is asked, what came of it, what is listed."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.memory import documents
from ring0.types import (
    Confidentiality,
    Frozen,
    Integrity,
    Label,
    Record,
    Scope,
)

CARD: Final = "document"
"""The role of a card."""
PASSAGE: Final = "passage"
SOURCE: Final = "document:"
"""How the source of a document begins in labels. Its name can be forgotten, and labels stand in
events: behind this comes a digest of it."""
FORM: Final = 1
"""Raised when the same file makes other passages than before: it is then read anew."""


class Card(Frozen, frozen=True, kw_only=True):
    """What is known of the file that a document was made of last: the text of its card."""

    digest: str
    """SHA-256 of the file."""
    size_bytes: int
    parser: str
    passages: int
    form: int
    note: str = ""


class Order(Frozen, frozen=True, kw_only=True):
    """What an operator wants ingested, and how far it is to be believed."""

    scope: Scope
    name: str
    by: str
    trusted: bool = False
    private: bool = False
    note: str = ""


class Ingested(Frozen, frozen=True, kw_only=True):
    """What became of one file."""

    document: str
    state: Literal["new", "changed", "unchanged"]
    digest: str
    size_bytes: int
    passages: int
    written: int = 0
    kept: int = 0
    superseded: int = 0
    source: str
    label: Label
    act: str = ""
    """Empty: nothing was written."""
    receipt: str = ""
    """Of what was forgotten of it; empty: nothing was."""
    forgotten: int = 0


class Document(Frozen, frozen=True, kw_only=True):
    """A document as it is listed."""

    document: str
    principal: str
    agent: str
    digest: str
    size_bytes: int
    parser: str
    passages: int
    label: Label
    source: str
    at_us: int
    by: str
    act: str
    note: str = ""


def check_name(name: str) -> None:
    """Raises InvalidInput for what no document can be called."""
    if not name or len(name) > limits.DOCUMENT_NAME_CHARS_MAX or documents.clean(name) != name:
        raise InvalidInput(
            f"{documents.shown(name)[:80]!r} can't be the name of a document.",
            why=f"It has 1 to {limits.DOCUMENT_NAME_CHARS_MAX} characters, all of which are seen.",
            todo="Say another one: `--as NAME`.",
        )
    if "\n" in name or "\t" in name or name != name.strip():
        raise InvalidInput(
            f"{documents.shown(name)[:80]!r} can't be the name of a document.",
            why="It is a single line, without blanks around it.",
            todo="Say another one: `--as NAME`.",
        )


def too_large(size_bytes: int) -> InvalidInput:
    return InvalidInput(
        f"The file is too large: {size_bytes:,} bytes or more.",
        why=f"No more than {limits.DOCUMENT_SIZE_BYTES_MAX:,} are read of one.",
        todo="Split it.",
    )


def source_of(label: Label) -> str:
    """The document among the sources of its label."""
    return next((one for one in label.sources if one.startswith(SOURCE)), "")


def label_of(order: Order, source: str) -> Label:
    integrity = Integrity.USER if order.trusted else Integrity.UNTRUSTED
    private = Confidentiality.PRIVATE if order.private else Confidentiality.PUBLIC
    sources = (order.by, source) if order.trusted else (source,)
    return Label(integrity=integrity, confidentiality=private, sources=sources)


def unchanged(order: Order, row: Record, digest: str, label: Label) -> Ingested | None:
    """What there is to say where the file is as it was, and is believed as it was."""
    card = read_card(row)
    if card is None or (card.digest, card.form) != (digest, FORM) or row.label != label:
        return None
    return Ingested(
        document=order.name,
        state="unchanged",
        digest=digest,
        size_bytes=card.size_bytes,
        passages=card.passages,
        kept=card.passages,
        source=source_of(label),
        label=label,
    )


def read_card(row: Record) -> Card | None:
    if row.role != CARD:
        return None
    try:
        return msgspec.json.decode(row.text, type=Card)
    except msgspec.MsgspecError:
        return None


def listed(row: Record, card: Card) -> Document:
    return Document(
        document=row.document,
        principal=row.principal,
        agent=row.agent,
        digest=card.digest,
        size_bytes=card.size_bytes,
        parser=card.parser,
        passages=card.passages,
        label=row.label,
        source=source_of(row.label),
        at_us=row.at_us,
        by=row.by,
        act=row.act,
        note=card.note,
    )
