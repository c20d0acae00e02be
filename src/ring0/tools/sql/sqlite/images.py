"""Row images: what a statement changed in a SQLite database, row by row, and how it is taken back.

The engine's preupdate hook reports every row; nothing here reads SQL. `engine.py` runs the
statements and owns the transactions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import apsw
import msgspec

from ring0 import errors, limits
from ring0.tools.sql.plan import RowSample, TableChange

Value = None | int | float | str | bytes
Row = tuple[Value, ...]
Place = tuple[str, Row]
"""A table and a key in it."""

SAMPLE_ROWS_MAX: Final = 5
SAMPLE_VALUE_CHARS_MAX: Final = 80
IMAGES_VERSION: Final = 1
_ROWID_NAMES: Final = ("rowid", "_rowid_", "oid")


class Table(msgspec.Struct, frozen=True):
    """What of a table's form is needed to see and restore its rows."""

    name: str
    kind: str
    """table, virtual or shadow."""
    columns: tuple[str, ...]
    """The columns that are stored, in order: those of a row image."""
    written: tuple[int, ...]
    """Places in `columns` that a statement may write: all but the generated ones."""
    key: tuple[int, ...]
    """Places of the primary key in a WITHOUT ROWID table; empty where the rowid is the key."""
    rowid_name: str
    """A name that reaches the rowid; empty where columns have taken all three."""
    blind: bool
    """It has virtual generated columns: the hook tells which rows change, not how they look."""


class Image(msgspec.Struct, frozen=True, array_like=True):
    """One row of a key before and after the statement; None where there was, or is, none."""

    table: str
    key: tuple[Any, ...]
    before: tuple[Any, ...] | None
    after: tuple[Any, ...] | None


class Images(msgspec.Struct, frozen=True, array_like=True):
    version: int
    columns: dict[str, tuple[str, ...]]
    rows: list[Image]


def quoted(name: str) -> str:
    """A name as SQL text."""
    return '"' + name.replace('"', '""') + '"'


def read_tables(db: apsw.Connection) -> dict[str, Table]:
    """The form of every table, read inside the transaction that relies on it."""
    listed = list(
        db.execute(
            "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND type <> 'view'"
        )
    )
    return {name: _read_table(db, name, kind, bool(no_rowid)) for name, kind, no_rowid in listed}


def _read_table(db: apsw.Connection, name: str, kind: str, no_rowid: bool) -> Table:
    info = list(db.execute("SELECT name, pk, hidden FROM pragma_table_xinfo(?)", (name,)))
    stored = [(column, pk, hidden) for column, pk, hidden in info if hidden != 2]
    taken = {str(column).lower() for column, _, _ in info}
    key = sorted((pk, place) for place, (_, pk, _) in enumerate(stored) if pk)
    return Table(
        name=name,
        kind=kind,
        columns=tuple(str(column) for column, _, _ in stored),
        written=tuple(place for place, (_, _, hidden) in enumerate(stored) if hidden == 0),
        key=tuple(place for _, place in key) if no_rowid else (),
        rowid_name=next((n for n in _ROWID_NAMES if n not in taken), ""),
        blind=any(hidden == 2 for _, _, hidden in info),
    )


class Recorder:
    """The preupdate hook of one run: counts, digests and keeps what changed."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._counts: dict[str, Counter[str]] = {}
        self._digests: list[bytes] = []
        self._net: dict[tuple[str, Row], tuple[Row | None, Row | None]] = {}
        self._samples: dict[str, list[tuple[str, Row | None, Row | None]]] = {}
        self._size_bytes = 0
        self.unseen: dict[Place, None] = {}
        """Changed rows of blind tables, in the order met."""
        self.stopped: errors.Ring0Error | None = None
        self.why_irreversible = ""

    def __call__(self, change: apsw.PreUpdate) -> None:
        if self.stopped is not None:
            return
        try:
            self._take(change)
        except errors.Ring0Error as error:
            # An exception in a hook doesn't end the statement; an interrupt does.
            self.stopped = error
            change.connection.interrupt()

    def _take(self, change: apsw.PreUpdate) -> None:
        if len(self._digests) >= limits.SQL_ROWS_CHANGED_MAX:
            raise errors.LimitReached(
                f"The statement changes more than {limits.SQL_ROWS_CHANGED_MAX} rows.",
                why="Cascades and triggers count. Nothing was changed.",
                todo="Change the rows in smaller parts, with a narrower WHERE.",
            )
        name, op = change.table_name, change.op
        table = self._tables.get(name)
        if table is None or change.blob_write >= 0:
            raise errors.CallDenied(
                f"The statement changes {name!r} in a way that can't be seen row by row."
            )
        old, new = (None, None) if table.blind else _images_of(table, change)
        key_after = change.rowid_new if op == "UPDATE" else change.rowid
        old_key = None if op == "INSERT" else _key_of(table, change.rowid, old)
        new_key = None if op == "DELETE" else _key_of(table, key_after, new)
        encoded = msgspec.msgpack.encode((name, op, old_key, new_key, old, new))
        self._digests.append(hashlib.sha256(encoded).digest())
        self._counts.setdefault(name, Counter())[op] += 1
        self._size_bytes += len(encoded)
        if table.blind:
            self._note_unseen(table, old_key, new_key)
            return
        samples = self._samples.setdefault(name, [])
        if len(samples) < SAMPLE_ROWS_MAX:
            samples.append((op, old, new))
        self._keep(table, old_key, new_key, old, new)

    def _note_unseen(self, table: Table, *keys: Row | None) -> None:
        if table.key or not table.rowid_name:
            raise errors.CallDenied(
                f"Rows of {table.name} can't be seen when they change.",
                why="It has a virtual generated column and no rowid, and the engine then tells "
                "neither which rows change nor how.",
                todo="Make that column STORED.",
            )
        self.unseen.update({(table.name, key): None for key in keys if key is not None})
        if len(self.unseen) > limits.SQL_ROWS_REVERSIBLE_MAX:
            raise errors.LimitReached(
                f"The statement changes more than {limits.SQL_ROWS_REVERSIBLE_MAX} rows of tables "
                "that have virtual generated columns.",
                todo="Change the rows in smaller parts, with a narrower WHERE.",
            )

    def look(self, db: apsw.Connection) -> dict[Place, Row | None]:
        """The rows that the hook could not show, as they are now."""
        looks: dict[Place, Row | None] = {}
        for name, key in self.unseen:
            row = row_at(db, self._tables[name], key)
            looks[name, key] = row
            self._size_bytes += len(msgspec.msgpack.encode(row))
            if self._size_bytes > limits.BLOB_SIZE_BYTES_MAX:
                raise errors.LimitReached(
                    f"The rows it changes take more than {limits.BLOB_SIZE_BYTES_MAX} bytes.",
                    todo="Change the rows in smaller parts, with a narrower WHERE.",
                )
        return looks

    def fill(self, before: Mapping[Place, Row | None], after: Mapping[Place, Row | None]) -> None:
        """Add the rows that the hook could not show, looked at before and after the statement."""
        assert before.keys() == after.keys() == self.unseen.keys()
        for place, old in before.items():
            new = after[place]
            encoded = msgspec.msgpack.encode((place, old, new))
            self._digests.append(hashlib.sha256(encoded).digest())
            if not self.why_irreversible:
                self._net[place] = (old, new)
            samples = self._samples.setdefault(place[0], [])
            if len(samples) < SAMPLE_ROWS_MAX and (old is not None or new is not None):
                op = "INSERT" if old is None else "DELETE" if new is None else "UPDATE"
                samples.append((op, old, new))

    def _keep(
        self,
        table: Table,
        old_key: Row | None,
        new_key: Row | None,
        old: Row | None,
        new: Row | None,
    ) -> None:
        if self.why_irreversible:
            return
        self.why_irreversible = self._why_not(table)
        if self.why_irreversible:
            self._net.clear()
            return
        # The net effect on each key: undoing it needs no order, so no transient conflicts.
        if old_key is not None:
            place = (table.name, old_key)
            before = self._net[place][0] if place in self._net else old
            self._net[place] = (before, None)
        if new_key is not None:
            place = (table.name, new_key)
            self._net[place] = (self._net[place][0] if place in self._net else None, new)

    def _why_not(self, table: Table) -> str:
        if table.kind != "table":
            return f"it changes {table.name}, which belongs to a virtual table"
        if not table.key and not table.rowid_name:
            return f"the rowid of {table.name} can't be named: columns have taken its names"
        if len(self._digests) > limits.SQL_ROWS_REVERSIBLE_MAX:
            return f"it changes more than {limits.SQL_ROWS_REVERSIBLE_MAX} rows"
        if self._size_bytes > limits.BLOB_SIZE_BYTES_MAX:
            return f"the rows it changes take more than {limits.BLOB_SIZE_BYTES_MAX} bytes"
        return ""

    def changes(self) -> tuple[TableChange, ...]:
        """Rows changed, by table, sorted by name."""
        return tuple(
            TableChange(name, count["INSERT"], count["UPDATE"], count["DELETE"])
            for name, count in sorted(self._counts.items())
        )

    def digest(self) -> str:
        """SHA-256 over the sorted digests of all row changes: the order of execution is no part."""
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()

    def images(self) -> bytes:
        """Net row images, canonical: equal digests give equal bytes."""
        net = [
            Image(name, key, before, after)
            for (name, key), (before, after) in self._net.items()
            if not same(before, after)
        ]
        net.sort(key=msgspec.msgpack.encode)
        names = sorted({image.table for image in net})
        columns = {name: self._tables[name].columns for name in names}
        return msgspec.msgpack.encode(Images(IMAGES_VERSION, columns, net))

    def samples(self) -> tuple[RowSample, ...]:
        """Up to five rows of each table."""
        return tuple(
            _sample(self._tables[name], *row)
            for name, rows in sorted(self._samples.items())
            for row in rows
        )


def _images_of(table: Table, change: apsw.PreUpdate) -> tuple[Row | None, Row | None]:
    try:
        old, new = change.old, change.new
    except UnicodeDecodeError:
        raise _not_utf8(table) from None
    return old, new


def _not_utf8(table: Table) -> errors.CallDenied:
    return errors.CallDenied(
        f"A row of {table.name} holds text that is not UTF-8.",
        why="It could not be shown, nor restored exactly.",
        todo="Mend the row first, with a program that you trust.",
    )


def key_condition(table: Table) -> str:
    """SQL that finds one key; its values are bound in order."""
    if not table.key:
        return f"{table.rowid_name} = ?"
    # Finer than any collation that the key may have: it never finds a second row.
    return " AND ".join(f"{quoted(table.columns[p])} COLLATE BINARY = ?" for p in table.key)


def row_at(db: apsw.Connection, table: Table, key: Row) -> Row | None:
    """The stored columns of one row as they are now."""
    columns = ", ".join(quoted(column) for column in table.columns)
    try:
        found = list(
            db.execute(
                f"SELECT {columns} FROM main.{quoted(table.name)} WHERE {key_condition(table)}",
                key,
            )
        )
    except UnicodeDecodeError:
        raise _not_utf8(table) from None
    assert len(found) <= 1, "a key names one row"
    return found[0] if found else None


def _key_of(table: Table, rowid: int, row: Row | None) -> Row:
    if not table.key or row is None:
        return (rowid,)
    return tuple(row[place] for place in table.key)


def same(one: Row | None, other: Row | None) -> bool:
    """Equal in every type and value: the engine's IS holds 1 and 1.0, or 'a' and 'A', for equal."""
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and all(
        type(a) is type(b) and a == b for a, b in zip(one, other, strict=True)
    )


def short(value: Value) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > SAMPLE_VALUE_CHARS_MAX:
        return f"{value[:SAMPLE_VALUE_CHARS_MAX]}… ({len(value)} characters)"
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _sample(table: Table, op: str, old: Row | None, new: Row | None) -> RowSample:
    row = old if old is not None else new
    assert row is not None
    changed: dict[str, Any] = {}
    if old is not None and new is not None:
        changed = {
            column: short(b)
            for column, a, b in zip(table.columns, old, new, strict=True)
            if not same((a,), (b,))
        }
    shown = {column: short(value) for column, value in zip(table.columns, row, strict=True)}
    return RowSample(table.name, op, shown, changed)
