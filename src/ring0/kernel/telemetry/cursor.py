"""How far the journal was told to a receiver: a small file beside it, replaced whole.

It names the entry by its hash too. Where the journal is another one by then (it was put back from
an older copy), it is told from its beginning: a span that comes twice adds nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from ring0.store import Store

FILE: Final = "otlp.cursor"
NOTHING: Final = -1


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    index: int
    leaf: str


class Cursor:
    """Of one receiver, by its name: another one begins anew."""

    def __init__(self, home: Path, target: str) -> None:
        self._path = home / FILE
        self._target = target
        self.index = NOTHING

    def load(self, store: Store) -> None:
        """Where it stands by the file, if that is true of this journal."""
        self.index = NOTHING
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
        except (OSError, msgspec.DecodeError):
            return
        if kept.target != self._target or kept.index < 0:
            return
        rows = store.stored_after(kept.index - 1, 1)
        if rows and rows[0][0] == kept.index and rows[0][1].hex() == kept.leaf:
            self.index = kept.index

    def move(self, index: int, leaf: bytes) -> None:
        """Up to there all was told, whether that can be kept or not. Raises OSError."""
        try:
            self._keep(index, leaf)
        finally:
            self.index = index

    def _keep(self, index: int, leaf: bytes) -> None:
        body = msgspec.json.encode(_Stored(target=self._target, index=index, leaf=leaf.hex()))
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, body)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(self._path)
