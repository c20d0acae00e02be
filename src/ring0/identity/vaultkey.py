"""The vault's own key: a file that only its owner reads, beside what it opens.

While the key is changed the file holds two, the old and the new: whatever the vault's file is
sealed under just then, its key is there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.identity.envelope import KEY_BYTES
from ring0.identity.keyfile import damaged, read_private, write_private
from ring0.runtime import Runtime

KEY_FILE: Final = "vault.key"


_FROM_A_COPY: Final = (
    "Put it back from a copy. Without it nobody opens the secrets: move vault.json and vault.key"
    " away, and set them again."
)


class KeyLost(StoreDamaged):
    """The vault's file is there, and its key is not."""


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key and its name, which says nothing about it."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"Key({self.id!r})"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    keys: list[Key]

    def __repr__(self) -> str:
        return f"keys({', '.join(key.id for key in self.keys)})"


def make(runtime: Runtime) -> Key:
    """A new one, on no disk yet."""
    key = runtime.random_bytes(KEY_BYTES)
    return Key(hashlib.sha256(b"ring0 vault key" + key).hexdigest()[:16], key)


def read(home: Path) -> tuple[Key, ...]:
    """Those that are there; empty where there is no file. Raises StoreDamaged."""
    path = home / KEY_FILE
    content = read_private(path, limits.VAULT_KEY_FILE_SIZE_BYTES_MAX)
    if content is None:
        return ()
    try:
        found = msgspec.json.decode(content, type=_File)
    except msgspec.MsgspecError:  # Its message could quote the key.
        raise damaged(path, "it is not what ring0 wrote", _FROM_A_COPY) from None
    if found.version != 1 or any(len(key.key) != KEY_BYTES for key in found.keys):
        raise damaged(path, "it is not what this ring0 writes", _FROM_A_COPY)
    return tuple(found.keys)


def write(home: Path, keys: tuple[Key, ...]) -> None:
    """On disk when this returns. Raises StoreDamaged."""
    write_private(home / KEY_FILE, msgspec.json.encode(_File(version=1, keys=list(keys))))


def lost(home: Path, key_id: str) -> KeyLost:
    """The vault is sealed under a key that is not there."""
    return KeyLost(
        "The vault is not opened.",
        why=f"{home / KEY_FILE} does not hold {key_id[:16]!r}, the key that seals it.",
        todo=_FROM_A_COPY,
    )
