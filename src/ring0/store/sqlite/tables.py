"""Rows of the embedded store: how a struct of types.py lies in its table, and comes back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw
import msgspec

from ring0 import limits
from ring0.store import merkle
from ring0.store.base import Write
from ring0.store.events import Remembered
from ring0.store.lists import Listed
from ring0.store.records import RecordBody, body_of
from ring0.store.remembering import ACT
from ring0.store.rows import (
    ArchiveRow,
    CapRow,
    ChildRow,
    CurrentRow,
    KeyedRow,
    KillRow,
    RecalledRow,
    RecordRow,
    SandboxRow,
    TenantRow,
)
from ring0.store.sqlite import recordsql, sql
from ring0.types import (
    INTEGRITY_RANK,
    Approval,
    Call,
    Cron,
    File,
    Hook,
    Lock,
    Login,
    Message,
    Quarantine,
    Run,
    Setting,
    Standing,
    Window,
)

ROW_TYPES: dict[str, type[msgspec.Struct]] = {
    "run": Run,
    "call": Call,
    "approval": Approval,
    "file": File,
    "sandbox": SandboxRow,
    "kill": KillRow,
    "lock": Lock,
    "message": Message,
    "cap": CapRow,
    "tenant": TenantRow,
    "cron": Cron,
    "hook": Hook,
    "login": Login,
    "setting": Setting,
    "quarantine": Quarantine,
    "archive": ArchiveRow,
    "standing": Standing,
    "record": RecordRow,
    "current": CurrentRow,
    "keyed": KeyedRow,
    "child": ChildRow,
    "recalled": RecalledRow,
    "window": Window,
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
    """`store.project.Tables` over the one connection that writes.

    Rows of the write at hand are kept apart until `keep`; `flush` puts what was kept in the
    database. What is known of a row stays known after that: nobody else writes.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._known: dict[tuple[str, str], Any] = {}
        """Rows as they are in the transaction, the longest unused first; None: not there."""
        self._own: dict[tuple[str, str], Any] = {}
        """Rows of the write at hand."""
        self._kept: dict[str, dict[str, Any]] = {}
        """Rows by table that are not in the database yet."""
        self._own_bodies: dict[str, RecordBody] = {}
        self._bodies: dict[str, RecordBody] = {}
        """What records say that are not in the database yet."""
        self._own_gone: dict[str, RecordRow] = {}
        self._gone: dict[str, RecordRow] = {}
        """Records that are still in the database, or on their way there."""
        self._write: Write | None = None
        self._events: list[tuple[int, str, int, bytes, bytes]] = []
        self._blobs: dict[str, bytes] = {}
        self._returned: dict[str, bytes] = {}
        """Values that come back from an archive."""
        self._archived: list[tuple[bytes, str]] = []
        """Values whose run's file holds them: (run, address)."""
        self._erased: dict[str, list[str]] = {}
        """Addresses of values that are gone, by run."""
        self._free_pages = 0
        """How many go back to the file system."""
        self._keys: dict[str, bytes] = {}
        self.group_bytes = 0
        """Of events and values since the last commit."""

    # --- the write at hand --------------------------------------------------------------------

    def begin(self, write: Write) -> int:
        """How many bytes of its values are new."""
        self.drop()
        self._write = write
        for name, key in keys_of(write).items():
            there = self._keys.get(name) or (first(self._db, sql.RUN_KEY, (name,)) or (None,))[0]
            # An operator's act says its key with each write: it goes with the last of its records.
            again = name.startswith(ACT) and there == key
            assert there is None or again, f"{name} has a key"
        new_bytes = 0
        for address, value in write.blobs.items():
            size = len(value)
            assert size <= limits.BLOB_SIZE_BYTES_MAX, f"a value of {size} bytes"
            if size < limits.BLOB_LOOKED_UP_SIZE_BYTES_MIN or not self._has_blob(address):
                new_bytes += size
        return new_bytes + sum(map(len, write.returned.values()))

    def get(self, table: str, key: str) -> Any:
        where = (table, key)
        if where in self._own:
            return self._own[where]
        if where in self._known:
            return self._known[where]
        found = first(self._db, sql.GET[table], (key,))
        row = self._known[where] = None if found is None else decode(table, found[0])
        return row

    def put(self, table: str, key: str, row: Any) -> None:
        if table == "record":
            there: RecordRow | None = self.get(table, key)
            if there is None and row is not None:
                self._own_bodies[key] = self._body(row)
            elif there is not None and row is None:
                self._own_gone[key] = there
        self._own[table, key] = row

    def add_event(self, event: tuple[int, str, int, bytes, bytes]) -> None:
        """(index, run, seq, leaf hash, exact bytes)."""
        self._events.append(event)
        self.group_bytes += len(event[4])

    def keep(self) -> None:
        """The write at hand holds."""
        write = self._write
        assert write is not None, "a write was begun"
        for where, row in self._own.items():
            self._known.pop(where, None)  # It is the newest now.
            self._known[where] = row
            self._kept.setdefault(where[0], {})[where[1]] = row
        blobs = self._without_the_same_again(write)
        self._blobs.update(blobs)
        self._returned.update(write.returned)
        self.group_bytes += sum(map(len, (*blobs.values(), *write.returned.values())))
        self._archived += ((write.run.encode(), where) for where in write.archived)
        if write.erased:
            self._erased[write.run] = list(write.erased)
        self._free_pages += write.free_pages
        self._keys.update(keys_of(write))
        self._bodies.update(self._own_bodies)
        self._gone.update(self._own_gone)
        self.drop()

    def drop(self) -> None:
        """The write at hand is done with, or does not hold."""
        self._own.clear()
        self._own_bodies.clear()
        self._own_gone.clear()

    # --- the group ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Puts what was kept in the database."""
        if not self._events:
            return
        execute = self._db.executemany
        execute(sql.ADD_EVENT, self._events)
        execute(sql.ADD_BLOB, _blob_rows(self._blobs))
        execute(sql.RETURN_BLOB, _blob_rows(self._returned))
        execute(sql.ARCHIVE_BLOB, self._archived)
        execute(sql.ADD_KEY, self._keys.items())
        for table, rows in self._kept.items():
            if table == "record":
                continue
            there = [
                (key, *columns(table, r), encode(r)) for key, r in rows.items() if r is not None
            ]
            execute(sql.PUT[table], there)
            if len(there) < len(rows):
                execute(sql.REMOVE[table], [(key,) for key, row in rows.items() if row is None])
        self._put_records(self._kept.get("record", {}))
        for run, addresses in self._erased.items():
            execute(sql.ERASE_BLOB, [(where,) for where in addresses])
            self._db.execute(sql.FORGET_KEY, (run,))
        if self._free_pages:
            self._db.execute(sql.GIVE_BACK_PAGES.format(pages=self._free_pages)).fetchall()
        self._forget_pending()

    def _put_records(self, rows: Mapping[str, RecordRow | None]) -> None:
        execute, bodies = self._db.executemany, self._bodies
        added, moved = [], []
        for key, row in rows.items():
            if row is None:
                continue
            if key in bodies:
                added.append((key, encode(row), *record_columns(row, bodies[key])))
            else:
                state = (str(row.state), row.superseded_us, row.valid_to_us)
                moved.append((encode(row), *state, key))
        execute(recordsql.ADD, added)
        execute(recordsql.MOVE, moved)
        gone = self._gone
        for statement in recordsql.REMOVE:
            execute(statement, [(key,) for key in gone])
        execute(recordsql.REMOVE_BLOB, {(row.blob,) for row in gone.values()})
        # Also of those that wrote nothing: all of it was there.
        acts = {one for one in (*self._keys, *(row.act for row in gone.values()))
                if one.startswith(ACT)}  # fmt: skip
        execute(recordsql.REMOVE_ACT_KEY, [(act,) for act in acts])
        execute(recordsql.REMOVE_SCOPE_KEY, {row.owner for row in gone.values()})

    def committed(self) -> None:
        """The group is on disk: room for the rows of the next."""
        self.group_bytes = 0
        surplus = len(self._known) - limits.ROWS_CACHED_MAX
        for where in list(itertools.islice(self._known, max(0, surplus))):
            del self._known[where]

    def forget(self) -> None:
        """What was kept since the last flush is gone, and what the database holds is not known."""
        self.drop()
        self._known.clear()
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._events.clear()
        self._blobs.clear()
        self._returned.clear()
        self._archived.clear()
        self._erased.clear()
        self._free_pages = 0
        self._keys.clear()
        self._kept.clear()
        self._bodies.clear()
        self._gone.clear()

    def _has_blob(self, address: str) -> bool:
        return address in self._blobs or first(self._db, sql.HAS_BLOB, (address,)) is not None

    def _body(self, row: RecordRow) -> RecordBody:
        assert self._write is not None, "a write was begun"
        value = self._write.blobs.get(row.blob, self._blobs.get(row.blob))
        if value is None:
            found = first(self._db, sql.BLOB, (row.blob,))
            assert found is not None and found[0] == sql.VALUE, (
                f"{row.id!r} remembers a value that is not there"
            )
            value = found[1]
        return body_of(row, bytes(value))

    def _without_the_same_again(self, write: Write) -> Mapping[str, bytes]:
        """The write's values, without those of records that were there under their key already: no
        row would ever take them away."""
        said = {
            one.blob
            for event in write.events
            if isinstance(event, Remembered)
            for one in event.records
        }
        if not said:
            return write.blobs
        said -= {row.blob for (table, _), row in self._own.items() if table == "record" and row}
        return {where: value for where, value in write.blobs.items() if where not in said}


def keys_of(write: Write) -> dict[str, bytes]:
    """Digest keys that begin with the write, by run or act."""
    return {**write.keys, **({write.run: write.key} if write.key else {})}


def _blob_rows(blobs: Mapping[str, bytes]) -> Iterator[tuple[str, int, bytes]]:
    for where, value in blobs.items():
        yield where, sql.LIST if isinstance(value, Listed) else sql.VALUE, value


def columns(table: str, row: Any) -> tuple[Any, ...]:
    """What lies beside a row, in the order of `sql.COLUMNS`; of a record: `record_columns`."""
    match table:
        case "run":
            return (str(row.state), row.parent, row.root, row.started_us, row.wake_us)
        case "call":
            return (row.run, row.seq, str(row.state))
        case "approval":
            return (row.run, str(row.state), row.asked_us)
        case "standing":
            return (row.given_us,)
        case "sandbox":
            return (int(row.ended),)
        case "kill":
            return (row.generation,)
        case "lock":
            return (row.tenant, row.resource, row.run)
        case "message":
            return (row.to, int(bool(row.taken_by)))
        case "recalled":
            return (row.run, row.record, row.seq)
        case _:
            return ()


def record_columns(row: RecordRow, body: RecordBody) -> tuple[Any, ...]:
    """What lies beside a record's row."""
    return (
        *(row.tenant, row.principal, row.agent, row.act, row.seq, str(row.kind), str(row.state)),
        *(body.role, body.session or row.act, body.document, body.subject, body.predicate),
        *(row.fingerprint, row.at_us, row.happened_us, row.superseded_us),
        *(row.valid_from_us, row.valid_to_us, INTEGRITY_RANK[row.label.integrity], row.blob),
    )
