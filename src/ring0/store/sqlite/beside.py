"""What the writer does beside the journal: no event tells of it, and all of it can be made again.

`Beside` is written in a group's transaction; `After` is done when the group is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import apsw

from ring0 import limits
from ring0.store.rows import Indexed
from ring0.store.sqlite import recordsql
from ring0.store.sqlite.scrubbing import scrub
from ring0.types import Owner


class Beside(Protocol):
    """Something that is written beside the journal."""

    after: bool
    """When the group is on disk, and no transaction is open."""

    def do(self, db: apsw.Connection) -> int: ...


class ScopeKeyed:
    """A scope's key, where it has none."""

    after = False

    def __init__(self, owner: Owner, key: bytes) -> None:
        self._row = (*owner, key)

    def do(self, db: apsw.Connection) -> int:
        db.execute(recordsql.ADD_SCOPE_KEY, self._row)
        return 0


class Indexing:
    """Terms and vectors of records that are there."""

    after = False

    def __init__(self, model: str, rows: Sequence[Indexed]) -> None:
        self._model, self._rows = model, rows

    def do(self, db: apsw.Connection) -> int:
        terms = [(row.number, row.length, row.terms) for row in self._rows]
        db.executemany(recordsql.ADD_TERMS, terms)
        vectors = [(row.number, row.vector) for row in self._rows if row.vector is not None]
        if vectors:
            assert self._model, "a vector is of a model"
            db.execute(recordsql.ADD_MODEL, (self._model,))
            ((model,),) = db.execute(recordsql.MODEL, (self._model,)).fetchall()
            db.executemany(recordsql.ADD_VECTOR, [(model, *row) for row in vectors])
        return len(terms)


class Dropped:
    """Vectors of every model but one are taken away; so many at once."""

    after = False

    def __init__(self, model: str) -> None:
        self._model = model

    def do(self, db: apsw.Connection) -> int:
        ((model,),) = db.execute(recordsql.MODEL, (self._model,)).fetchall() or [(0,)]
        db.execute(recordsql.DROP_VECTORS, (model, limits.RECORDS_LOADED_AT_ONCE))
        dropped = db.changes()
        db.execute(recordsql.DROP_MODELS, (self._model,))
        return dropped


class Emptied:
    """All of the WAL is in the file. 1: somebody reads it as it was."""

    after = True

    def do(self, db: apsw.Connection) -> int:
        db.set_busy_timeout(0)
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return 1
        finally:
            db.set_busy_timeout(limits.BUSY_TIMEOUT_MS)
        return 0


class Wiping:
    """Pages of the file hold nothing but what is in their tables. 1: as above."""

    after = True

    def __init__(self, begin: int) -> None:
        self._begin = begin

    def do(self, db: apsw.Connection) -> int:
        if busy := Emptied().do(db):
            return busy
        if db.filename:
            # No page may come back from memory as it was.
            db.release_memory()
            scrub(db, self._begin, self._begin + limits.WIPED_PAGES_AT_ONCE)
        return 0
