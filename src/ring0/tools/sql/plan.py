"""What a SQL statement would do and what it did, for every engine: values, no behaviour.

`sqlite/engine.py` and `postgres/engine.py` make them; the driver in `tool.py` shows them.
"""

from __future__ import annotations

from typing import Any

import msgspec


class TableChange(msgspec.Struct, frozen=True):
    """How many rows of one table a statement changes."""

    table: str
    inserted: int
    updated: int
    deleted: int


class RowSample(msgspec.Struct, frozen=True):
    """One affected row, shortened, for the human who is asked."""

    table: str
    op: str
    """INSERT, UPDATE or DELETE."""
    row: dict[str, Any]
    """The row as it is; for an INSERT, as it will be."""
    changed: dict[str, Any]
    """For an UPDATE: the columns that change, with their new values."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement would do, found by running it and rolling it back."""

    kind: str
    """read, write, schema or forbidden. Only a write is run."""
    why: str = ""
    """For schema and forbidden: which action of the engine."""
    reads: tuple[str, ...] = ()
    """Tables and views that are read, those behind views, triggers and foreign keys too."""
    changes: tuple[TableChange, ...] = ()
    """Every table changed, by cascades, triggers and REPLACE too, sorted by name."""
    digest: str = ""
    """SHA-256 over all changed rows, old and new: `execute` does this or nothing."""
    reversible: bool = False
    why_irreversible: str = ""
    sample: tuple[RowSample, ...] = ()
    images: bytes = b""
    """What `execute` will return as images: kept with the intent, for `state` after a crash."""
    copies: bool = False
    """It writes values that it takes from a table that it does not change."""
    notes: tuple[str, ...] = ()
    """What else whoever is asked should know, a line each."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What a query gave."""

    columns: tuple[str, ...] = ()
    rows: list[list[Any]] = []
    """Bytes as {"base64": ...}; infinity as None."""
    truncated: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and how it is taken back."""

    changes: tuple[TableChange, ...]
    digest: str
    images: bytes
    """Row images for `undo`; empty where it is not reversible."""
    rows: Rows
    """What RETURNING gave."""


class Restorable(msgspec.Struct, frozen=True, kw_only=True):
    """How far several changes of a database can be taken back, one after another."""

    done: int
    """So many can be."""
    why: str = ""
    """Why the next can't; empty: all can."""
