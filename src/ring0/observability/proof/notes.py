"""Signed notes of C2SP (https://c2sp.org/signed-note): keys, signatures, reading with care. Pure.

Ed25519 (type 1), and cosignatures of witnesses (type 4, https://c2sp.org/tlog-cosignature). The
same bytes as Go's `golang.org/x/mod/sumdb/note` writes and reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import VerifyFailed
from ring0.types import Frozen

if TYPE_CHECKING:  # It takes a while to load, and most commands neither sign nor check.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519: Final = 1
COSIGNATURE: Final = 4
_DASH: Final = "— "


class NoteWrong(VerifyFailed):
    """A note that can't be read, or that nobody signed who is trusted."""

    code = "note_wrong"


class Key(Frozen, frozen=True, kw_only=True):
    """A key that is trusted, or only named."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that go with the name; no proof of anything."""
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(named).digest()[:4]

    def __str__(self) -> str:
        """As Go and C2SP write it: NAME+ID+BASE64."""
        public = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{public}"


class Signed(Frozen, frozen=True, kw_only=True):
    """A note that was read; `by` says who really signed it."""

    text: str
    """With its last newline."""
    by: tuple[Key, ...]
    times_s: tuple[int, ...] = ()
    """Of witnesses, when each of them signed (0: of no witness)."""


def read_key(text: str) -> Key:
    """From NAME+ID+BASE64. Raises NoteWrong."""
    name, _, rest = text.strip().partition("+")
    ident, _, encoded = rest.partition("+")
    public = decoded(encoded)
    if not is_name(name) or len(public) != 33 or public[0] not in (ED25519, COSIGNATURE):
        raise _bad_key(text)
    key = Key(name=name, kind=public[0], public=public[1:])
    if key.id.hex() != ident:
        raise _bad_key(text)
    return key


def is_name(name: str) -> bool:
    """Of keys and of logs."""
    return (
        0 < len(name) <= limits.NOTE_NAME_CHARS_MAX
        and "+" not in name
        and name.isprintable()
        and not any(each.isspace() for each in name)
    )


def public_of(name: str, private: Ed25519PrivateKey) -> Key:
    return Key(name=name, kind=ED25519, public=private.public_key().public_bytes_raw())


def sign(text: str, signers: Sequence[tuple[str, Ed25519PrivateKey]]) -> str:
    """A note, signed by each."""
    assert text.endswith("\n") and _is_clean(text), "a note is lines"
    lines = []
    for name, private in signers:
        signature = public_of(name, private).id + private.sign(text.encode())
        lines.append(f"{_DASH}{name} {base64.b64encode(signature).decode()}\n")
    return text + "\n" + "".join(lines)


def open_note(note: str, trusted: Sequence[Key]) -> Signed:
    """The text, if one of the trusted keys signed it and none of theirs is wrong. Raises NoteWrong.

    Signatures of others are passed over, as the page says.
    """
    if len(note.encode("utf-8", "replace")) > limits.NOTE_SIZE_BYTES_MAX:
        raise _wrong("it is too large")
    text, tail = text_of(note), note.rpartition("\n\n")[2]
    if not text.strip() or not tail.endswith("\n") or not _is_clean(note):
        raise _wrong("it is no note")
    lines = tail[:-1].split("\n")
    if len(lines) > limits.NOTE_SIGNATURES_MAX:
        raise _wrong("it has too many signatures")
    known = {(key.name, key.id): key for key in trusted}
    found: dict[Key, int] = {}
    for line in lines:
        name, signature = _signature(line)
        key = known.get((name, signature[:4]))
        if key is not None and key not in found:
            found[key] = _check(text, key, signature[4:])
    if not found:
        raise _wrong("no key that is trusted has signed it")
    return Signed(text=text, by=tuple(found), times_s=tuple(found.values()))


def text_of(note: str) -> str:
    """What is signed: all before the last empty line, with its newline."""
    return note.rpartition("\n\n")[0] + "\n"


def signature_lines(tail: str) -> list[str]:
    """The lines of a witness's answer that are signatures. Raises NoteWrong."""
    lines = tail.splitlines()[: limits.NOTE_SIGNATURES_MAX]
    for line in lines:
        _signature(line)
    return lines


def _signature(line: str) -> tuple[str, bytes]:
    """Raises NoteWrong."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = decoded(encoded)
    if not line.startswith(_DASH) or not is_name(name) or len(signature) < 5:
        raise _wrong("it has a line that is no signature")
    return name, signature


def _check(text: str, key: Key, signature: bytes) -> int:
    """When a witness signed it; else 0. Raises NoteWrong."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    time_s, signed = 0, text.encode()
    if key.kind == COSIGNATURE:
        time_s = int.from_bytes(signature[:8], "big")
        signature = signature[8:]
        signed = f"cosignature/v1\ntime {time_s}\n".encode() + signed
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, signed)
    except (InvalidSignature, ValueError):
        raise _wrong(f"what {key.name} is said to have signed is not what stands there") from None
    return time_s


def decoded(encoded: str) -> bytes:
    """Strict base64; empty: it is none."""
    try:
        found = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if base64.b64encode(found).decode() == encoded else b""


def _is_clean(text: str) -> bool:
    return all(letter == "\n" or letter >= " " for letter in text)


def _bad_key(text: str) -> NoteWrong:
    return NoteWrong(
        f"{text.strip()[:120]!r} is no key.",
        why="A key is NAME+ID+BASE64, in one word.",
        todo="`ring0 audit key` prints that of this folder.",
    )


def _wrong(why: str) -> NoteWrong:
    return NoteWrong(
        "A checkpoint does not hold.",
        why=f"{why[0].upper()}{why[1:]}.",
        todo="Take another copy of it, or the key that signed it.",
    )
