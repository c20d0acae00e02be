"""What the engine itself says of tables: their form, the rows that a transaction changed.

Nothing here looks at a row; that is `postgres_images.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from ring0.tools.sql.plan import TableChange
from ring0.tools.sql.postgres.connection import Connection, Text

Counts = dict[int, tuple[int, int, int]]
"""By table: rows inserted, updated, deleted; more than once counts more than once."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What of a table's form is needed to see and restore its rows."""

    oid: int
    name: str
    """As one writes it, with its schema."""
    kind: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    written: tuple[int, ...]
    """Places of the columns that a statement may write: all but the generated ones."""
    key: tuple[int, ...]
    """Places of the primary key; empty: there is none."""
    why_unseen: str = ""
    """Why its rows can't be looked at; empty: they can."""
    secured: bool = False
    """Its row security may hide rows from the role."""

    @property
    def source(self) -> str:
        """Its own rows: those of a partitioned table are in its partitions."""
        return self.name if self.kind == "p" else f"ONLY {self.name}"


# --- what the engine counted ----------------------------------------------------------------------

_COUNTS: Final = """
SELECT relid::text, schemaname, relname, n_tup_ins::text, n_tup_upd::text, n_tup_del::text
FROM pg_catalog.pg_stat_xact_all_tables
WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname <> 'pg_toast'
"""
_LOCKS: Final = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text
FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
    AND (c.relkind = 'f' OR l.mode = 'AccessExclusiveLock')
"""


class Counted(msgspec.Struct, frozen=True):
    """The engine's counters at one moment of the transaction."""

    tables: Counts
    catalog: dict[str, int]

    def since(self, earlier: Counted) -> Counted:
        tables = {
            oid: (now[0] - was[0], now[1] - was[1], now[2] - was[2])
            for oid, now in self.tables.items()
            if now != (was := earlier.tables.get(oid, (0, 0, 0)))
        }
        catalog = {
            name: now - earlier.catalog.get(name, 0)
            for name, now in self.catalog.items()
            if now != earlier.catalog.get(name, 0)
        }
        return Counted(tables, catalog)


def counted(db: Connection) -> Counted:
    """All rows that this transaction has changed so far, those rolled back too."""
    tables: Counts = {}
    catalog: dict[str, int] = {}
    for oid, schema, name, *numbers in db.run(_COUNTS).rows:
        assert oid and name
        inserted, updated, deleted = (int(number or 0) for number in numbers)
        if schema in ("pg_catalog", "information_schema"):
            catalog[name] = inserted + updated + deleted
        else:
            tables[int(oid)] = (inserted, updated, deleted)
    return Counted(tables, catalog)


def why_not_rows(db: Connection, change: Counted) -> tuple[str, str]:
    """What changed beside rows: the kind (schema, forbidden) and why; empty where nothing did."""
    if any(name.startswith("pg_largeobject") for name in change.catalog):
        return "forbidden", "changes large objects"
    if change.catalog:
        return "schema", f"changes the catalog: {', '.join(sorted(change.catalog))}"
    for name, kind in db.run(_LOCKS).rows:
        if kind == "f":
            return "forbidden", f"reaches the foreign table {name}: rows of another server"
        return "schema", f"empties or rebuilds {name}"
    return "", ""


# --- the form of tables ---------------------------------------------------------------------------

_TABLES: Final = """
SELECT c.oid::text, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text,
    pg_catalog.has_table_privilege(c.oid, 'SELECT')::text,
    pg_catalog.row_security_active(c.oid)::text,
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname,
            pg_catalog.format('%I.%I', tn.nspname, t.typname), a.attgenerated = '',
            pg_catalog.array_position(i.indkey::int2[], a.attnum)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
            JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text
FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.oid = ANY ($1::oid[])
"""
_ROOTS: Final = """
SELECT oid::text, coalesce(pg_catalog.pg_partition_root(oid)::oid, oid)::text
FROM pg_catalog.pg_class WHERE oid = ANY ($1::oid[])
"""


def by_root(db: Connection, counts: Counts) -> Counts:
    """The counts of partitions added up in the table that they are partitions of."""
    array = "{" + ",".join(map(str, counts)) + "}"
    roots = {int(oid or 0): int(root or 0) for oid, root in db.run(_ROOTS, [array]).rows}
    sums: dict[int, Counter[int]] = {}
    for oid, numbers in counts.items():
        total = sums.setdefault(roots.get(oid, oid), Counter())
        for place, number in enumerate(numbers):
            total[place] += number
    return {oid: (total[0], total[1], total[2]) for oid, total in sums.items()}


def read_tables(db: Connection, oids: set[int]) -> dict[int, Table]:
    """The form of tables, read inside the transaction that relies on it."""
    array = "{" + ",".join(map(str, sorted(oids))) + "}"
    return {int(row[0] or 0): _table(row) for row in db.run(_TABLES, [array]).rows}


def _table(row: list[Text]) -> Table:
    oid, name, kind, readable, secured, described = row
    assert oid and name and kind
    columns = msgspec.json.decode(described or "[]")
    key = sorted(
        (place, number) for number, (_, _, _, place) in enumerate(columns) if place is not None
    )
    why = ""
    if kind not in "rp":
        why = "it is no ordinary table"
    elif readable != "true":
        why = "the role may not read it"
    return Table(
        oid=int(oid),
        name=name,
        kind=kind,
        columns=tuple(column[0] for column in columns),
        types=tuple(column[1] for column in columns),
        written=tuple(place for place, column in enumerate(columns) if column[2]),
        key=tuple(number for _, number in key),
        why_unseen=why,
        secured=secured == "true",
    )


def quoted(name: str) -> str:
    """A name as SQL text."""
    return '"' + name.replace('"', '""') + '"'


def output(expression: str) -> str:
    """SQL for a value as the text that its type reads back exactly; NULL for NULL."""
    return (
        f"CASE WHEN pg_catalog.num_nulls({expression}) = 0"
        f" THEN pg_catalog.format('%s', {expression}) END"
    )


def outputs(expressions: list[str]) -> str:
    """SQL for a row of values as a JSON array of texts."""
    listed = ", ".join(map(output, expressions))
    return f"pg_catalog.array_to_json(ARRAY[{listed}]::pg_catalog.text[])::pg_catalog.text"


def table_change(table: Table, numbers: tuple[int, int, int]) -> TableChange:
    return TableChange(short_name(table.name), *numbers)


def short_name(name: str) -> str:
    """Without `public.`: the schema that everybody means."""
    return name.removeprefix("public.")
