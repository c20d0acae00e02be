"""A copy of the journal as it was at one moment, made beside a kernel that goes on writing it.

Not here: what else belongs to a back-up (kernel/operating/backing.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from ring0.errors import Ring0Error
from ring0.store.archiving import not_written
from ring0.store.rows import ArchiveRow, Head
from ring0.store.sqlite import sql
from ring0.store.sqlite.committing import write_head
from ring0.store.sqlite.failing import explain, is_full
from ring0.store.sqlite.opening import HEAD, JOURNAL
from ring0.store.sqlite.tables import decode, first, tree_of


def copy_journal(path: Path, folder: Path) -> tuple[Head, list[ArchiveRow]]:
    """Puts journal and head file into `folder`, on disk when this returns: its head, and the
    archives that it names. Blocks. Raises StoreFull, StoreFailed."""
    target = folder / JOURNAL
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        reader.set_busy_timeout(5_000)
        # One read transaction: what is written meanwhile is not in it, and waits for nothing.
        reader.execute("VACUUM INTO ?", (str(target),)).fetchall()
    except apsw.Error as error:
        raise _not_copied(target, error) from None
    finally:
        reader.close()
    os.chmod(target, 0o600)
    copy = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tree, _ = tree_of(copy)
        archives = [decode("archive", row) for (row,) in copy.execute(sql.ARCHIVES)]
        assert first(copy, sql.WHOSE)[:2] == (sql.APPLICATION_ID, sql.SCHEMA_VERSION)
    finally:
        copy.close()
    head_file = os.open(folder / HEAD, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_head(head_file, tree)
        os.fsync(head_file)
    finally:
        os.close(head_file)
    opened = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    return Head(size=tree.size, root=tree.root().hex()), archives


def _not_copied(target: Path, error: apsw.Error) -> Ring0Error:
    if is_full(error):
        return not_written(target, OSError(28, os.strerror(28)))
    return explain(error)
