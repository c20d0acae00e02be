"""What a SQL statement does to a PostgreSQL database, as the engine says: plan, execute, undo.

Synchronous, one connection a call, no shared state; a driver runs it in a worker thread. It does
not decide whether a statement may run: it tells what it would do, and does exactly that.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.tools.sql.plan import Done, Plan, Restorable, Rows, TableChange
from ring0.tools.sql.postgres import undo as postgres_undo
from ring0.tools.sql.postgres.connection import (
    CommitLost,
    Connection,
    EngineError,
    Text,
    one_line,
    opened,
)
from ring0.tools.sql.postgres.rehearsal import Rehearsed, rehearse
from ring0.tools.sql.postgres.rules import NAME, Statement, compiled, judged, type_names
from ring0.tools.sql.postgres.tables import outputs
from ring0.tools.sql.postgres.url import Server
from ring0.tools.sql.watch import Watch

_ROWS: Final = "ring0_rows"


def plan(
    server: Server, password: str, statement: str, parameters: Sequence[Any], watch: Watch
) -> Plan:
    """What the statement would do. Raises CallInvalid where it would fail."""
    values = _bound(statement, parameters)
    with opened(server, password, watch) as db:
        found = compiled(db, statement)
        if found.kind:
            return Plan(kind=found.kind, why=found.why)
        _check_count(found, values)
        with db.transaction():
            found = judged(db, found)
            if found.kind != "write":
                return Plan(kind=found.kind, why=found.why, reads=found.reads)
            _prepare_rows(db, found)
            done = rehearse(db, found, lambda: _do(db, found, values))
        if done.kind != "write":
            return Plan(kind=done.kind, why=done.why, reads=found.reads)
        return Plan(
            kind="write",
            reads=found.reads,
            changes=done.changes,
            digest=done.digest,
            reversible=not done.why_irreversible,
            why_irreversible=done.why_irreversible,
            sample=done.samples,
            images=done.images,
            notes=done.notes,
            copies=done.copies,
        )


def query(
    server: Server, password: str, statement: str, parameters: Sequence[Any], watch: Watch
) -> Rows:
    """The rows of a statement that only reads; CallDenied for any other. Reads only."""
    values = _bound(statement, parameters)
    with opened(server, password, watch) as db:
        found = compiled(db, statement)
        if not found.kind:
            _check_count(found, values)
            with db.transaction():
                found = judged(db, found)
                if found.kind == "read":
                    db.run("SET TRANSACTION READ ONLY")
                    return _fetch(db, found, values)
        raise errors.CallDenied(
            "A query only reads, and this statement is not allowed to: it changes rows."
            if found.kind == "write"
            else f"The engine's word on it: it {found.why}.",
            todo="Send a SELECT; what changes rows goes through the writing call.",
        )


def execute(
    server: Server,
    password: str,
    statement: str,
    parameters: Sequence[Any],
    expected_digest: str,
    watch: Watch,
) -> Done:
    """Do what `plan` said, in one transaction, or nothing: CallDenied where it would differ."""
    values = _bound(statement, parameters)
    try:
        with opened(server, password, watch) as db:
            try:
                done = _execute(db, statement, values, expected_digest)
                db.commit()
            finally:
                db.roll_back()
    except CommitLost as lost:
        _look_after(server, password, watch, lost)
    return Done(
        changes=done.changes, digest=done.digest, images=done.images, rows=done.rows or Rows()
    )


def _execute(db: Connection, statement: str, values: list[Text], expected: str) -> Rehearsed:
    found = compiled(db, statement)
    if found.kind:
        raise _not_rows(found.kind, found.why)
    _check_count(found, values)
    db.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")
    found = judged(db, found)
    if found.kind != "write":
        raise _not_rows(found.kind, found.why)
    _prepare_rows(db, found)
    done = rehearse(db, found, lambda: _do(db, found, values))
    if done.kind != "write":
        raise _not_rows(done.kind, done.why)
    if done.digest != expected:
        raise errors.CallDenied(
            "The rows that this statement changes are not those that were approved.",
            why="Someone changed the database since, or it comes out otherwise each time."
            " Nothing was done.",
            todo="Plan it again and ask again.",
        )
    return done


def _not_rows(kind: str, why: str) -> errors.CallDenied:
    return errors.CallDenied(
        f"This is not a statement that changes rows: {kind} {why}".rstrip() + ".",
        why="The schema is changed by people, and reading goes through the reading call.",
    )


def _look_after(server: Server, password: str, watch: Watch, lost: CommitLost) -> None:
    """The connection broke at the commit: the server knows what became of the transaction."""
    try:
        with opened(server, password, watch) as db:
            asked = db.run("SELECT pg_catalog.pg_xact_status($1::xid8)", [lost.number])
    except errors.Ring0Error:
        became = None
    else:
        became = asked.rows[0][0]
    if became == "aborted":
        raise errors.ToolFailed(
            f"The connection to {server} broke, and the server undid the statement.",
            why=one_line(str(lost)),
            todo="Try again.",
        )
    if became != "committed":
        raise errors.EffectUnknown(
            f"The connection to {server} broke at the commit.",
            why=one_line(str(lost)),
            todo=f"Ask the server: SELECT pg_xact_status('{lost.number}').",
        )


def undo(server: Server, password: str, images: bytes, watch: Watch) -> tuple[TableChange, ...]:
    """Set every changed row back, or raise UndoRefused where one has changed since."""
    decoded = postgres_undo.decode(images)
    try:
        with opened(server, password, watch) as db, db.transaction():
            changes = postgres_undo.restore(db, decoded)
            db.commit()
    except CommitLost as lost:
        _look_after(server, password, watch, lost)
    return changes


def rehearse_undo(
    server: Server, password: str, several: Sequence[bytes], watch: Watch
) -> Restorable:
    """Puts all back, one after another, as far as that goes; then it is rolled back."""
    with opened(server, password, watch) as db, db.transaction():
        for done, images in enumerate(several):
            try:
                postgres_undo.restore(db, postgres_undo.decode(images))
            except errors.UndoRefused as no:
                return Restorable(done=done, why=f"{no.what} {no.why}")
    return Restorable(done=len(several))


# --- running ----------------------------------------------------------------------------------


def _bound(statement: str, parameters: Sequence[Any]) -> list[Text]:
    """The parameters as text that the server reads; CallInvalid where one can't be."""
    if len(statement) > limits.SQL_STATEMENT_CHARS_MAX:
        raise errors.CallInvalid(
            f"The statement is longer than {limits.SQL_STATEMENT_CHARS_MAX} characters."
        )
    if not _encodes(statement):
        raise errors.CallInvalid("The statement holds a NUL or a half of a character.")
    return [_as_text(value) for value in parameters]


def _encodes(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _as_text(value: Any) -> Text:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, str) and _encodes(value):
        return value
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return "\\x" + base64.b64decode(value["base64"], validate=True).hex()
        except (binascii.Error, ValueError):
            pass
    raise errors.CallInvalid(
        "A parameter is of a type that the database can't hold.",
        todo='Pass null, a boolean, a number, text without NUL, or {"base64": "..."}.',
    )


def _check_count(statement: Statement, values: list[Text]) -> None:
    wanted = len(statement.parameters)
    if wanted != len(values):
        raise errors.CallInvalid(
            "The parameters do not fit the statement.",
            why=f"It takes {wanted} and there are {len(values)}.",
            todo="Write them as $1, $2, … in the statement, and give one value for each.",
        )


def _names(statement: Statement) -> str:
    return ", ".join(f"c{number}" for number in range(1, len(statement.columns) + 1))


def _row(statement: Statement) -> str:
    """SQL for a row of the answer as one text, NULL where it is too large."""
    columns = [f"ring0_row.c{number}" for number in range(1, len(statement.columns) + 1)]
    return (
        "CASE WHEN pg_catalog.octet_length(ring0_row::pg_catalog.text)"
        f" <= {limits.POSTGRES_ROW_SIZE_BYTES_MAX} THEN {outputs(columns)} END"
    )


def _prepare_rows(db: Connection, statement: Statement) -> None:
    """What a change gives back, bounded by the server before it is sent."""
    if not statement.columns:
        return
    types = ", ".join(type_names(db, statement.parameters))
    try:
        db.run(
            f"PREPARE {_ROWS}{f' ({types})' if types else ''} AS"
            f" WITH ring0_row({_names(statement)}) AS (\n{statement.text}\n)"
            f" SELECT {_row(statement)} FROM ring0_row LIMIT {limits.SQL_ROWS_RETURNED_MAX + 1}"
        )
    except EngineError as error:
        raise errors.CallInvalid(
            "The rows that this statement gives back can't be bounded.",
            why=one_line(str(error)),
            todo="Write RETURNING on the one statement that changes rows, without a WITH that"
            " changes others; or give nothing back.",
        ) from None


def _do(db: Connection, statement: Statement, values: list[Text]) -> Rows:
    """Runs it. Deferred triggers and constraints too: nothing is left for the commit."""
    answer = db.run_prepared(_ROWS if statement.columns else NAME, values)
    db.run("SET CONSTRAINTS ALL IMMEDIATE")
    return _rows(statement, [row[0] for row in answer.rows] if statement.columns else [])


def _fetch(db: Connection, statement: Statement, values: list[Text]) -> Rows:
    """Reads to the last row, or until the limits are met: then the rows so far, `truncated`."""
    names = f"({_names(statement)})" if statement.columns else ""
    db.run(
        f"DECLARE {_ROWS} NO SCROLL CURSOR FOR SELECT {_row(statement)}"
        f" FROM (\n{statement.text}\n) AS ring0_row{names}",
        values,
        statement.parameters,
    )
    texts: list[Text] = []
    while len(texts) <= limits.SQL_ROWS_RETURNED_MAX:
        rows = db.run(f"FETCH 8 FROM {_ROWS}").rows
        texts += [row[0] for row in rows]
        if len(rows) < 8 or sum(len(t or "") for t in texts) > limits.RESULT_SIZE_BYTES_MAX:
            break
    if None in texts:
        raise errors.LimitReached(
            f"A row is larger than {limits.POSTGRES_ROW_SIZE_BYTES_MAX} bytes.",
            todo="Read a part of it with substr().",
        )
    return _rows(statement, texts)


def _rows(statement: Statement, texts: list[Text]) -> Rows:
    rows: list[list[Any]] = []
    size_bytes = 0
    for text in texts:
        size_bytes += len(text or "")
        full = len(rows) >= limits.SQL_ROWS_RETURNED_MAX
        if text is None or full or size_bytes > limits.RESULT_SIZE_BYTES_MAX:
            return Rows(columns=_column_names(statement), rows=rows, truncated=True)
        values = msgspec.json.decode(text)
        rows.append(
            [
                None if value is None else _json_able(kind, value)
                for (_, kind), value in zip(statement.columns, values, strict=True)
            ]
        )
    return Rows(columns=_column_names(statement), rows=rows)


def _column_names(statement: Statement) -> tuple[str, ...]:
    return tuple(name for name, _ in statement.columns)


_BOOL, _BYTEA, _INTEGERS, _FLOATS = 16, 17, (20, 21, 23, 26), (700, 701)
"""The engine's numbers of types, the same in every database."""


def _json_able(kind: int, value: str) -> Any:
    if kind == _BOOL:
        return value == "t"
    if kind in _INTEGERS:
        return int(value)
    if kind in _FLOATS:
        number = float(value)
        return number if number - number == 0 else None
    if kind == _BYTEA:
        return {"base64": base64.b64encode(bytes.fromhex(value.removeprefix("\\x"))).decode()}
    return value  # Exact numbers, dates, JSON and all else as the server writes them.
