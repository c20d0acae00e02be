"""A small shop database and the engine's calls with a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from ring0.tools.sql.sqlite import engine
from ring0.tools.sql.sqlite.engine import Moment, TableChange

MOMENT = Moment(now_us=1_700_000_000_000_000, seed=b"dice")


def never() -> bool:
    return False


def after(looks: int) -> Callable[[], bool]:
    """A deadline that is over at the given look: no clock is needed."""
    left = [looks]

    def is_over() -> bool:
        left[0] -= 1
        return left[0] < 0

    return is_over


def plan(database: str, statement: str, parameters: Any = ()) -> engine.Plan:
    return engine.plan(database, statement, parameters, moment=MOMENT, is_over=never)


def query(database: str, statement: str, parameters: Any = ()) -> engine.Rows:
    return engine.query(database, statement, parameters, is_over=never)


def execute(database: str, statement: str, digest: str, parameters: Any = ()) -> engine.Done:
    return engine.execute(database, statement, parameters, digest, moment=MOMENT, is_over=never)


def do(database: str, statement: str, parameters: Any = ()) -> engine.Done:
    return execute(database, statement, plan(database, statement, parameters).digest, parameters)


def undo(database: str, images: bytes) -> tuple[TableChange, ...]:
    return engine.undo(database, images, is_over=never)


def state(database: str, images: bytes) -> str:
    return engine.state(database, images, is_over=never)


def run(database: str, script: str) -> None:
    db = apsw.Connection(database)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    db.execute(script)
    db.close()


def dump(database: str) -> dict[str, list[Any]]:
    """Every table, row ids and types included; the schema too."""
    db = apsw.Connection(database, flags=apsw.SQLITE_OPEN_READONLY)
    found: dict[str, list[Any]] = {
        "": list(db.execute("SELECT type, name, sql FROM sqlite_schema"))
    }
    for name, no_rowid in list(db.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema='main' AND type='table' "
        "AND name NOT LIKE 'sqlite_%'"
    )):  # fmt: skip
        rowid = "" if no_rowid else "rowid, "
        rows = db.execute(f'SELECT {rowid}* FROM "{name}"')
        found[name] = sorted([repr(row) for row in rows])
    db.close()
    return found


def counts(changes: tuple[TableChange, ...]) -> dict[str, tuple[int, int, int]]:
    return {c.table: (c.inserted, c.updated, c.deleted) for c in changes}


SHOP = """
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE);
CREATE TABLE orders(id INTEGER PRIMARY KEY,
    customer INTEGER REFERENCES customers(id) ON DELETE CASCADE, total REAL);
CREATE INDEX orders_customer ON orders(customer);
CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
INSERT INTO customers(id, name, email) VALUES (1,'Ada','a@x'),(2,'Bob','b@x'),(3,'Cyd','c@x');
INSERT INTO orders(customer, total) VALUES (1, 10.5),(1, 20),(2, 30);
"""
