"""What a statement may ask of PostgreSQL: as the engine has analysed it, never by its text.

`PREPARE … AS` takes one SELECT, INSERT, UPDATE, DELETE or MERGE and nothing else. The engine's own
tree of it, read from a function that is made and rolled back, names every function and
table; views, rules, triggers, defaults and policies are followed in the catalog. What is not known
is refused.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ring0 import errors, limits
from ring0.tools.sql.postgres.connection import Connection, EngineError, Text, ours

NAME: Final = "ring0_statement"

_NODES_TEXT: Final = """
    AGGREF ALIAS ARRAY ARRAYCOERCEEXPR ARRAYEXPR BOOLEANTEST BOOLEXPR CASE CASEEXPR CASETESTEXPR
    CASEWHEN COALESCE COALESCEEXPR COERCETODOMAIN COERCETODOMAINVALUE COERCEVIAIO COLLATE
    COLLATEEXPR COMMONTABLEEXPR CONST CONVERTROWTYPEEXPR CTECYCLECLAUSE CTESEARCHCLAUSE
    CURRENTOFEXPR DISTINCTEXPR FIELDSELECT FIELDSTORE FROMEXPR FUNCEXPR GROUPINGFUNC GROUPINGSET
    INFERENCEELEM JOINEXPR JSONBEHAVIOR JSONCONSTRUCTOREXPR JSONEXPR JSONFORMAT JSONISPREDICATE
    JSONRETURNING JSONTABLEPATH JSONTABLEPATHSCAN JSONTABLESIBLINGJOIN JSONVALUEEXPR MERGEACTION
    MERGESUPPORTFUNC MINMAX MINMAXEXPR NAMEDARGEXPR NEXTVALUEEXPR NULLIFEXPR NULLTEST
    ONCONFLICTEXPR OPEXPR PARAM QUERY RANGETBLENTRY RANGETBLFUNCTION RANGETBLREF RELABELTYPE
    RETURNINGEXPR ROW ROWCOMPARE ROWCOMPAREEXPR ROWEXPR ROWMARKCLAUSE RTE RTEPERMISSIONINFO
    SCALARARRAYOPEXPR SETOPERATIONSTMT SETTODEFAULT SORTGROUPCLAUSE SQLVALUEFUNCTION SUBLINK
    SUBSCRIPTINGREF TABLEFUNC TABLESAMPLECLAUSE TARGETENTRY VAR WHEN WINDOWCLAUSE WINDOWFUNC
    WITHCHECKOPTION XMLEXPR
"""
_NODES: Final = frozenset(_NODES_TEXT.split())
"""The parts of a tree whose functions and tables are found by the patterns below."""

_NODE: Final = re.compile(r"(?<!\\)\{([A-Z_]+)")
_FUNCTION: Final = re.compile(
    r":(?:funcid|opfuncid|aggfnoid|winfnoid|tsmhandler|startInRangeFunc|endInRangeFunc) ([1-9]\d*)"
)
_OPERATOR: Final = re.compile(r":(?:opno|eqop|sortop|cycle_mark_neop) ([1-9]\d*)")
_OPERATORS: Final = re.compile(r":opnos \(o ([\d ]+)\)")
_RELATION: Final = re.compile(r":relid ([1-9]\d*)")
_COMMAND: Final = re.compile(r"\{QUERY :commandType (\d)")

_VOLATILE_FINE_TEXT: Final = """
    array_sample array_shuffle bernoulli clock_timestamp current_query currval gen_random_uuid
    lastval nextval pg_collation_actual_version pg_current_wal_lsn pg_database_size
    pg_indexes_size pg_is_in_recovery pg_jit_available pg_partition_ancestors pg_partition_tree
    pg_relation_size pg_sequence_last_value pg_table_size pg_total_relation_size random
    random_normal system timeofday uuidv4 uuidv7
"""
VOLATILE_FINE: Final = frozenset(_VOLATILE_FINE_TEXT.split())
"""Volatile functions of the engine's own that throw dice, look at the clock or at sizes."""

_READS_BY_TEXT: Final = re.compile(r"_to_xml(schema|_and_xmlschema)?$")
"""Functions that read tables named by text, past every look at the statement."""

_SCHEMA_WORDS_TEXT: Final = """
    alter analyze cluster comment create drop grant import reassign refresh reindex revoke
    security select truncate with
"""
_SCHEMA_WORDS: Final = frozenset(_SCHEMA_WORDS_TEXT.split())
"""First words of what isn't prepared, to name it; SELECT and WITH are SELECT … INTO."""
_BEFORE_WORD: Final = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/|[;(])*([A-Za-z]*)"
)


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement as the engine has analysed it."""

    text: str
    kind: str
    """read, write, schema or forbidden."""
    why: str = ""
    parameters: tuple[int, ...] = ()
    """The types of its parameters."""
    columns: tuple[tuple[str, int], ...] = ()
    """Names and types of what it gives back."""
    named: frozenset[int] = frozenset()
    """Tables and views that the statement itself names."""
    tables: frozenset[int] = frozenset()
    """Tables that it names, or that views in it name."""
    reads: tuple[str, ...] = ()


def compiled(db: Connection, text: str) -> Statement:
    """Prepares without running. CallInvalid where it is not one statement that the engine knows."""
    text = text.strip().rstrip(";").rstrip()
    if not text:
        raise errors.CallInvalid("There is no statement.", todo="Send one SQL statement.")
    try:
        db.run(f"PREPARE {NAME} AS {text}")
    except EngineError as error:
        return _not_prepared(db, text, error)
    parameters, columns = db.describe(NAME)
    return Statement(text=text, kind="", parameters=tuple(parameters), columns=tuple(columns))


def _not_prepared(db: Connection, text: str, error: EngineError) -> Statement:
    if "multiple commands" in str(error):
        raise errors.CallInvalid(
            "There are several statements.",
            why="Each is judged, and can be taken back, only by itself. Nothing was run.",
            todo="Send them one by one.",
        ) from None
    if not db.parses(text):
        raise _with_parameters_named(ours(error, db.server), text) from None
    # The engine knows it, and it is none that reads or changes rows. Its first word only names it.
    found = _BEFORE_WORD.match(text)
    word = found[1].lower() if found else ""
    if word in _SCHEMA_WORDS:
        return Statement(text=text, kind="schema", why=f"changes the schema: {word.upper()} …")
    why = f"neither reads nor changes rows: {word.upper()[:20]} …"
    return Statement(text=text, kind="forbidden", why=why)


def _with_parameters_named(error: errors.Ring0Error, text: str) -> errors.Ring0Error:
    """The same error; with a word on it to whoever writes parameters as elsewhere."""
    if isinstance(error, errors.CallInvalid) and not error.todo and re.search(r"\?|%s", text):
        error.todo = "Write parameters as $1, $2, …: this is PostgreSQL."
    return error


# --- what it would call ---------------------------------------------------------------------------


def judged(db: Connection, statement: Statement) -> Statement:
    """The statement with its kind: in a transaction, of which nothing of this stays."""
    with db.savepoint():
        try:
            tree = _tree(db, statement)
        except EngineError as error:
            if "INTO is not allowed" not in str(error):
                raise
            return msgspec.structs.replace(statement, kind="schema", why="makes a table: INTO")
        commands = set(_COMMAND.findall(tree))
        writes = commands != {"1"}
        seen = _Seen(db, writes)
        why = seen.follow(tree)
        reads = seen.names()
    kind = "forbidden" if why else "write" if writes else "read"
    return msgspec.structs.replace(
        statement,
        kind=kind,
        why=why,
        named=frozenset(seen.direct),
        tables=frozenset(seen.viewed),
        reads=reads,
    )


def _tree(db: Connection, statement: Statement) -> str:
    types = ", ".join(type_names(db, statement.parameters))
    db.run(
        f"CREATE FUNCTION pg_temp.{NAME}({types}) RETURNS pg_catalog.void LANGUAGE sql"
        f" BEGIN ATOMIC\n{statement.text}\n; END"
    )
    rows = db.run(
        "SELECT prosqlbody::text FROM pg_catalog.pg_proc"
        " WHERE proname = $1 AND pronamespace = pg_catalog.pg_my_temp_schema()",
        [NAME],
    ).rows
    assert len(rows) == 1 and rows[0][0], "the function was made a moment ago"
    return rows[0][0]


def type_names(db: Connection, types: tuple[int, ...]) -> list[str]:
    """Types by name, in a way that no search path can change."""
    rows = db.run(
        "SELECT t.oid::text, pg_catalog.format('%I.%I', n.nspname, t.typname)"
        " FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace"
        " WHERE t.oid = ANY ($1::oid[])",
        [_array(types)],
    ).rows
    names = {oid: name or "" for oid, name in rows}
    return [names[str(oid)] for oid in types]


def _array(oids: tuple[int, ...] | set[int] | frozenset[int]) -> str:
    return "{" + ",".join(str(oid) for oid in sorted(oids)) + "}" if oids else "{}"


_RELATIONS: Final = """
SELECT c.oid::text, c.relkind::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY ($1::oid[])
"""
_RULES_READ: Final = """
SELECT ev_action::text FROM pg_catalog.pg_rewrite
WHERE ev_class = ANY ($1::oid[]) AND ev_type = '1'
"""
_RULES_WRITE: Final = """
SELECT ev_action::text || ev_qual::text FROM pg_catalog.pg_rewrite
WHERE ev_class = ANY ($1::oid[]) AND ev_type <> '1'
"""
_OWN_EXPRESSIONS: Final = """
SELECT adbin::text FROM pg_catalog.pg_attrdef WHERE adrelid = ANY ($1::oid[])
UNION ALL
SELECT conbin::text FROM pg_catalog.pg_constraint WHERE conrelid = ANY ($1::oid[])
    AND conbin IS NOT NULL
UNION ALL
SELECT tgqual::text FROM pg_catalog.pg_trigger WHERE tgrelid = ANY ($1::oid[])
    AND tgqual IS NOT NULL
UNION ALL
SELECT coalesce(indexprs::text, '') || coalesce(indpred::text, '')
FROM pg_catalog.pg_index WHERE indrelid = ANY ($1::oid[])
UNION ALL
SELECT partexprs::text FROM pg_catalog.pg_partitioned_table
WHERE partrelid = ANY ($1::oid[]) AND partexprs IS NOT NULL
"""
_POLICIES: Final = """
SELECT coalesce(polqual::text, '') || coalesce(polwithcheck::text, '')
FROM pg_catalog.pg_policy WHERE polrelid = ANY ($1::oid[])
"""
_TRIGGERS: Final = """
SELECT DISTINCT tgfoid::text FROM pg_catalog.pg_trigger
WHERE tgrelid = ANY ($1::oid[]) AND NOT tgisinternal AND tgenabled <> 'D'
"""
_WRITTEN_TOO: Final = """
SELECT inhrelid::text FROM pg_catalog.pg_inherits WHERE inhparent = ANY ($1::oid[])
UNION
SELECT conrelid::text FROM pg_catalog.pg_constraint
WHERE confrelid = ANY ($1::oid[]) AND contype = 'f'
"""
_OPERATOR_FUNCTIONS: Final = """
SELECT oprcode::oid::text FROM pg_catalog.pg_operator WHERE oid = ANY ($1::oid[])
"""
_FUNCTIONS: Final = """
SELECT p.oid::text, pg_catalog.format('%s.%s', n.nspname, p.proname), p.proname,
    p.provolatile::text, l.lanname, l.lanpltrusted::text,
    (p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype)::text
FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid = ANY (ARRAY(
    SELECT unnest($1::oid[])
    UNION SELECT unnest(
            ARRAY[aggtransfn, aggfinalfn, aggmtransfn, aggminvtransfn, aggmfinalfn]::oid[])
        FROM pg_catalog.pg_aggregate WHERE aggfnoid = ANY ($1::oid[])))
"""
_BUILT_IN_OID_MAX: Final = 16_384
"""Below: what the engine brings itself."""


class _Seen:
    """What a statement reaches, followed through the catalog until nothing new comes."""

    def __init__(self, db: Connection, writes: bool) -> None:
        self._db = db
        self._writes = writes
        self._chars = 0
        self._checked: dict[bool, set[int]] = {True: set(), False: set()}
        self._names: dict[int, str] = {}
        self._named: set[int] = set()
        self.direct: set[int] = set()
        self.viewed: set[int] = set()
        """Tables that the statement, or a view in it, names."""

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._names.values()))

    def follow(self, tree: str) -> str:
        """Why it may not run; empty where nothing speaks against it."""
        why = self._look(tree, by_schema=False)
        self.direct = _oids(_RELATION, tree)
        self._named = set(self.direct)
        wave = set(self.direct)
        for _ in range(limits.POSTGRES_RULES_DEEP_MAX):
            if why or not (wave := wave - self._names.keys()):
                return why
            why, wave = self._step(wave)
        return "refers to views, rules and tables too deep to follow"

    def _step(self, wave: set[int]) -> tuple[str, set[int]]:
        """One wave of relations: what they name, and what else is written with them."""
        given = [_array(wave)]
        found: set[int] = set()
        for oid, kind, name in self._db.run(_RELATIONS, given).rows:
            assert oid and kind and name
            self._names[int(oid)] = name
            if kind == "f":
                return f"reaches the foreign table {name}: rows of another server", found
            if int(oid) in self._named and kind in "rpm":
                self.viewed.add(int(oid))
        for tree in self._texts(_RULES_READ, given):
            if why := self._look(tree, by_schema=False):
                return why, found
            found |= _oids(_RELATION, tree)
        self._named |= found
        for tree in self._texts(_POLICIES, given):
            if why := self._look(tree, by_schema=True):
                return why, found
            found |= _oids(_RELATION, tree)
        return self._written(given, found) if self._writes else ("", found)

    def _written(self, given: list[str], found: set[int]) -> tuple[str, set[int]]:
        """What comes with a change of these relations: rules, checks, triggers, other tables."""
        for tree in self._texts(_RULES_WRITE, given):
            if why := self._look(tree, by_schema=False):
                return why, found
            found |= _oids(_RELATION, tree)
        for tree in self._texts(_OWN_EXPRESSIONS, given):
            if why := self._look(tree, by_schema=True):
                return why, found
        triggers = {int(oid) for oid in self._texts(_TRIGGERS, given)}
        if why := self._functions(triggers, by_schema=True):
            return why, found
        return "", found | {int(oid) for oid in self._texts(_WRITTEN_TOO, given)}

    def _texts(self, query: str, given: list[str]) -> list[str]:
        texts = [row[0] or "" for row in self._db.run(query, list[Text](given)).rows]
        self._chars += sum(map(len, texts))
        if self._chars > limits.POSTGRES_TREE_CHARS_MAX:
            raise errors.LimitReached(
                "What the statement reaches is too much to look through.",
                todo="Name fewer views and tables in one statement.",
            )
        return texts

    def _look(self, tree: str, by_schema: bool) -> str:
        unknown = set(_NODE.findall(tree)) - _NODES
        if unknown:
            return f"uses what ring0 does not know: {min(unknown)[:40]}"
        functions, operators = _oids(_FUNCTION, tree), _oids(_OPERATOR, tree)
        for several in _OPERATORS.findall(tree):
            operators |= {int(oid) for oid in several.split()}
        if operators:
            codes = self._texts(_OPERATOR_FUNCTIONS, [_array(operators)])
            functions |= {int(code) for code in codes if code}
        return self._functions(functions, by_schema)

    def _functions(self, functions: set[int], by_schema: bool) -> str:
        new = functions - self._checked[by_schema] - self._checked[False]
        if not new:
            return ""
        rows = self._db.run(_FUNCTIONS, [_array(new)]).rows
        if new - {int(row[0] or 0) for row in rows}:
            return "calls a function that is gone"
        for row in rows:
            if not self._allowed(row, by_schema):
                return f"calls the function {row[1]}"
        self._checked[by_schema] |= new
        return ""

    def _allowed(self, row: list[Text], by_schema: bool) -> bool:
        oid, name, bare, volatility, language, trusted, is_trigger = row
        assert oid and bare
        if int(oid) < _BUILT_IN_OID_MAX:
            if _READS_BY_TEXT.search(bare):
                return False
            return volatility != "v" or bare in VOLATILE_FINE or is_trigger == "true"
        if name in self._db.server.functions:
            return True
        if language in ("c", "internal"):
            return volatility != "v" or (by_schema and is_trigger == "true")
        if trusted != "true":
            return False  # It can open files and connections.
        # A default, a check, a trigger is the schema's; what a statement itself calls, the agent's.
        return by_schema or volatility != "v"


def _oids(pattern: re.Pattern[str], tree: str) -> set[int]:
    return {int(oid) for oid in pattern.findall(tree)}
