"""Taking back what a statement did to a PostgreSQL database: row images put back, or refused.

It never overwrites what came after. Triggers and cascades fire: the engine's counts must show that
the rows of the images changed and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ring0 import errors
from ring0.tools.sql.plan import TableChange
from ring0.tools.sql.postgres.connection import TRANSIENT, Connection, EngineError, Text
from ring0.tools.sql.postgres.images import IMAGES_VERSION, Image, Images, Row
from ring0.tools.sql.postgres.tables import (
    Counts,
    Table,
    by_root,
    counted,
    outputs,
    quoted,
    read_tables,
    short_name,
)

_NAMED: Final = """
SELECT c.oid::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE pg_catalog.format('%I.%I', n.nspname, c.relname)
    = ANY (ARRAY(SELECT pg_catalog.json_array_elements_text($1::json)))
    AND c.relkind IN ('r', 'p')
"""
_PARENTS: Final = """
SELECT conrelid::oid::text, confrelid::oid::text FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND conrelid = ANY ($1::oid[]) AND confrelid = ANY ($1::oid[])
    AND conrelid <> confrelid
"""


def decode(images: bytes) -> Images:
    """The images as kept; UndoRefused where there are none or they are not ours."""
    try:
        decoded = msgspec.msgpack.decode(images, type=Images)
    except msgspec.DecodeError:
        decoded = None
    if decoded is None or decoded.version != IMAGES_VERSION:
        raise errors.UndoRefused(
            "There are no row images of this effect.",
            why="It was not reversible when it was done, or its record is damaged.",
        )
    return decoded


def restore(db: Connection, images: Images) -> tuple[TableChange, ...]:
    """Set every row back to its before-image, or raise UndoRefused. The caller's transaction."""
    tables = _checked_tables(db, images)
    work = _Work(db, tables, images)
    work.check("after", "it has changed since")
    orders = (
        (work.delete, work.insert, work.update),
        (work.insert, work.update, work.delete),
    )
    for number, order in enumerate(orders):
        db.run("SAVEPOINT ring0_restore")
        try:
            work.go(order)
        except (EngineError, errors.UndoRefused) as error:
            last = number + 1 == len(orders)
            if isinstance(error, EngineError) and error.state in ("57014", *TRANSIENT):
                raise
            if last:
                raise _refused(error) from None
            db.run("ROLLBACK TO SAVEPOINT ring0_restore")
            continue
        db.run("RELEASE SAVEPOINT ring0_restore")
        break
    return work.changes()


def _refused(error: EngineError | errors.UndoRefused) -> errors.UndoRefused:
    if isinstance(error, errors.UndoRefused):
        return error
    return errors.UndoRefused(
        "The rows can't be put back: the database does not take them.",
        why=str(error)[:200],
        todo="Look at those rows, and change them by hand if they should be as before.",
    )


def _checked_tables(db: Connection, images: Images) -> dict[str, Table]:
    names = msgspec.json.encode(sorted({*images.columns, *images.logs})).decode()
    oids = {int(row[0] or 0) for row in db.run(_NAMED, [names]).rows}
    tables = {table.name: table for table in read_tables(db, oids).values()}
    for name, columns in images.columns.items():
        table = tables.get(name)
        if table is None or table.columns != columns or not table.key:
            raise errors.UndoRefused(
                f"The table {name} is not what it was: it was dropped or its columns changed.",
                todo="Restore by hand; the row images are kept in the journal.",
            )
        if table.why_unseen:
            raise errors.UndoRefused(f"The rows of {name} can't be looked at: {table.why_unseen}.")
    return tables


class _Work:
    """One restoring, in the order that foreign keys want."""

    def __init__(self, db: Connection, tables: dict[str, Table], images: Images) -> None:
        self._db = db
        self._tables = tables
        self._logs = {tables[name].oid for name in images.logs if name in tables}
        self._stamps = images.stamps
        self._rows: dict[str, list[Image]] = {name: [] for name in images.columns}
        for image in images.rows:
            self._rows[image.table].append(image)
        self._order = self._parents_first()

    def go(self, steps: Iterable[Callable[[], None]]) -> None:
        before = counted(self._db)
        for step in steps:
            step()
        self._db.run("SET CONSTRAINTS ALL IMMEDIATE")
        change = counted(self._db).since(before)
        if change.catalog:
            raise errors.UndoRefused("A trigger changes the schema when the rows are put back.")
        self._check_counts(by_root(self._db, change.tables))
        self.check("before", "the engine did not store it as it was")

    def changes(self) -> tuple[TableChange, ...]:
        return tuple(
            TableChange(
                short_name(name),
                sum(image.after is None for image in rows),
                sum(image.after is not None and image.before is not None for image in rows),
                sum(image.before is None for image in rows),
            )
            for name, rows in sorted(self._rows.items())
        )

    # --- looking ----------------------------------------------------------------------------------

    def check(self, moment: str, why: str) -> None:
        """All rows are as the images say of that moment, or UndoRefused."""
        for name, rows in self._rows.items():
            now = self._rows_at(self._tables[name], [image.key for image in rows])
            for image in rows:
                wanted = image.after if moment == "after" else image.before
                found = now.get(tuple(image.key))
                if moment == "before" and image.after is not None:
                    found, wanted = self._unstamped(name, found), self._unstamped(name, wanted)
                if found != (None if wanted is None else tuple(wanted)):
                    key = ", ".join(str(value)[:80] for value in image.key)
                    raise errors.UndoRefused(
                        f"Row {key} of {short_name(name)} can't be put back: {why}.",
                        why="Undo never overwrites what came after. Nothing was changed.",
                        todo="Look at that row, and change it by hand if it should be as before.",
                    )

    def _unstamped(self, name: str, row: Row | None) -> Row | None:
        """A row without the columns in which triggers write the time."""
        if row is None:
            return None
        stamps = self._stamps.get(name, ())
        columns = self._tables[name].columns
        return tuple(v for v, column in zip(row, columns, strict=True) if column not in stamps)

    def _rows_at(self, table: Table, keys: list[tuple[Text, ...]]) -> dict[Row, Row]:
        columns = [f"ring0_row.{quoted(column)}" for column in table.columns]
        found = {}
        for row in self._db.run(
            f"SELECT {outputs(columns)} FROM {table.source} ring0_row"
            f" WHERE {_key_condition(table)}",
            [_json(keys)],
        ).rows:
            values = tuple(msgspec.json.decode(row[0] or "[]"))
            found[tuple(values[place] for place in table.key)] = values
        return found

    def _check_counts(self, counts: Counts) -> None:
        """The engine changed what the images say, and nothing else."""
        for name, rows in self._rows.items():
            table = self._tables[name]
            inserted, updated, deleted = counts.pop(table.oid, (0, 0, 0))
            changed = sum(i.after is not None and i.before is not None for i in rows)
            fresh, gone = sum(i.after is None for i in rows), sum(i.before is None for i in rows)
            # A row that moves to another partition is deleted here and inserted there.
            if (inserted + updated, updated + deleted) != (fresh + changed, changed + gone):
                raise _more(table)
        for oid, (_, updated, deleted) in counts.items():
            if oid not in self._logs or updated or deleted:
                name = next(iter(read_tables(self._db, {oid}).values())).name
                raise errors.UndoRefused(
                    f"Putting the rows back would change {short_name(name)} too, by a trigger or"
                    " a foreign key."
                )

    def _parents_first(self) -> list[str]:
        """Tables in an order in which each comes after those that it refers to."""
        by_oid = {self._tables[name].oid: name for name in self._rows}
        array = "{" + ",".join(map(str, by_oid)) + "}"
        wanted: dict[str, set[str]] = {name: set() for name in self._rows}
        for child, parent in self._db.run(_PARENTS, [array]).rows:
            wanted[by_oid[int(child or 0)]].add(by_oid[int(parent or 0)])
        order: list[str] = []
        while wanted:
            # In a circle any comes first: the engine says whether it can be.
            free = [name for name in sorted(wanted) if not wanted[name] & wanted.keys()]
            name = (free or sorted(wanted))[0]
            order.append(name)
            del wanted[name]
        return order

    # --- changing ---------------------------------------------------------------------------------

    def delete(self) -> None:
        for name in reversed(self._order):
            table = self._tables[name]
            keys = [image.key for image in self._rows[name] if image.before is None]
            if keys:
                self._db.run(
                    f"DELETE FROM {table.source} ring0_row WHERE {_key_condition(table)}",
                    [_json(keys)],
                )

    def insert(self) -> None:
        for name in self._order:
            table = self._tables[name]
            rows = [i.before for i in self._rows[name] if i.after is None and i.before is not None]
            if rows:
                columns = ", ".join(quoted(table.columns[place]) for place in table.written)
                values = ", ".join(_value(table, place, place) for place in table.written)
                self._db.run(
                    f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values}"
                    " FROM pg_catalog.json_array_elements($1::pg_catalog.json) AS ring0_new(v)",
                    [_json(rows)],
                )

    def update(self) -> None:
        for name in self._order:
            table = self._tables[name]
            images = [i for i in self._rows[name] if i.before is not None and i.after is not None]
            moved = [
                place
                for place in table.written
                if table.columns[place] not in self._stamps.get(name, ())
                and any((i.before or ())[place] != (i.after or ())[place] for i in images)
            ]
            if not images or not moved:
                continue
            sets = ", ".join(
                f"{quoted(table.columns[place])} = {_value(table, place, place)}" for place in moved
            )
            # An image of an update has one key: before and after.
            keys = " AND ".join(
                f"ring0_row.{quoted(table.columns[place])} = {_value(table, place, place)}"
                for place in table.key
            )
            self._db.run(
                f"UPDATE {table.source} ring0_row SET {sets}"
                " FROM pg_catalog.json_array_elements($1::pg_catalog.json) AS ring0_new(v)"
                f" WHERE {keys}",
                [_json([i.before for i in images if i.before is not None])],
            )


def _more(table: Table) -> errors.UndoRefused:
    return errors.UndoRefused(
        f"Putting the rows back would change more rows of {short_name(table.name)} than were"
        " changed, by a trigger or a foreign key."
    )


def _json(rows: list[tuple[Text, ...]]) -> str:
    return msgspec.json.encode(rows).decode()


def _value(table: Table, column: int, place: int) -> str:
    """SQL that reads a column's value out of the JSON row `v`."""
    return f"(ring0_new.v OPERATOR(pg_catalog.->>) {place})::{table.types[column]}"


def _key_condition(table: Table) -> str:
    columns = ", ".join(f"ring0_row.{quoted(table.columns[place])}" for place in table.key)
    values = ", ".join(_value(table, column, place) for place, column in enumerate(table.key))
    return (
        f"({columns}) IN (SELECT {values}"
        " FROM pg_catalog.json_array_elements($1::pg_catalog.json) AS ring0_new(v))"
    )
