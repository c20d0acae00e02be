"""Rows of the embedded store: how a struct of types.py lies in its table, and comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import msgspec

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
            self._db.execute(sql.PUT[table], (key, *_columns(table, row), encode(row)))

    def _put_episode(self, key: str, row: Episode) -> None:
        value = self.scope_blobs.get(row.text)
        if value is None:
            value = first(self._db, sql.BLOB, (row.text,))[0]
        text = value.decode()
        run: Run = self.get("run", row.run)
        scope = (run.tenant, run.principal, run.agent)
        # The number of words stands in for the index's own count: near enough for a length norm.
        self._db.execute(sql.ADD_EPISODE, (key, *scope, len(text.split()), text, encode(row)))
        self._db.execute(sql.ADD_EPISODE_TEXT, (self._db.last_insert_rowid(), text))


def _columns(table: str, row: Any) -> tuple[Any, ...]:
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
