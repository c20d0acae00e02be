"""A statement that changes rows, run twice in its transaction: first to see, then to stay or not.

The first run, rolled back to a savepoint, tells which tables change and which values come out
otherwise each time. The second has its rows looked at; the caller commits it or rolls it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from ring0 import errors, limits
from ring0.tools.sql.plan import Rows, RowSample, TableChange
from ring0.tools.sql.postgres import undo as postgres_undo
from ring0.tools.sql.postgres.connection import TRANSIENT, Connection, EngineError
from ring0.tools.sql.postgres.images import (
    IMAGES_VERSION,
    SAMPLE_ROWS_MAX,
    Change,
    Image,
    Images,
    Look,
    Version,
    paired,
    restless,
    row_digest,
    sample,
)
from ring0.tools.sql.postgres.rules import Statement
from ring0.tools.sql.postgres.tables import (
    Counted,
    Counts,
    Table,
    by_root,
    counted,
    read_tables,
    short_name,
    table_change,
    why_not_rows,
)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement did, with all its rows seen."""

    kind: str = "write"
    """write; or schema or forbidden, where it changed more than rows."""
    why: str = ""
    changes: tuple[TableChange, ...] = ()
    digest: str = ""
    images: bytes = b""
    why_irreversible: str = ""
    samples: tuple[RowSample, ...] = ()
    notes: tuple[str, ...] = ()
    copies: bool = False
    rows: Rows | None = None


class _First(msgspec.Struct, frozen=True):
    """What the first run told."""

    counts: Counts
    tables: dict[int, Table]
    made: dict[int, list[Version]]


class _Refused(Exception):
    """It changes more than rows: kind and why."""


def rehearse(db: Connection, statement: Statement, do: Callable[[], Rows]) -> Rehearsed:
    """Runs `do` twice; the second run stays in the transaction."""
    try:
        first = _first(db, do)
        look = Look(db, first.tables)
        look.before()
        before = counted(db)
        rows = do()
        change = counted(db).since(before)
        _only_rows(db, change)
    except _Refused as refused:
        kind, why = refused.args
        return Rehearsed(kind=kind, why=why)
    if by_root(db, change.tables) != first.counts:
        raise errors.CallDenied("The statement does not do the same when it is run twice.")
    return _Seen(db, statement, first, look).told(rows)


def _first(db: Connection, do: Callable[[], Rows]) -> _First:
    with db.savepoint():
        before = counted(db)
        do()
        change = counted(db).since(before)
        _only_rows(db, change)
        total = sum(sum(numbers) for numbers in change.tables.values())
        if total > limits.SQL_ROWS_CHANGED_MAX:
            raise errors.LimitReached(
                f"The statement changes more than {limits.SQL_ROWS_CHANGED_MAX} rows.",
                why="Cascades and triggers count. Nothing was changed.",
                todo="Change the rows in smaller parts, with a narrower WHERE.",
            )
        counts = by_root(db, change.tables)
        tables = read_tables(db, set(counts))
        return _First(counts, tables, Look(db, tables).made())


def _only_rows(db: Connection, change: Counted) -> None:
    kind, why = why_not_rows(db, change)
    if kind:
        raise _Refused(kind, why)


_NOW: Final = """
SELECT pg_catalog.format('%s', x), 'now' FROM (
    SELECT now()::timestamptz(6) UNION ALL SELECT now()::timestamptz(3)
    UNION ALL SELECT now()::timestamptz(0) UNION ALL SELECT date_trunc('second', now())
    UNION ALL SELECT date_trunc('milliseconds', now())) AS a(x)
UNION ALL
SELECT pg_catalog.format('%s', x), 'local' FROM (
    SELECT localtimestamp(6) UNION ALL SELECT localtimestamp(3)
    UNION ALL SELECT localtimestamp(0) UNION ALL SELECT date_trunc('second', localtimestamp)
    UNION ALL SELECT date_trunc('milliseconds', localtimestamp)) AS b(x)
"""
"""The moment of this transaction in the forms in which a column may hold it."""

_SEQUENCES: Final = """
SELECT DISTINCT s.oid::regclass::text
FROM pg_catalog.pg_class s
    JOIN pg_catalog.pg_depend d ON s.oid IN (d.objid, d.refobjid)
        AND 'pg_catalog.pg_class'::regclass IN (d.classid, d.refclassid)
    LEFT JOIN pg_catalog.pg_attrdef a
        ON a.oid = d.objid AND d.classid = 'pg_catalog.pg_attrdef'::regclass
WHERE s.relkind = 'S' AND (a.adrelid = ANY ($1::oid[])
    OR (d.deptype = 'i' AND d.refobjid = ANY ($1::oid[])))
"""


class _Seen:
    """What the second run did, told."""

    def __init__(self, db: Connection, statement: Statement, first: _First, look: Look) -> None:
        self._db = db
        self._statement = statement
        self._counts = first.counts
        self._tables = first.tables
        self._made = first.made
        self._look = look
        self._changes: dict[int, list[Change]] = {}
        self._now: dict[str | None, str] = {}
        self._why_irreversible = ""
        self._notes: list[str] = []

    def told(self, rows: Rows) -> Rehearsed:
        digest = self._seen()
        images = self._images()
        if self._why_irreversible:
            images = b""
        elif images:
            images = self._rehearsed_undo(images)
        self._say_sequences()
        order = sorted(self._counts, key=lambda oid: self._tables[oid].name)
        return Rehearsed(
            changes=tuple(table_change(self._tables[oid], self._counts[oid]) for oid in order),
            digest=digest,
            images=images,
            why_irreversible=self._why_irreversible,
            samples=tuple(
                sample(self._tables[oid], change)
                for oid in order
                for change in self._changes.get(oid, [])[:SAMPLE_ROWS_MAX]
            ),
            notes=tuple(self._notes),
            copies=self._copies(),
            rows=rows,
        )

    def _copies(self) -> bool:
        writes = any(inserted or updated for inserted, updated, _ in self._counts.values())
        named = set(by_root(self._db, dict.fromkeys(self._statement.tables, (0, 0, 0))))
        return writes and bool(named - self._counts.keys())

    def _seen(self) -> str:
        """Looks at every changed row; the digest of all."""
        now = self._now = {text or "": which or "" for text, which in self._db.run(_NOW).rows}
        again = self._look.made()
        digests: list[bytes] = []
        for oid, (inserted, updated, deleted) in self._counts.items():
            table = self._tables[oid]
            digests.append(f"{table.name} {inserted} {updated} {deleted}".encode())
            if table.why_unseen:
                self._irreversible(f"rows of {short_name(table.name)} change, and"
                                   f" {table.why_unseen}")  # fmt: skip
                continue
            new = again[oid]
            most = len(new) - inserted + deleted
            old = self._look.ended(oid, most)
            changed_once = (len(new), len(old)) == (inserted + updated, updated + deleted)
            if len(old) != most or (table.secured and not changed_once):
                self._irreversible(f"not every row of {short_name(table.name)} can be seen")
            masked = restless(table, self._made[oid], new)
            self._say_restless(table, masked)
            self._changes[oid] = paired(table, old, new)
            digests += [row_digest(table, change, masked, now) for change in self._changes[oid]]
        self._look.close()
        return hashlib.sha256(b"\n".join(sorted(digests))).hexdigest()

    def _irreversible(self, why: str) -> None:
        self._why_irreversible = self._why_irreversible or why

    def _say_restless(self, table: Table, masked: frozenset[int]) -> None:
        if masked:
            columns = ", ".join(table.columns[place] for place in sorted(masked))
            self._notes.append(
                f"{short_name(table.name)}: {columns} will be other values than shown: they come"
                " from the clock, from dice or from a sequence"
            )

    def _say_sequences(self) -> None:
        filled = {oid for oid, (inserted, _, _) in self._counts.items() if inserted}
        array = "{" + ",".join(map(str, sorted(filled))) + "}"
        for row in self._db.run(_SEQUENCES, [array]).rows:
            self._notes.append(
                f"a rehearsal may draw numbers of the sequence {row[0]}: they are not given back"
            )

    # --- taking it back ---------------------------------------------------------------------------

    def _images(self) -> bytes:
        """Row images, canonical; empty, with the reason told, where there can be none."""
        rows: list[Image] = []
        for oid, changes in self._changes.items():
            table = self._tables[oid]
            name = short_name(table.name)
            if not table.key:
                self._irreversible(f"{name} has no primary key")
            for change in changes:
                if any(v is not None and v.row is None for v in (change.old, change.new)):
                    self._irreversible(f"a row of {name} is too large to keep")
            if self._why_irreversible:
                return b""
            rows += [image for change in changes if (image := _image(table, change)) is not None]
        if len(rows) > limits.SQL_ROWS_REVERSIBLE_MAX:
            self._irreversible(f"it changes more than {limits.SQL_ROWS_REVERSIBLE_MAX} rows")
            return b""
        return _encoded(rows, self._tables, (), {})

    def _rehearsed_undo(self, images: bytes) -> bytes:
        """Puts the rows back and rolls that back too: only so does one know that it can be done."""
        first = self._tried(images)
        if not first:
            return images
        rows = postgres_undo.decode(images).rows
        logs, stamps = self._logs(), self._stamps()
        for kept, stamped in ((logs, {}), ((), stamps), (logs, stamps)):
            if not kept and not stamped:
                continue
            left = [image for image in rows if image.table not in kept]
            lesser = _encoded(left, self._tables, kept, stamped)
            if not self._tried(lesser):
                self._say_lesser(kept, stamped)
                return lesser
        self._irreversible(first)
        return b""

    def _say_lesser(self, logs: tuple[str, ...], stamps: dict[str, tuple[str, ...]]) -> None:
        if logs:
            listed = ", ".join(map(short_name, logs))
            self._notes.append(
                f"taking it back leaves what triggers add to {listed}, and adds more"
            )
        for name, columns in stamps.items():
            self._notes.append(
                "taking it back leaves the time that a trigger writes in"
                f" {short_name(name)}: {', '.join(columns)}"
            )

    def _tried(self, images: bytes) -> str:
        """Why it can't be put back; empty: it can."""
        try:
            with self._db.savepoint():
                postgres_undo.restore(self._db, postgres_undo.decode(images))
        except errors.UndoRefused as refused:
            return f"{refused.what} {refused.why}".strip()
        except EngineError as error:
            if error.state in ("57014", *TRANSIENT):
                raise
            return f"the rows can't be put back: {str(error)[:200]}"
        return ""

    def _logs(self) -> tuple[str, ...]:
        """Tables that the statement does not name and that triggers only add rows to."""
        return tuple(
            sorted(
                self._tables[oid].name
                for oid, (_, updated, deleted) in self._counts.items()
                if not updated and not deleted and oid not in self._statement.tables
            )
        )

    def _stamps(self) -> dict[str, tuple[str, ...]]:
        """By table the columns that every update has set to the time of this transaction."""
        found = {}
        for oid, changes in self._changes.items():
            table = self._tables[oid]
            pairs = [
                (change.old.row, change.new.row)
                for change in changes
                if change.old is not None and change.new is not None
            ]
            columns = tuple(
                table.columns[place]
                for place in table.written
                if place not in table.key
                and pairs
                and all(
                    o and n and n[place] in self._now and o[place] != n[place] for o, n in pairs
                )
            )
            if columns:
                found[table.name] = columns
        return found


def _image(table: Table, change: Change) -> Image | None:
    old = change.old.row if change.old is not None else None
    new = change.new.row if change.new is not None else None
    row = old or new
    assert row is not None, "rows that are too large were sorted out before"
    if old == new:
        return None
    return Image(table.name, tuple(row[place] for place in table.key), old, new)


def _encoded(
    rows: list[Image],
    tables: dict[int, Table],
    logs: tuple[str, ...],
    stamps: dict[str, tuple[str, ...]],
) -> bytes:
    """Images of changed rows, canonical."""
    names = {image.table for image in rows}
    columns = {t.name: t.columns for t in tables.values() if t.name in names}
    stamps = {name: stamps[name] for name in sorted(stamps) if name in names}
    rows = sorted(rows, key=msgspec.msgpack.encode)
    return msgspec.msgpack.encode(
        Images(IMAGES_VERSION, dict(sorted(columns.items())), rows, tuple(sorted(logs)), stamps)
    )
