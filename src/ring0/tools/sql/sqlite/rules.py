"""What a statement may ask of SQLite: the engine's authorizer, with allow-lists, never a parser.

The engine calls the judge for everything it compiles, in triggers, views and foreign-key actions
too. What is not named here is refused.
"""

from __future__ import annotations

from typing import Final

import apsw

SCHEMA_ACTIONS: Final = {
    apsw.SQLITE_CREATE_INDEX: "creates index",
    apsw.SQLITE_CREATE_TABLE: "creates table",
    apsw.SQLITE_CREATE_TEMP_INDEX: "creates temporary index",
    apsw.SQLITE_CREATE_TEMP_TABLE: "creates temporary table",
    apsw.SQLITE_CREATE_TEMP_TRIGGER: "creates temporary trigger",
    apsw.SQLITE_CREATE_TEMP_VIEW: "creates temporary view",
    apsw.SQLITE_CREATE_TRIGGER: "creates trigger",
    apsw.SQLITE_CREATE_VIEW: "creates view",
    apsw.SQLITE_DROP_INDEX: "drops index",
    apsw.SQLITE_DROP_TABLE: "drops table",
    apsw.SQLITE_DROP_TEMP_INDEX: "drops temporary index",
    apsw.SQLITE_DROP_TEMP_TABLE: "drops temporary table",
    apsw.SQLITE_DROP_TEMP_TRIGGER: "drops temporary trigger",
    apsw.SQLITE_DROP_TEMP_VIEW: "drops temporary view",
    apsw.SQLITE_DROP_TRIGGER: "drops trigger",
    apsw.SQLITE_DROP_VIEW: "drops view",
    apsw.SQLITE_DROP_VTABLE: "drops virtual table",
    apsw.SQLITE_REINDEX: "rebuilds index",
    apsw.SQLITE_ANALYZE: "analyses table",
}
"""Actions whose first argument is the thing's name. ALTER TABLE has it second."""

_WRITES: Final = (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE)

INNER_PRAGMAS: Final = frozenset(
    {
        "data_version",
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
    }
)
"""What FTS5 asks by itself, and the table-valued forms that only describe the schema."""

_FUNCTION_NAMES: Final = """
    -> ->> abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling changes char coalesce
    concat concat_ws cos cosh count cume_dist current_date current_time current_timestamp date
    datetime degrees dense_rank exp first_value floor format glob group_concat hex highlight if
    ifnull iif instr json json_array json_array_insert json_array_length json_error_position
    json_extract json_group_array json_group_object json_insert json_object json_patch json_pretty
    json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array
    jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object
    jsonb_patch jsonb_remove jsonb_replace jsonb_set julianday lag last_insert_rowid last_value
    lead length like likelihood likely ln log log10 log2 lower ltrim match matchinfo max median min
    mod nth_value ntile nullif octet_length offsets percent_rank percentile percentile_cont
    percentile_disc pi pow power printf quote radians random randomblob rank replace round
    row_number rtrim sign sin sinh snippet soundex sqlite_source_id sqlite_version sqrt strftime
    string_agg substr substring subtype sum tan tanh time timediff total total_changes trim trunc
    typeof unhex unicode unistr unistr_quote unixepoch unlikely upper zeroblob
"""
FUNCTIONS: Final = frozenset(_FUNCTION_NAMES.split())
"""Functions that compute and touch nothing else."""


class Judge:
    """The authorizer of one connection. `refused` is the first thing that was not allowed."""

    def __init__(self, *, may_write: bool) -> None:
        self._may_write = may_write
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.refused: tuple[str, str] | None = None
        """The kind ("write", "schema" or "forbidden") and the engine's action in words."""
        self.internal = False
        """It writes the schema table: legal only as a part of an action that is refused."""
        self.asked = 0
        self.running = False
        """The statement is compiled: from now on virtual tables ask for work of their own."""

    def __call__(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        inside: str | None,
    ) -> int:
        self.asked += 1
        refused = self._why_not(action, first or "", second or "", database or "main")
        if refused is None:
            return apsw.SQLITE_OK
        if self.refused is None:
            kind, why = refused
            self.refused = (kind, f"{why}, in {inside}" if inside else why)
        return apsw.SQLITE_DENY

    def _why_not(
        self, action: int, first: str, second: str, database: str
    ) -> tuple[str, str] | None:
        if action in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
            return None
        if action == apsw.SQLITE_READ:
            self.reads.add(first)
            return None
        if action == apsw.SQLITE_FUNCTION:
            return None if second.lower() in FUNCTIONS else ("forbidden", f"function {second}")
        if action in _WRITES:
            return self._write(first, database)
        if action in SCHEMA_ACTIONS:
            return "schema", f"{SCHEMA_ACTIONS[action]} {first}"
        if action == apsw.SQLITE_ALTER_TABLE:
            return "schema", f"alters table {second}"
        if action == apsw.SQLITE_PRAGMA and self.running and first.lower() in INNER_PRAGMAS:
            return None
        name = str(apsw.mapping_authorizer_function.get(action, action))
        return "forbidden", f"{name.removeprefix('SQLITE_')} {first}".strip()

    def _write(self, table: str, database: str) -> tuple[str, str] | None:
        if table.lower() in ("sqlite_master", "sqlite_temp_master"):
            # CREATE and DROP begin so. Their own action, which names the table, comes next and is
            # refused; such a write alone is refused by whoever looks at `internal`.
            self.internal = True
            return None
        if database != "main" or table.lower().startswith("sqlite_"):
            return "forbidden", f"writes the internal table {table}"
        self.writes.add(table)
        return None if self._may_write else ("write", f"changes table {table}")
