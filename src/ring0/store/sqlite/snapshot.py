"""One moment of a whole journal, read on a connection of its own: what verification looks at.

Everything comes from one read transaction, so that a kernel at work changes nothing under it.
Values are given as they lie on disk; whoever reads judges them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import apsw

from ring0.store import merkle
from ring0.store.rows import Head
from ring0.store.sqlite import recordsql, sql
from ring0.store.sqlite.tables import first, tree_of
from ring0.types import Owner


class Snapshot:
    """Reads one moment of the journal that `reader` reads. Use it in a `with`."""

    def __init__(self, reader: apsw.Connection, head_file: int) -> None:
        self.anchored = read_head(head_file)
        """What the head file says: read first, since it is written after the journal."""
        self._own = bool(reader.filename)
        """One in memory has no name to open it by: it is looked at through its reader."""
        self._db = _again(reader) if self._own else reader
        try:
            self._db.execute("BEGIN")
            first(self._db, sql.WHOSE)  # From here on nothing moves.
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._own:
            self._db.close()
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def tree(self) -> tuple[merkle.Tree, int]:
        """The tree as stored, and the seq of the kernel's last event. Raises ValueError."""
        return tree_of(self._db)

    def events(self) -> Iterator[tuple[int, str, int, bytes, bytes]]:
        """(index, run, seq, leaf hash, exact bytes), in the order of the log."""
        yield from self._db.execute(sql.ALL_EVENTS)

    def blobs(self) -> Iterator[tuple[str, int, bytes]]:
        """(address, form, value)."""
        yield from self._db.execute(sql.ALL_BLOBS)

    def lists(self) -> dict[str, bytes]:
        """What lies in parts: their addresses, by its own."""
        rows: list[Any] = self._db.execute(sql.LISTS).fetchall()
        return dict(rows)

    def blob(self, address: str) -> bytes | None:
        """A value that lies there whole."""
        found = first(self._db, sql.BLOB, (address,))
        return None if found is None or found[0] != sql.VALUE else bytes(found[1])

    def keys(self) -> dict[str, bytes]:
        """Every run's key."""
        rows: list[Any] = self._db.execute(sql.KEYS).fetchall()
        return dict(rows)

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """(key, JSON, the columns of `sql.COLUMNS`)."""
        yield from self._db.execute(sql.ALL_ROWS[table])

    # --- what SQLite knows of itself ------------------------------------------------------------

    def file_damage(self) -> Iterator[str]:
        """What SQLite finds wrong with the file: pages, orders, indexes that miss rows."""
        for (line,) in self._db.execute(sql.CHECK_FILE):
            if line != "ok":
                yield f"the file: {line}"

    def terms(self) -> Iterator[tuple[Any, ...]]:
        """(number, key, JSON, what it says, length, terms) of what is indexed; without a record:
        nothing where that would be."""
        yield from self._db.execute(recordsql.ALL_TERMS)

    def stray_vectors(self) -> Iterator[int]:
        """Numbers of vectors of no record, or of no model."""
        for (number,) in self._db.execute(recordsql.STRAY_VECTORS):
            yield int(number)

    def scope_keys(self) -> set[Owner]:
        """Whose facts and keys can be compared."""
        rows: list[Any] = self._db.execute(recordsql.SCOPE_KEYS).fetchall()
        return set(rows)

    def schema_changes(self) -> Iterator[str]:
        """Tables, indexes, triggers: a trigger that somebody planted would act on every write."""
        pattern = apsw.Connection(":memory:")
        pattern.execute(sql.SCHEMA).fetchall()
        wanted = set(pattern.execute(sql.SCHEMA_OBJECTS).fetchall())
        pattern.close()
        found = set(self._db.execute(sql.SCHEMA_OBJECTS).fetchall())
        for kind, name, _ in sorted(found - wanted, key=str):
            yield f"the schema: {kind} {name!r} is not what ring0 made"
        for kind, name, _ in sorted(wanted - found, key=str):
            yield f"the schema: {kind} {name!r} is missing or changed"


def _again(reader: apsw.Connection) -> apsw.Connection:
    connection = apsw.Connection(
        reader.filename, flags=apsw.SQLITE_OPEN_READONLY, vfs=reader.open_vfs or None
    )
    connection.set_busy_timeout(5_000)
    return connection


def read_head(head_file: int) -> Head | None:
    """What the head file says; None when there is none, or nothing that can be read."""
    if head_file < 0:
        return None
    words = os.pread(head_file, 200, 0).decode("ascii", "replace").split()
    if len(words) != 3 or words[0] != "ring0-head-v1":
        return None
    if len(words[1]) != 20 or not words[1].isdigit() or len(words[2]) != 64:
        return None
    return Head(size=int(words[1]), root=words[2])
