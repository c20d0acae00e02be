"""Documents: which parser reads a file, what the parser in its sandbox said, and the passages made
of it. Not for running the parser or remembering the passages: kernel/memory/ingesting.py."""

from ring0.memory.documents.blocks import (
    NOT_INGESTED,
    Block,
    DocumentUnreadable,
    clean,
    read,
    shown,
    unreadable,
)
from ring0.memory.documents.formats import PARSERS, check, parser_of
from ring0.memory.documents.passages import Passage, passages_of

__all__ = [
    "NOT_INGESTED",
    "PARSERS",
    "Block",
    "DocumentUnreadable",
    "Passage",
    "check",
    "clean",
    "parser_of",
    "passages_of",
    "read",
    "shown",
    "unreadable",
]
