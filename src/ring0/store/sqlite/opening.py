"""Opens the embedded store, and refuses what must not be written to.

A file that is not a journal, of a newer version, damaged, or shorter than its head file says is an
error here; `write=False` opens it all the same for reading where that can be done.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from ring0.errors import StoreDamaged
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.store.base import Head
from ring0.store.sqlite import sql
from ring0.store.sqlite.store import SqliteStore, read_head
from ring0.store.sqlite.tables import first
from ring0.store.sqlite.writer import Writer, explain

JOURNAL = "journal.db"
HEAD = "journal.head"


def open_store(folder: Path, runtime: Runtime, *, write: bool) -> SqliteStore:
    """Opens (and with `write` creates) the journal in `folder`.

    Raises StoreDamaged, StoreFull, StoreFailed.
    """
    path = folder / JOURNAL
    if not write and not path.exists():
        raise StoreDamaged(
            f"There is no journal in {folder}.",
            why="Nothing has run here yet.",
            todo="Run an agent first, or set RING0_HOME to the folder that you mean.",
        )
    try:
        return _open(path, folder / HEAD, runtime, write=write)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreDamaged(
            f"The journal {path} is damaged: {error}.",
            why="It was cut short or overwritten; nothing is written to a damaged journal.",
            todo="Put back a copy of journal.db, journal.db-wal and journal.head, or move all"
            " three aside to begin a new one.",
        ) from None
    except apsw.Error as error:
        raise explain(error) from None


def _open(path: Path, head: Path, runtime: Runtime, *, write: bool) -> SqliteStore:
    existed = path.exists() and path.stat().st_size > 0
    if write:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = _connect(path, write=write)
    if write and not existed:
        connection.execute("BEGIN IMMEDIATE;" + sql.SCHEMA + "COMMIT")
    _check_version(connection, path)
    head_file = os.open(head, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY, 0o600)
    if write:
        _check_length(connection, read_head(head_file), path)
        return SqliteStore(
            _connect(path, write=False), Writer(connection, head_file, runtime), head_file, runtime
        )
    return SqliteStore(connection, None, head_file, runtime)


def _connect(path: Path, *, write: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags)
    connection.execute("PRAGMA busy_timeout = 5000")
    if write:
        connection.execute(sql.PRAGMAS)
    return connection


def _check_version(connection: apsw.Connection, path: Path) -> None:
    application = first(connection, "PRAGMA application_id")[0]
    version = first(connection, "PRAGMA user_version")[0]
    if application != sql.APPLICATION_ID:
        raise StoreDamaged(
            f"{path} is not a journal of ring0.",
            why="Its application id says that another program made it, or it was cut to nothing.",
            todo="Set RING0_HOME to another folder, or put back a copy of the journal.",
        )
    if version > sql.SCHEMA_VERSION:
        raise StoreDamaged(
            f"{path} is of a newer ring0 (schema {version}; this one knows {sql.SCHEMA_VERSION}).",
            why="An older kernel can't keep the promises of a newer journal.",
            todo="Install the newer ring0, or set RING0_HOME to another folder.",
        )


def _check_length(connection: apsw.Connection, anchored: Head | None, path: Path) -> None:
    size, peaks, _ = first(connection, sql.TREE)
    highest = connection.execute("SELECT count(*), max(idx) FROM event").fetchone()
    assert highest is not None
    events = int(highest[0] or 0)
    if events != size or (size and highest[1] != size - 1):
        raise StoreDamaged(
            f"The journal {path} holds {events} events and its tree {size}.",
            why="Events were added or taken away behind the kernel's back.",
            todo="Put back a copy of the journal; `ring0 audit verify` names the first bad entry.",
        )
    if anchored is None:
        if size:
            raise StoreDamaged(
                f"{path.with_name(HEAD)} is missing or unreadable; the journal has {size} events.",
                why="Without it nobody can tell whether the journal was cut short.",
                todo="Put back a copy of it; `ring0 audit verify` shows what stands.",
            )
        return
    if anchored.size > size:
        raise StoreDamaged(
            f"The journal {path} was cut short: it holds {size} events, its head file says"
            f" {anchored.size}.",
            why="The file or its WAL was replaced by an older or shorter one.",
            todo="Put back journal.db and journal.db-wal as they were, or move journal.db,"
            " journal.db-wal and journal.head aside to begin a new one.",
        )
    if anchored.size == size:
        root = merkle.Tree(size, [peaks[i : i + 32] for i in range(0, len(peaks), 32)]).root()
    else:  # The kernel was killed between the commit and the head.
        tree = merkle.Tree()
        for (leaf,) in connection.execute(sql.LEAVES, (anchored.size,)):
            tree.append(leaf)
        root = tree.root()
    if root.hex() != anchored.root:
        raise StoreDamaged(
            f"The journal {path} is not the one that its head file describes.",
            why="Entries were changed after they were written, or the files are of two journals.",
            todo="Run `ring0 audit verify`; put back both files from one copy.",
        )
