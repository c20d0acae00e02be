"""Taking back what a statement did to a SQLite database: row images put back, or refused.

It never overwrites what came after: every row must be exactly as the statement left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import apsw
import msgspec

from ring0 import errors
from ring0.tools.sql.plan import TableChange
from ring0.tools.sql.sqlite.images import (
    IMAGES_VERSION,
    Image,
    Images,
    Row,
    Table,
    Value,
    key_condition,
    quoted,
    read_tables,
    row_at,
    same,
    short,
)


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


def _checked_tables(db: apsw.Connection, images: Images) -> dict[str, Table]:
    tables = read_tables(db)
    for name, columns in images.columns.items():
        table = tables.get(name)
        if table is None or table.columns != columns or table.kind != "table":
            raise errors.UndoRefused(
                f"The table {name} is not what it was: it was dropped or its columns changed.",
                todo="Restore by hand; the row images are kept in the journal.",
            )
    return tables


def compare(db: apsw.Connection, images: bytes) -> str:
    """`done`, `not_done` or `mixed`: which of the two images all rows are equal to now."""
    decoded = decode(images)
    tables = _checked_tables(db, decoded)
    now = [(row_at(db, tables[i.table], i.key), i) for i in decoded.rows]
    if all(same(row, image.after) for row, image in now):
        return "done"
    return "not_done" if all(same(row, image.before) for row, image in now) else "mixed"


def restore(db: apsw.Connection, images: bytes) -> tuple[TableChange, ...]:
    """Set every row back to its before-image, or raise UndoRefused. The caller's transaction.

    Triggers and foreign-key actions must be off: what they did has images of its own.
    """
    decoded = decode(images)
    tables = _checked_tables(db, decoded)
    for image in decoded.rows:
        if not same(row_at(db, tables[image.table], image.key), image.after):
            raise _refused(image, "it has changed since")
    broken = _broken_references(db, decoded.columns)
    counts: dict[str, Counter[str]] = {name: Counter() for name in decoded.columns}
    # All deletions first: a unique value is free again before its former owner comes back.
    for image in decoded.rows:
        if image.after is not None:
            _delete(db, tables[image.table], image)
            counts[image.table]["updated" if image.before is not None else "deleted"] += 1
        else:
            counts[image.table]["inserted"] += 1
    for image in decoded.rows:
        if image.before is not None:
            _insert(db, tables[image.table], image)
    for image in decoded.rows:
        if not same(row_at(db, tables[image.table], image.key), image.before):
            raise _refused(image, "the engine did not store it as it was")
    worse = _broken_references(db, decoded.columns) - broken
    if worse:
        child, rowid, parent, _ = next(iter(worse))
        raise errors.UndoRefused(
            f"This can't be taken back: row {rowid!r} of {child!r} would refer to no row of "
            f"{parent!r}.",
            todo="Take back what was done after it first.",
        )
    return tuple(
        TableChange(name, count["inserted"], count["updated"], count["deleted"])
        for name, count in sorted(counts.items())
    )


def _delete(db: apsw.Connection, table: Table, image: Image) -> None:
    db.execute(f"DELETE FROM main.{quoted(table.name)} WHERE {key_condition(table)}", image.key)


def _insert(db: apsw.Connection, table: Table, image: Image) -> None:
    assert image.before is not None
    names = [quoted(table.columns[place]) for place in table.written]
    values: list[Value] = [image.before[place] for place in table.written]
    if not table.key:
        names.append(table.rowid_name)
        values.append(image.key[0])
    marks = ", ".join("?" * len(names))
    try:
        # ABORT also where the schema says ON CONFLICT REPLACE: undo destroys nothing.
        db.execute(
            f"INSERT OR ABORT INTO main.{quoted(table.name)} ({', '.join(names)}) VALUES ({marks})",
            values,
        )
    except apsw.ConstraintError as error:
        raise _refused(image, f"the database does not take it: {str(error)[:200]}") from None


def _refused(image: Image, why: str) -> errors.UndoRefused:
    key = ", ".join(str(short(value)) for value in image.key)
    return errors.UndoRefused(
        f"Row {key} of {image.table} can't be put back: {why}.",
        why="Undo never overwrites what came after. Nothing was changed.",
        todo="Look at that row, and change it by hand if it should be as before.",
    )


def _broken_references(db: apsw.Connection, touched: Iterable[str]) -> Counter[Row]:
    """The foreign-key violations in the touched tables and in those that refer to them."""
    names = {name.lower() for name in touched}
    children = {
        str(child)
        for child, parent in db.execute(
            'SELECT t.name, f."table" FROM pragma_table_list t, pragma_foreign_key_list(t.name) f '
            "WHERE t.schema = 'main' AND t.type = 'table'"
        )
        if str(child).lower() in names or str(parent).lower() in names
    }
    broken: Counter[Row] = Counter()
    for child in sorted(children):
        broken.update(
            db.execute(
                'SELECT "table", rowid, parent, fkid FROM pragma_foreign_key_check(?)', (child,)
            )
        )
    return broken
