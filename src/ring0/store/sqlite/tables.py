"""Rows of the embedded store: how a struct of types.py lies in its table, and comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import msgspec

from ring0.store import merkle
from ring0.store.base import KillRow, SandboxRow
from ring0.store.sqlite import sql
from ring0.types import Approval, Call, Episode, File, Run

ROW_TYPES: dict[str, type[msgspec.Struct]] = {
    "run": Run,
    "call": Call,
    "approval": Approval,
    "file": File,
    "sandbox": SandboxRow,
    "kill": KillRow,
    "episode": Episode,
}

encode = msgspec.json.Encoder().encode
_decoders = {table: msgspec.json.Decoder(kind).decode for table, kind in ROW_TYPES.items()}


def decode(table: str, row: bytes) -> Any:
    return _decoders[table](row)


def first(db: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """The first row of a result, or None."""
    return db.execute(statement, values).fetchone()


def tree_of(db: apsw.Connection) -> tuple[merkle.Tree, int]:
    """The Merkle tree, and the seq of the kernel's last event. Raises ValueError: no tree."""
    found = first(db, sql.TREE)
    if found is None:
        raise ValueError("the tree's row is gone")
    size, peaks, kernel_seq = found
    if size < 0 or len(peaks) % 32:
        raise ValueError(f"{len(peaks)} bytes of peaks do not make a tree of {size} leaves")
    tree = merkle.Tree(size, [peaks[i : i + 32] for i in range(0, len(peaks), 32)])
    return tree, int(kernel_seq)


class SqliteTables:
    """`store.project.Tables` over one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self.scope_blobs: Mapping[str, bytes] = {}
        """The blobs of the write that is being projected."""

    def get(self, table: str, key: str) -> Any:
        found = first(self._db, sql.GET[table], (key,))
        return None if found is None else decode(table, found[0])

    def put(self, table: str, key: str, row: Any) -> None:
        if row is None:
            assert table == "file"
            self._db.execute(sql.REMOVE_FILE, (key,))
        elif table == "episode":
            self._put_episode(key, row)
        else:
            self._db.execute(sql.PUT[table], (key, *columns(table, row), encode(row)))

    def _put_episode(self, key: str, row: Episode) -> None:
        value = self.scope_blobs.get(row.text)
        if value is None:
            found = first(self._db, sql.BLOB, (row.text,))
            assert found is not None, f"{key!r} remembers a value that is not there"
            value = found[0]
        text = value.decode()
        run: Run = self.get("run", row.run)
        place = first(self._db, sql.NEXT_EPISODE)[0]
        # Indexed first: the score's length is the index's own count of tokens, not a guess at it.
        self._db.execute(sql.ADD_EPISODE_TEXT, (place, text))
        tokens = token_count(first(self._db, sql.EPISODE_TOKENS, (place,))[0])
        scope = (run.tenant, run.principal, run.agent)
        self._db.execute(sql.ADD_EPISODE, (place, key, *scope, tokens, text, encode(row)))


def token_count(size: bytes) -> int:
    """What FTS5 keeps of a text's length: one SQLite varint, big-endian, 7 bits a byte."""
    count = 0
    for byte in size:
        count = count << 7 | byte & 0x7F
    return count


def columns(table: str, row: Any) -> tuple[Any, ...]:
    """What lies beside a row, in the order of `sql.COLUMNS`; an episode's comes from its run."""
    match table:
        case "run":
            return (str(row.state), row.parent, row.root, row.started_us)
        case "call":
            return (row.run, row.seq, str(row.state))
        case "approval":
            return (row.run, str(row.state), row.asked_us)
        case "sandbox":
            return (int(row.ended),)
        case "kill":
            return (row.generation,)
        case _:
            return ()
