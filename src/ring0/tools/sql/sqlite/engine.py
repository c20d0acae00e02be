"""What a SQL statement does to a SQLite database, as the engine says: plan, execute, undo.

Synchronous, one connection a call, no shared state; a driver runs it in a worker thread. It does
not decide whether a statement may run: it tells what it would do, and does exactly that.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import msgspec

from ring0 import errors, limits
from ring0.tools.sql.plan import Done, Plan, Restorable, Rows, TableChange
from ring0.tools.sql.sqlite import undo as sqlite_undo
from ring0.tools.sql.sqlite.connection import IsOver, commit, opened, said_by, transaction
from ring0.tools.sql.sqlite.images import Recorder, Table, Value, read_tables
from ring0.tools.sql.sqlite.moment import Moment, set_moment
from ring0.tools.sql.sqlite.rules import Judge

Parameters = Sequence[Any] | Mapping[str, Any]


class _Statement(msgspec.Struct, frozen=True):
    text: str
    """The one statement, without what follows it."""
    kind: str
    why: str
    reads: tuple[str, ...]
    writes: frozenset[str]


def plan(
    database: str, statement: str, parameters: Parameters, *, moment: Moment, is_over: IsOver
) -> Plan:
    """What the statement would do. Raises CallInvalid where it would fail."""
    values = _checked(statement, parameters)
    with opened(database, is_over) as db:
        judge = Judge(may_write=True)
        compiled = _compile(db, judge, statement, values)
        if compiled.kind != "write":
            return Plan(kind=compiled.kind, why=compiled.why, reads=compiled.reads)
        with transaction(db):
            compiled, recorder, _ = _run(db, statement, values, moment)
        return Plan(
            kind="write",
            reads=compiled.reads,
            changes=recorder.changes(),
            digest=recorder.digest(),
            reversible=not recorder.why_irreversible,
            why_irreversible=recorder.why_irreversible,
            sample=recorder.samples(),
            images=b"" if recorder.why_irreversible else recorder.images(),
        )


def query(database: str, statement: str, parameters: Parameters, *, is_over: IsOver) -> Rows:
    """The rows of a statement that only reads; CallDenied for any other. Opens read-only."""
    values = _checked(statement, parameters)
    with opened(database, is_over, read_only=True) as db:
        judge = Judge(may_write=False)
        compiled = _compile(db, judge, statement, values)
        if compiled.kind != "read":
            raise errors.CallDenied(
                f"A query only reads, and this statement is not allowed to: it {compiled.why}."
                if compiled.kind == "write"
                else f"The engine refused it: {compiled.why}.",
                todo="Send a SELECT; what changes rows goes through the writing call.",
            )
        judge.running = True
        return _fetch(db, compiled.text, values)


def execute(
    database: str,
    statement: str,
    parameters: Parameters,
    expected_digest: str,
    *,
    moment: Moment,
    is_over: IsOver,
) -> Done:
    """Do what `plan` said, in one transaction, or nothing: CallDenied where it would differ."""
    values = _checked(statement, parameters)
    with opened(database, is_over) as db, transaction(db):
        _, recorder, rows = _run(db, statement, values, moment)
        digest = recorder.digest()
        if digest != expected_digest:
            raise errors.CallDenied(
                "The rows that this statement changes are not those that were approved.",
                why="Someone changed the database since. Nothing was done.",
                todo="Plan it again and ask again.",
            )
        images = b"" if recorder.why_irreversible else recorder.images()
        commit(db, database)
        return Done(changes=recorder.changes(), digest=digest, images=images, rows=rows)


def undo(database: str, images: bytes, *, is_over: IsOver) -> tuple[TableChange, ...]:
    """Set every changed row back, or raise UndoRefused where one has changed since."""
    # Triggers and foreign-key actions are off: what they did has row images like all else.
    with (
        opened(database, is_over, foreign_keys=False, triggers=False, cached=True) as db,
        transaction(db),
    ):
        changes = _restored(db, images)
        commit(db, database)
        return changes


def rehearse_undo(database: str, several: Sequence[bytes], *, is_over: IsOver) -> Restorable:
    """Puts all back, one after another, as far as that goes; then it is rolled back."""
    with (
        opened(database, is_over, foreign_keys=False, triggers=False, cached=True) as db,
        transaction(db),
    ):
        for done, images in enumerate(several):
            try:
                _restored(db, images)
            except errors.UndoRefused as no:
                return Restorable(done=done, why=f"{no.what} {no.why}")
        return Restorable(done=len(several))


def _restored(db: apsw.Connection, images: bytes) -> tuple[TableChange, ...]:
    try:
        return sqlite_undo.restore(db, images)
    except (apsw.SQLError, apsw.MismatchError) as error:
        raise errors.UndoRefused("The rows can't be put back.", why=said_by(error)) from None


def state(database: str, images: bytes, *, is_over: IsOver) -> str:
    """After a crash: are the rows as after the effect (`done`), as before (`not_done`), `mixed`?"""
    # Not read-only: after a crash the engine first rolls back what was left half-done.
    with opened(database, is_over, cached=True) as db:
        db.execute("BEGIN")
        return sqlite_undo.compare(db, images)


# --- running ----------------------------------------------------------------------------------


def _checked(statement: str, parameters: Parameters) -> Sequence[Any] | dict[str, Any]:
    """The parameters as the engine binds them; CallInvalid where one can't be bound exactly."""
    if len(statement) > limits.SQL_STATEMENT_CHARS_MAX:
        raise errors.CallInvalid(
            f"The statement is longer than {limits.SQL_STATEMENT_CHARS_MAX} characters."
        )
    if "\0" in statement or not _encodes(statement):
        raise errors.CallInvalid("The statement holds a NUL or a half of a character.")
    if isinstance(parameters, Mapping):
        return {str(name): _bound(value) for name, value in parameters.items()}
    return tuple(_bound(value) for value in parameters)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bound(value: Any) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, str) and _encodes(value):
        return value
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            pass
    raise errors.CallInvalid(
        "A parameter is of a type that the database can't hold.",
        todo='Pass null, a boolean, a 64-bit integer, a number, text, or {"base64": "..."}.',
    )


def _compile(db: apsw.Connection, judge: Judge, statement: str, values: Any) -> _Statement:
    """Compile without running, and judge what the engine says. One statement, or CallInvalid."""
    db.authorizer = judge
    seen: list[tuple[str, bool, bool, tuple[str | None, ...], int, int]] = []

    def note(cursor: apsw.Cursor, text: str, _: object) -> bool:
        seen.append(
            (
                text,
                cursor.has_vdbe,
                cursor.is_readonly,
                cursor.bindings_names,
                cursor.bindings_count,
                cursor.is_explain,
            )
        )
        return False

    rest, found = statement, None
    while rest:
        seen.clear()
        cursor = db.cursor()
        cursor.exec_trace = note
        try:
            cursor.execute(rest, None if found else values)
        except apsw.ExecTraceAbort:
            pass
        except apsw.AuthError:
            if found is None:
                break
            raise _several() from None
        except (apsw.BindingsError, KeyError) as error:
            raise _several() if found else _unbound(error) from None
        assert len(seen) == 1, "the engine compiled, so it was traced"
        if seen[0][1]:
            if found is not None:
                raise _several()
            found = seen[0]
        assert seen[0][0], "the engine took a part of the text"
        rest = rest[len(seen[0][0]) :]
    if found is None and judge.refused is None:
        raise errors.CallInvalid("There is no statement.", todo="Send one SQL statement.")
    text, _, read_only, names, count, explains = found or ("", False, False, (), 0, 0)
    if found is not None:
        _check_bindings(values, names, count)
    kind, why = _verdict(judge, read_only)
    if explains and kind == "write":
        kind, why = "forbidden", "explains a change instead of making it"
    return _Statement(text, kind, why, tuple(sorted(judge.reads)), frozenset(judge.writes))


def _several() -> errors.CallInvalid:
    return errors.CallInvalid(
        "There are several statements.",
        why="Each is judged, and can be taken back, only by itself. Nothing was run.",
        todo="Send them one by one.",
    )


def _unbound(error: BaseException) -> errors.CallInvalid:
    return errors.CallInvalid("The parameters do not fit the statement.", why=said_by(error))


def _check_bindings(values: Any, names: tuple[str | None, ...], count: int) -> None:
    if isinstance(values, dict):
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise _unbound(KeyError(f"no parameter is called {unknown[0][:40]!r}"))
    elif len(values) != count:
        raise _unbound(ValueError(f"it takes {count} and there are {len(values)}"))


def _verdict(judge: Judge, read_only: bool) -> tuple[str, str]:
    if judge.refused is not None:
        return judge.refused
    if judge.asked == 0 or judge.internal or (not read_only and not judge.writes):
        # VACUUM asks nobody when it is compiled; so does DROP TABLE IF EXISTS of no table.
        return "forbidden", "does what the engine does not name (such as VACUUM)"
    return ("read", "") if read_only and not judge.writes else ("write", "")


def _run(
    db: apsw.Connection, statement: str, values: Any, moment: Moment
) -> tuple[_Statement, Recorder, Rows]:
    """Run a write inside the caller's transaction, with every changed row recorded."""
    tables = read_tables(db)
    db.execute("SAVEPOINT rehearsal")
    compiled, recorder, rows = _run_once(db, tables, statement, values, moment)
    if recorder.unseen:
        # The hook told which rows change, not how they look: go back, look, and run it again.
        rehearsed = recorder.digest()
        db.execute("ROLLBACK TO rehearsal")
        before = recorder.look(db)
        compiled, recorder, rows = _run_once(db, tables, statement, values, moment)
        if recorder.digest() != rehearsed:
            raise errors.CallDenied("The statement does not do the same when it is run twice.")
        recorder.fill(before, recorder.look(db))
    if db.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
        raise errors.CallInvalid(
            "The statement would leave rows whose foreign key names no row.",
            why="FOREIGN KEY constraint failed (deferred: found at the commit)",
        )
    return compiled, recorder, rows


def _run_once(
    db: apsw.Connection, tables: dict[str, Table], statement: str, values: Any, moment: Moment
) -> tuple[_Statement, Recorder, Rows]:
    set_moment(db, moment)
    judge = Judge(may_write=True)
    compiled = _compile(db, judge, statement, values)
    if compiled.kind != "write":
        raise errors.CallDenied(
            f"This is not a statement that changes rows: {compiled.kind} {compiled.why}".rstrip()
            + ".",
            why="The schema is changed by people, and reading goes through the reading call.",
        )
    recorder = Recorder(tables)
    virtual = sorted(n for n in compiled.writes if n in tables and tables[n].kind != "table")
    if virtual:
        recorder.why_irreversible = f"it changes {virtual[0]}, which is a virtual table"
    judge.running = True
    db.preupdate_hook(recorder, id=recorder)
    try:
        rows = _fetch(db, compiled.text, values, to_the_end=True)
    except apsw.Error:
        if recorder.stopped is not None:
            raise recorder.stopped from None
        if judge.refused is not None:
            raise errors.CallDenied(f"The engine refused it: {judge.refused[1]}.") from None
        raise
    finally:
        db.preupdate_hook(None, id=recorder)
        db.authorizer = None
    if recorder.stopped is not None:
        raise recorder.stopped
    return compiled, recorder, rows


def _fetch(db: apsw.Connection, text: str, values: Any, *, to_the_end: bool = False) -> Rows:
    """Run to the last row, or until the limits are met: then the rows so far, `truncated`."""
    cursor = db.cursor()
    rows: list[list[Any]] = []
    columns: tuple[str, ...] = ()
    size_bytes, truncated = 0, False

    def describe(traced: apsw.Cursor, _text: str, _values: object) -> bool:
        # Only here: after the last row of an empty answer the engine no longer knows them.
        nonlocal columns
        columns = tuple(column[0] for column in traced.get_description())
        return True

    cursor.exec_trace = describe
    try:
        cursor.execute(text, values)
        for row in cursor:
            size_bytes += sum(len(v) if isinstance(v, str | bytes) else 8 for v in row)
            full = len(rows) >= limits.SQL_ROWS_RETURNED_MAX
            if full or size_bytes > limits.RESULT_SIZE_BYTES_MAX:
                truncated = True
                if not to_the_end:
                    break
            elif not truncated:
                rows.append([_json_able(value) for value in row])
    except UnicodeDecodeError:
        raise errors.ToolFailed(
            "The database holds text that is not UTF-8.",
            todo="Read that column with hex() or CAST(… AS BLOB).",
        ) from None
    finally:
        cursor.close(True)
    return Rows(columns=columns, rows=rows, truncated=truncated)


def _json_able(value: Value) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and value - value != 0:
        return None
    return value
