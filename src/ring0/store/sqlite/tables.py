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
from ring0.store.lists import Listed
from ring0.store.rows import ArchiveRow, CapRow, KillRow, SandboxRow, TenantRow
from ring0.store.sqlite import sql
from ring0.types import (
    Approval,
    Call,
    Cron,
    Episode,
    File,
    Hook,
    Lock,
    Login,
    Message,
    Quarantine,
    Run,
    Setting,
    Standing,
)

ROW_TYPES: dict[str, type[msgspec.Struct]] = {
    "run": Run,
    "call": Call,
    "approval": Approval,
    "file": File,
    "sandbox": SandboxRow,
    "kill": KillRow,
    "episode": Episode,
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
        self._texts: dict[str, str] = {}
        """What episodes remember that are not in the database yet."""
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
        self._own.clear()
        self._write = write
        if write.key:
            assert write.run not in self._keys, f"{write.run} has a key"
            assert first(self._db, sql.RUN_KEY, (write.run,)) is None, f"{write.run} has a key"
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
        if table == "episode" and row is not None:
            self._texts[key] = self._text(key, row)
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
        self._own.clear()
        self._blobs.update(write.blobs)
        self._returned.update(write.returned)
        self.group_bytes += sum(map(len, (*write.blobs.values(), *write.returned.values())))
        self._archived += ((write.run.encode(), where) for where in write.archived)
        if write.erased:
            self._erased[write.run] = list(write.erased)
        self._free_pages += write.free_pages
        if write.key:
            self._keys[write.run] = write.key

    def drop(self) -> None:
        """The write at hand does not hold."""
        for table, key in self._own:
            if table == "episode":
                self._texts.pop(key, None)
        self._own.clear()

    # --- the group ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Puts what was kept in the database."""
        if not self._events:
            return
        execute = self._db.executemany
        execute(sql.ADD_EVENT, self._events)
        execute(sql.ADD_BLOB, _blob_rows(self._blobs))
        execute(sql.RETURN_BLOB, _blob_rows(self._returned))
        if self._archived:  # What is erased later on leaves nothing of it in free pages.
            self._db.execute(sql.WIPING.format(how="ON")).fetchall()
            execute(sql.ARCHIVE_BLOB, self._archived)
            self._db.execute(sql.WIPING.format(how="OFF")).fetchall()
        execute(sql.ADD_KEY, self._keys.items())
        for table, rows in self._kept.items():
            if table == "episode":
                continue
            there = [
                (key, *columns(table, r), encode(r)) for key, r in rows.items() if r is not None
            ]
            execute(sql.PUT[table], there)
            if len(there) < len(rows):
                execute(sql.REMOVE[table], [(key,) for key, row in rows.items() if row is None])
        episodes = self._kept.get("episode", {})
        self._put_episodes({key: row for key, row in episodes.items() if row is not None})
        if self._erased:
            self._erase([key for key, row in episodes.items() if row is None])
        if self._free_pages:
            self._db.execute(sql.GIVE_BACK_PAGES.format(pages=self._free_pages)).fetchall()
        self._forget_pending()

    def _erase(self, episodes: Sequence[str]) -> None:
        """Values, the keys of their addresses, and what memory held of them: written over."""
        self._db.execute(sql.WIPING.format(how="ON")).fetchall()
        for run, addresses in self._erased.items():
            self._db.executemany(sql.ERASE_BLOB, [(where,) for where in addresses])
            self._db.execute(sql.FORGET_KEY, (run,))
        if episodes:
            self._db.executemany(sql.ERASE_EPISODE, [(key,) for key in episodes])
            self._db.execute(sql.INDEX_ANEW)  # Its words are in there, too.
        self._db.execute(sql.WIPING.format(how="OFF")).fetchall()

    def committed(self) -> None:
        """The group is on disk: room for the rows of the next."""
        self.group_bytes = 0
        surplus = len(self._known) - limits.ROWS_CACHED_MAX
        for where in list(itertools.islice(self._known, max(0, surplus))):
            del self._known[where]

    def forget(self) -> None:
        """What was kept since the last flush is gone, and what the database holds is not known."""
        self._own.clear()
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
        self._texts.clear()

    def _has_blob(self, address: str) -> bool:
        return address in self._blobs or first(self._db, sql.HAS_BLOB, (address,)) is not None

    def _text(self, key: str, row: Episode) -> str:
        assert self._write is not None, "a write was begun"
        value = self._write.blobs.get(row.text, self._blobs.get(row.text))
        if value is None:
            found = first(self._db, sql.BLOB, (row.text,))
            assert found is not None and found[0] == sql.VALUE, (
                f"{key!r} remembers a value that is not there"
            )
            value = found[1]
        return bytes(value).decode()

    def _put_episodes(self, rows: dict[str, Episode]) -> None:
        """Indexed first: a score's length is the index's own count of tokens, not a guess at it."""
        if not rows:
            return
        place = first(self._db, sql.NEXT_EPISODE)[0]
        texts = [self._texts[key] for key in rows]
        self._db.executemany(sql.ADD_EPISODE_TEXT, enumerate(texts, place))
        sizes: list[Any] = self._db.execute(sql.EPISODE_TOKENS, (place,)).fetchall()
        stored = []
        for (key, row), text, (number, size) in zip(rows.items(), texts, sizes, strict=True):
            run: Run = self.get("run", row.run)
            scope = (run.tenant, run.principal, run.agent)
            stored.append((number, key, *scope, token_count(size), text, encode(row)))
        self._db.executemany(sql.ADD_EPISODE, stored)


def _blob_rows(blobs: Mapping[str, bytes]) -> Iterator[tuple[str, int, bytes]]:
    for where, value in blobs.items():
        yield where, sql.LIST if isinstance(value, Listed) else sql.VALUE, value


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
        case _:
            return ()
