"""Row images of PostgreSQL: what a statement changed, table by table, as the engine counts it.

Which tables and how many rows: the engine's own counters of the transaction. Which rows: those that
this transaction made (`xmin`) and, through a cursor as old as the statement, those that it ended.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.tools.sql.plan import RowSample
from ring0.tools.sql.postgres.connection import Connection, Text
from ring0.tools.sql.postgres.tables import Table, outputs, quoted, short_name

IMAGES_VERSION: Final = 1
SAMPLE_ROWS_MAX: Final = 5
SAMPLE_VALUE_CHARS_MAX: Final = 80

Row = tuple[Text, ...]


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
    logs: tuple[str, ...]
    """Tables whose rows triggers add: they stay when the rest is taken back."""
    stamps: dict[str, tuple[str, ...]]
    """By table the columns in which triggers write the time: they keep that of the last change."""


class Version(msgspec.Struct, frozen=True):
    """One row as it was or is."""

    place: tuple[str, str]
    """Table and place in its file."""
    row: Row | None
    """None: it is too large to keep."""
    digest: str


def _columns(table: Table) -> list[str]:
    return [f"ring0_row.{quoted(column)}" for column in table.columns]


def _version_columns(table: Table) -> str:
    whole = "ring0_row::pg_catalog.text"
    return (
        "ring0_row.tableoid::pg_catalog.text, ring0_row.ctid::pg_catalog.text,"
        f" CASE WHEN pg_catalog.octet_length({whole}) <= {limits.POSTGRES_ROW_SIZE_BYTES_MAX}"
        f" THEN {outputs(_columns(table))} END,"
        f" pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({whole}, 'UTF8')), 'hex')"
    )


# --- which rows -----------------------------------------------------------------------------------

# Visible here and as young as this transaction: its own, or one of its subtransactions'. The lower
# bound keeps out rows that were frozen four billion transactions ago.
_OURS: Final = "pg_catalog.age({}) BETWEEN -1000000 AND 0"


def fetched(db: Connection, cursor: str, size: Callable[[int], None]) -> Iterator[list[Text]]:
    """The rows of a cursor, a few at a time."""
    while rows := db.run(f"FETCH {limits.POSTGRES_ROWS_PER_FETCH} FROM {cursor}").rows:
        size(sum(len(value or "") for row in rows for value in row))
        yield from rows


_BATCH_ROWS: Final = 16 * limits.POSTGRES_ROWS_PER_FETCH
_BATCH_SIZE_BYTES: Final = limits.BLOB_SIZE_BYTES_MAX // 4


class Look:
    """Looks at the rows of some tables before and after a statement, in its transaction."""

    def __init__(self, db: Connection, tables: Mapping[int, Table]) -> None:
        self._db = db
        self.tables = {oid: table for oid, table in tables.items() if not table.why_unseen}
        self._size_bytes = 0

    def before(self) -> None:
        """Opens what will show the old rows, as this moment sees them."""
        for oid, table in self.tables.items():
            for name, condition in (
                (f"ring0_ended_{oid}", _OURS.format("ring0_row.xmax")),
                (f"ring0_locked_{oid}", "ring0_row.xmax <> '0'::pg_catalog.xid"),
            ):
                self._db.run(
                    f"DECLARE {name} NO SCROLL CURSOR FOR SELECT {_version_columns(table)}"
                    f" FROM {table.source} ring0_row WHERE {condition}"
                )

    def close(self) -> None:
        for oid in self.tables:
            self._db.run(f"CLOSE ring0_ended_{oid}")
            self._db.run(f"CLOSE ring0_locked_{oid}")

    def made(self) -> dict[int, list[Version]]:
        """The rows that this transaction has made, as they are now."""
        found = {}
        for oid, table in self.tables.items():
            self._db.run(
                f"DECLARE ring0_made NO SCROLL CURSOR FOR SELECT {_version_columns(table)}"
                f" FROM {table.source} ring0_row WHERE {_OURS.format('ring0_row.xmin')}"
            )
            found[oid] = [_version(row) for row in fetched(self._db, "ring0_made", self._add)]
            self._db.run("CLOSE ring0_made")
        return found

    def ended(self, oid: int, most: int) -> list[Version]:
        """The rows that were there when `before` looked and are there no more."""
        found = self._gone(oid, f"ring0_ended_{oid}")
        if len(found) < most:
            # A row that another transaction has locked hides who changed it: look at all such.
            places = {version.place for version in found}
            locked = self._gone(oid, f"ring0_locked_{oid}")
            found += [version for version in locked if version.place not in places]
        return found

    def _gone(self, oid: int, cursor: str) -> list[Version]:
        gone: list[Version] = []
        batch: list[Version] = []
        size_bytes = [0]

        def add(more_bytes: int) -> None:
            size_bytes[0] += more_bytes

        for seen, row in enumerate(fetched(self._db, cursor, add)):
            batch.append(_version(row))
            if len(batch) >= _BATCH_ROWS or size_bytes[0] > _BATCH_SIZE_BYTES:
                gone += self._not_there(oid, batch)
                batch, size_bytes[0] = [], 0
            if seen > limits.POSTGRES_LOCKED_ROWS_MAX:
                break  # What is missing then shows in the counts.
        return gone + self._not_there(oid, batch)

    def _not_there(self, oid: int, batch: list[Version]) -> list[Version]:
        if not batch:
            return []
        places = "{" + ",".join(f'"{version.place[1]}"' for version in batch) + "}"
        there = {
            (row[0] or "", row[1] or "")
            for row in self._db.run(
                "SELECT tableoid::pg_catalog.text, ctid::pg_catalog.text"
                f" FROM {self.tables[oid].source} WHERE ctid = ANY ($1::pg_catalog.tid[])",
                [places],
            ).rows
        }
        gone = [version for version in batch if version.place not in there]
        self._add(sum(len(value or "") for version in gone for value in version.row or ()))
        return gone

    def _add(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > limits.BLOB_SIZE_BYTES_MAX:
            raise errors.LimitReached(
                f"The rows it changes take more than {limits.BLOB_SIZE_BYTES_MAX} bytes.",
                todo="Change the rows in smaller parts, with a narrower WHERE.",
            )


def _version(row: list[Text]) -> Version:
    table, place, values, digest = row
    decoded = None if values is None else tuple(msgspec.json.decode(values))
    return Version((table or "", place or ""), decoded, digest or "")


# --- what they come to ----------------------------------------------------------------------------


class Change(msgspec.Struct, frozen=True):
    """One row that changed."""

    old: Version | None
    new: Version | None

    @property
    def op(self) -> str:
        return "INSERT" if self.old is None else "DELETE" if self.new is None else "UPDATE"


def paired(table: Table, old: list[Version], new: list[Version]) -> list[Change]:
    """Old and new rows of one key as one change."""

    def key(version: Version) -> Row | None:
        if not table.key or version.row is None:
            return None
        return tuple(version.row[place] for place in table.key)

    fresh = {found: version for version in new if (found := key(version)) is not None}
    changes = []
    for version in old:
        after = fresh.pop(found, None) if (found := key(version)) is not None else None
        changes.append(Change(version, after))
    changes += [Change(None, version) for version in new if key(version) is None]
    return changes + [Change(None, version) for version in fresh.values()]


def restless(table: Table, once: list[Version], again: list[Version]) -> frozenset[int]:
    """Places of the columns that come out otherwise when the same is done again."""
    return frozenset(
        place
        for place in range(len(table.columns))
        if Counter(v.row[place] for v in once if v.row is not None)
        != Counter(v.row[place] for v in again if v.row is not None)
    )


def row_digest(
    table: Table, change: Change, masked: frozenset[int], now: Mapping[str | None, str]
) -> bytes:
    """SHA-256 over one change; without what the clock, dice or sequences give a new row."""
    old, new = change.old, change.new
    after: Any = None
    if new is not None and new.row is None:
        after = new.digest
    elif new is not None and new.row is not None:
        before = old.row if old is not None else None
        after = [
            None if place in masked
            else value if before is not None and before[place] == value
            else {"now": now[value]} if value in now
            else [value]
            for place, value in enumerate(new.row)
        ]  # fmt: skip
    was = None if old is None else old.digest
    return hashlib.sha256(msgspec.json.encode([table.name, change.op, was, after])).digest()


def sample(table: Table, change: Change) -> RowSample:
    """One change for the human who is asked."""
    old = change.old.row if change.old is not None else None
    new = change.new.row if change.new is not None else None
    row = old or new or ()
    shown = {column: _short(value) for column, value in zip(table.columns, row, strict=False)}
    changed = {}
    if old is not None and new is not None:
        changed = {
            column: _short(after)
            for column, before, after in zip(table.columns, old, new, strict=True)
            if before != after
        }
    return RowSample(short_name(table.name), change.op, shown, changed)


def _short(value: Text) -> Text:
    if value is not None and len(value) > SAMPLE_VALUE_CHARS_MAX:
        return f"{value[:SAMPLE_VALUE_CHARS_MAX]}… ({len(value)} characters)"
    return value
