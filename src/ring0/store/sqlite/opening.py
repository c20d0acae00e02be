"""Opens the embedded store, and refuses what must not be written to.

A file that is not a journal, of a newer version, damaged, or shorter than its head file says is an
error here; `write=False` opens it all the same for reading where that can be done. Nothing is made
or changed in a folder that is refused.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import apsw

from ring0 import limits
from ring0.errors import KernelBusy, Ring0Error, StoreDamaged, StoreFailed
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.store.rows import Head
from ring0.store.sqlite import sql
from ring0.store.sqlite.committing import write_head
from ring0.store.sqlite.failing import explain
from ring0.store.sqlite.reserve import Reserve
from ring0.store.sqlite.snapshot import read_head
from ring0.store.sqlite.store import SqliteStore
from ring0.store.sqlite.tables import first, tree_of
from ring0.store.sqlite.writer import WriterThread

JOURNAL = "journal.db"
HEAD = "journal.head"
RESERVE = "journal.reserve"
ASIDE = f"move {JOURNAL}, {JOURNAL}-wal and {HEAD} aside to begin a new one"


def open_store(folder: Path, runtime: Runtime, *, write: bool, vfs: str = "") -> SqliteStore:
    """Opens (and with `write` creates) the journal in `folder`. `vfs`: SQLite's door to the disk.

    Raises StoreDamaged, StoreFull, StoreFailed.
    """
    path = folder / JOURNAL
    with ExitStack() as held:
        try:
            store = (_open_to_write if write else _open_to_read)(path, runtime, held, vfs)
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
            raise StoreDamaged(
                f"The journal {path} is damaged: {error}.",
                why="It was cut short or overwritten; nothing is written to a damaged journal.",
                todo=f"Put back a copy of {JOURNAL}, {JOURNAL}-wal and {HEAD}, or {ASIDE}.",
            ) from None
        except (apsw.Error, OSError) as error:
            raise (explain(error) if write else _unreadable(path, error)) from None
        held.pop_all()  # It is the store's now.
        return store


def _open_to_read(path: Path, runtime: Runtime, held: ExitStack, vfs: str) -> SqliteStore:
    if not path.exists():
        raise StoreDamaged(
            f"There is no journal in {path.parent}.",
            why="Nothing has run here yet, or it was taken away.",
            todo="Run an agent first, or set RING0_HOME to the folder that you mean.",
        )
    _check_not_emptied(path)
    if path.stat().st_size == 0:
        raise _foreign(path)
    connection = _connect(path, held, vfs, write=False)
    _check_version(connection, path)
    head = path.with_name(HEAD)
    head_file = _descriptor(head, os.O_RDONLY, held) if head.is_file() else -1
    return SqliteStore(connection, None, head_file, runtime)


def _open_to_write(path: Path, runtime: Runtime, held: ExitStack, vfs: str) -> SqliteStore:
    head = path.with_name(HEAD)
    _check_not_emptied(path)
    # Closed before SQLite opens it: closing it later would drop SQLite's locks.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if path.with_name(path.name + "-journal").exists():
        _roll_back(path, vfs)
    # All that may be refused is looked at by a reader: a writer would fold the WAL of a damaged
    # journal into it.
    reader = _connect(path, held, vfs, write=False)
    anchored = _anchored(head)
    if first(reader, sql.WHOSE) == (0, 0, 0):
        _begin(path, anchored, vfs)
    _check_version(reader, path)
    tree = _check_length(reader, anchored, path)
    head_file = _descriptor(head, os.O_RDWR | os.O_CREAT, held)
    _hold(head_file, path)
    if anchored is None or anchored.size != tree.size:
        # On disk before the first event is: a head file that a power cut empties would shut the
        # journal; later ones replace it in place.
        write_head(head_file, tree)
        os.fsync(head_file)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
    # Last: whatever is refused leaves no file behind.
    reserve = Reserve(path.with_name(RESERVE))
    writer = WriterThread(_connect(path, held, vfs, write=True), head_file, runtime, reserve)
    return SqliteStore(reader, writer, head_file, runtime)


def _hold(head_file: int, path: Path) -> None:
    """One kernel writes. `kernel.lock` says so too, but to a person it is a file that can be
    deleted, and the next kernel would make another; the head file nobody does without."""
    try:
        fcntl.flock(head_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise KernelBusy(
            f"Another kernel writes {path}.",
            why="Its kernel.lock was deleted, or replaced; two kernels would both be right.",
            todo=f"End that one first: `fuser {path.with_name(HEAD)}` names its process.",
        ) from None


def create_tables(connection: apsw.Connection) -> None:
    """Makes the tables of an empty database, in memory or in a file."""
    connection.execute("BEGIN IMMEDIATE;" + sql.SCHEMA + "COMMIT").fetchall()


def _roll_back(path: Path, vfs: str) -> None:
    """A kernel died while it made the file: before there is a WAL, only a writer can undo that."""
    with ExitStack() as held:
        first(_connect(path, held, vfs, write=True), sql.WHOSE)


def _begin(path: Path, anchored: Head | None, vfs: str) -> None:
    """Makes the tables, unless the head file says that there were some."""
    if anchored is not None and anchored.size:
        raise _cut_short(path, 0, anchored)
    with ExitStack() as held:  # Closing it puts all in the main file, whatever becomes of a WAL.
        connection = _connect(path, held, vfs, write=True)
        create_tables(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _connect(path: Path, held: ExitStack, vfs: str, *, write: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs or None)
    held.callback(connection.close)
    connection.set_busy_timeout(limits.BUSY_TIMEOUT_MS)
    if write:
        # Fetched to the end: a statement that gives a row stops those after it until it is read.
        connection.execute(sql.PRAGMAS).fetchall()
    return connection


def _descriptor(path: Path, flags: int, held: ExitStack) -> int:
    opened = os.open(path, flags | os.O_CLOEXEC, 0o600)
    held.callback(os.close, opened)
    return opened


def _anchored(head: Path) -> Head | None:
    if not head.exists():
        return None
    with ExitStack() as held:
        return read_head(_descriptor(head, os.O_RDONLY, held))


# --- what is refused ---------------------------------------------------------------------------


def _check_not_emptied(path: Path) -> None:
    """SQLite would take an empty file for a new journal, and throw its WAL away."""
    if path.exists() and path.stat().st_size:
        return
    head, log = path.with_name(HEAD), path.with_name(path.name + "-wal")
    anchored = _anchored(head)
    if anchored is not None:
        lost = f"its head file says {anchored.size} events" if anchored.size else ""
    else:
        lost = "its head file can't be read" if head.exists() and head.stat().st_size else ""
    if log.exists() and log.stat().st_size:
        lost = lost or "its WAL still stands"
    if lost:
        raise StoreDamaged(
            f"The journal {path} is {'empty' if path.exists() else 'gone'}, but {lost}.",
            why="The file was emptied, moved or deleted.",
            todo=f"Put back a copy of {JOURNAL}, or {ASIDE}.",
        )


def _check_version(connection: apsw.Connection, path: Path) -> None:
    application, version, _ = first(connection, sql.WHOSE)
    if application != sql.APPLICATION_ID:
        raise _foreign(path)
    if version > sql.SCHEMA_VERSION:
        raise StoreDamaged(
            f"{path} is of a newer ring0 (schema {version}; this one knows {sql.SCHEMA_VERSION}).",
            why="An older kernel can't keep the promises of a newer journal.",
            todo="Install the newer ring0, or set RING0_HOME to another folder.",
        )
    if 1 <= version < sql.SCHEMA_VERSION:
        raise StoreDamaged(
            f"{path} is of an older ring0 (schema {version}; this one has {sql.SCHEMA_VERSION}).",
            why="Its tables are not those that this kernel keeps.",
            todo="Read it with the ring0 that wrote it, and set RING0_HOME to another folder.",
        )
    if version < 1:
        raise StoreDamaged(
            f"{path} has no version (schema {version}).",
            why="It was overwritten: every journal has had one from the start.",
            todo=f"Put back a copy, or {ASIDE}.",
        )


def _check_length(connection: apsw.Connection, anchored: Head | None, path: Path) -> merkle.Tree:
    """The tree, if events, tree and head file agree on it."""
    try:
        tree, _ = tree_of(connection)
    except ValueError as error:
        raise _changed(path, f"has no Merkle tree: {error}") from None
    count, highest = first(connection, sql.EVENT_COUNT)
    if count != tree.size or (count and highest != count - 1):
        raise _changed(path, f"holds {count} events and its tree {tree.size}")
    if anchored is None:
        if tree.size:
            raise StoreDamaged(
                f"{path.with_name(HEAD)} is missing or unreadable; the journal has"
                f" {tree.size} events.",
                why="Without it nobody can tell whether the journal was cut short.",
                todo=f"Put back a copy of it (`ring0 audit verify` shows what stands), or {ASIDE}.",
            )
        return tree
    if anchored.size > tree.size:
        raise _cut_short(path, tree.size, anchored)
    if anchored.size == tree.size:
        root = tree.root()
    else:  # The kernel was killed between the commit and the head.
        again = merkle.Tree()
        root = again.root()
        for (leaf,) in connection.execute(sql.LEAVES):
            again.append(leaf)
            if again.size == anchored.size:
                root = again.root()
        if again.root() != tree.root():
            raise _changed(path, "has another Merkle tree than its events make")
    if root.hex() != anchored.root:
        raise StoreDamaged(
            f"The journal {path} is not the one that its head file describes.",
            why="Entries were changed after they were written, or the files are of two journals.",
            todo=f"Run `ring0 audit verify`; put back both files from one copy, or {ASIDE}.",
        )
    return tree


def _foreign(path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is not a journal of ring0.",
        why="Another program made it, or it was cut to nothing.",
        todo="Set RING0_HOME to another folder, or put back a copy of the journal.",
    )


def _changed(path: Path, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"The journal {path} {what}.",
        why="Events were added, changed or taken away behind the kernel's back.",
        todo="Put back a copy of the journal; `ring0 audit verify` names the first bad entry.",
    )


def _cut_short(path: Path, size: int, anchored: Head) -> StoreDamaged:
    return StoreDamaged(
        f"The journal {path} was cut short: it holds {size} events, its head file says"
        f" {anchored.size}.",
        why="The file or its WAL was replaced by an older or shorter one.",
        todo=f"Put back {JOURNAL} and {JOURNAL}-wal as they were, or {ASIDE}.",
    )


def _unreadable(path: Path, error: Exception) -> Ring0Error:
    return StoreFailed(
        f"The journal {path} can't be read: {error}.",
        why="Its file or its folder is not open to this user, or another program holds it.",
        todo="See to the permissions of the folder and of all files in it.",
    )
