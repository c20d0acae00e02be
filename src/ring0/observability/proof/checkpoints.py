"""Checkpoints (https://c2sp.org/tlog-checkpoint) and receipts (https://c2sp.org/tlog-proof). Pure.

A checkpoint is a signed note: the log's name, its size, its root. A receipt is an inclusion proof
with the checkpoint that it leads to.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Final

from ring0 import limits
from ring0.observability.proof import proofs
from ring0.observability.proof.notes import (
    Key,
    NoteWrong,
    Signed,
    decoded,
    is_name,
    open_note,
    text_of,
)
from ring0.store import merkle
from ring0.types import Frozen

RECEIPT: Final = "c2sp.org/tlog-proof@v1"
CUT_OFF: Final = "— ring0.local/cut-off AAAAAAA=\n"
"""After what a crash left of a checkpoint in a file of them: who adds the next one says so."""


class Checkpoint(Frozen, frozen=True, kw_only=True):
    """What a log said of itself."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Receipt(Frozen, frozen=True, kw_only=True):
    """That one entry is in a log."""

    index: int
    proof: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        lines = [RECEIPT, f"index {self.index}", *map(encoded, self.proof)]
        return "\n".join(lines) + "\n\n" + self.note


def encoded(one: bytes) -> str:
    return base64.b64encode(one).decode()


def read_text(text: str) -> Checkpoint:
    """From a note's text; lines after the third are let be, as the page says. Raises NoteWrong."""
    lines = text.split("\n")
    if len(lines) < 4 or not is_name(lines[0]):
        raise _none()
    origin, size, root = lines[0], lines[1], decoded(lines[2])
    if not is_number(size) or len(root) != proofs.HASH_BYTES:
        raise _none()
    if size == "0" and root != merkle.EMPTY_ROOT:
        raise _none()
    return Checkpoint(origin=origin, size=int(size), root=root)


def said_in(note: str) -> Checkpoint:
    """What a note says, whoever signed it. Raises NoteWrong."""
    return read_text(text_of(note))


def open_checkpoint(note: str, trusted: Sequence[Key]) -> tuple[Checkpoint, Signed]:
    """Raises NoteWrong. The log's own key is among those that signed: a witness alone vouches for
    no more than that it saw it."""
    signed = open_note(note, trusted)
    found = read_text(signed.text)
    if not any(key.name == found.origin for key in signed.by):
        raise NoteWrong(
            "A checkpoint does not hold.",
            why=f"No key of the log {found.origin[:120]} has signed it.",
            todo="Give the key of that log.",
        )
    return found, signed


def is_number(text: str) -> bool:
    """A decimal without needless zeroes, that fits 63 bits."""
    plain = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    return plain and len(text) <= 19 and int(text) < 1 << 63


def notes_in(text: str) -> Iterator[str]:
    """The notes that stand one after the other in a file; what a crash cut off is passed over."""
    kept: list[str] = []
    signed = False
    for line in text.splitlines(keepends=True):
        if signed and not line.startswith("— "):
            yield "".join(kept)
            kept, signed = [], False
        if line == CUT_OFF:
            kept, signed = [], False
            continue
        if line != "\n" or kept:
            kept.append(line)
        signed = signed or line.startswith("— ")
    if kept and kept[-1].endswith("\n"):
        yield "".join(kept)


def read_receipt(text: str) -> Receipt:
    """Raises NoteWrong."""
    if len(text) > limits.NOTE_SIZE_BYTES_MAX + 64 * 64:
        raise _no_receipt()
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != RECEIPT:
        raise _no_receipt()
    rest = lines[2:] if len(lines) > 1 and lines[1].startswith("extra ") else lines[1:]
    if not rest or not rest[0].startswith("index ") or len(rest) > 64:
        raise _no_receipt()
    number = rest[0].removeprefix("index ")
    steps = tuple(map(decoded, rest[1:]))
    if not is_number(number) or any(len(step) != proofs.HASH_BYTES for step in steps):
        raise _no_receipt()
    return Receipt(index=int(number), proof=steps, note=note)


def check_receipt(receipt: Receipt, entry: bytes, trusted: Sequence[Key]) -> Checkpoint:
    """That these exact bytes are in the log. Raises NoteWrong, ProofWrong."""
    found, _ = open_checkpoint(receipt.note, trusted)
    proofs.check_inclusion(
        receipt.index, found.size, merkle.leaf_hash(entry), receipt.proof, found.root
    )
    return found


def _none() -> NoteWrong:
    return NoteWrong(
        "A note is no checkpoint.",
        why="A checkpoint says a log's name, its size and its root, a line each.",
        todo="Take the file that `ring0 audit checkpoint` printed.",
    )


def _no_receipt() -> NoteWrong:
    return NoteWrong(
        "This is no receipt.",
        why=f"One begins with {RECEIPT}, an index and a proof.",
        todo="Take the file that `ring0 audit prove` printed.",
    )
