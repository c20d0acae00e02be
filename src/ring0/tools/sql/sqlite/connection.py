"""A hardened connection to a SQLite file, its transaction, and the engine's errors in our words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import apsw

from ring0 import errors, limits

IsOver = Callable[[], bool]
"""Is the time over? Asked every few thousand steps of the engine; the caller owns the clock."""

BUSY_TIMEOUT_MS: Final = 5_000
MESSAGE_CHARS_MAX: Final = 300
STEPS_PER_LOOK: Final = 5_000


def harden(db: apsw.Connection, *, foreign_keys: bool = True, triggers: bool = True) -> None:
    """The safest settings the engine has, before it reads the first byte of the file."""
    for option, value in (
        (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
        (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
        (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
        (apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, int(foreign_keys)),
        (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(triggers)),
    ):
        assert db.config(option, value) == value
    for limit, bound in (
        (apsw.SQLITE_LIMIT_LENGTH, limits.SQL_VALUE_SIZE_BYTES_MAX),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, 4 * limits.SQL_STATEMENT_CHARS_MAX),
        (apsw.SQLITE_LIMIT_ATTACHED, 0),
        (apsw.SQLITE_LIMIT_COLUMN, 2_000),
        (apsw.SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (apsw.SQLITE_LIMIT_EXPR_DEPTH, 200),
        (apsw.SQLITE_LIMIT_FUNCTION_ARG, 100),
        (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 50),
        (apsw.SQLITE_LIMIT_VARIABLE_NUMBER, 1_000),
        (apsw.SQLITE_LIMIT_VDBE_OP, 250_000),
        (apsw.SQLITE_LIMIT_WORKER_THREADS, 0),
    ):
        db.limit(limit, bound)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)


@contextmanager
def opened(
    database: str,
    is_over: IsOver,
    *,
    read_only: bool = False,
    foreign_keys: bool = True,
    triggers: bool = True,
    cached: bool = False,
) -> Iterator[apsw.Connection]:
    """A hardened connection, closed at the end; the engine's errors become ours."""
    path = "" if "\0" in database else os.path.abspath(database)
    if not os.path.isfile(path):
        raise errors.NotFound(
            f"There is no database file {database!r}.",
            todo="Name an existing SQLite file in the tool's settings; ring0 never creates one.",
        )
    # Without CREATE and URI: a name is a file that exists, or an error.
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    db: apsw.Connection | None = None
    try:
        # A statement from the cache is not judged again: the agent's is compiled each time.
        db = apsw.Connection(path, flags=flags, statementcachesize=100 if cached else 0)
        harden(db, foreign_keys=foreign_keys, triggers=triggers)
        db.set_progress_handler(is_over, STEPS_PER_LOOK)
        if read_only:
            db.execute("PRAGMA query_only = ON")
            _recovered(db, path)
        db.execute("PRAGMA recursive_triggers = ON")
        yield db
    except apsw.Error as error:
        raise _ours(error, database) from None
    finally:
        if db is not None:
            db.authorizer = None
            db.close(True)


def _recovered(db: apsw.Connection, path: str) -> None:
    """A program died while it wrote: only a writer may roll its transaction back, so one does."""
    try:
        db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
    except (apsw.ReadOnlyError, apsw.CantOpenError):
        writer = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            harden(writer)
            writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
        finally:
            writer.close(True)


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE; rolled back at any error. Who wants the effect commits inside."""
    db.authorizer = None
    db.execute("BEGIN IMMEDIATE")
    # A step that reads the schema: what another connection changed before BEGIN is loaded now.
    db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
    try:
        yield
    finally:
        db.authorizer = None
        db.set_progress_handler(None)
        if db.in_transaction:
            db.execute("ROLLBACK")


def commit(db: apsw.Connection, database: str) -> None:
    db.authorizer = None
    db.set_progress_handler(None)
    try:
        db.execute("COMMIT")
    except (apsw.ConstraintError, apsw.BusyError, apsw.FullError):
        raise
    except apsw.Error as error:
        raise errors.EffectUnknown(
            f"The commit to {database!r} failed half-way.",
            why=said_by(error),
            todo="Look at the disk; `state` tells whether the change is there.",
        ) from None


def said_by(error: BaseException) -> str:
    """The engine's message: untrusted (it repeats the statement), so bounded and on one line."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return text[:MESSAGE_CHARS_MAX]


def _ours(error: apsw.Error, database: str) -> errors.Ring0Error:
    said = said_by(error)
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return errors.ToolFailed(
                f"The database {database!r} is locked by another program.",
                why=said,
                todo="Try again; if it stays, end the program that keeps a transaction open.",
            )
        case apsw.NotADBError():
            return errors.ToolFailed(
                f"The file {database!r} is not a SQLite database.",
                why=said,
                todo="Name a SQLite file; an encrypted one can't be read.",
            )
        case apsw.CorruptError():
            return errors.ToolFailed(
                f"The database {database!r} is damaged.",
                why=said,
                todo="Run `PRAGMA integrity_check` with a program that you trust, or restore it.",
            )
        case apsw.ReadOnlyError():
            return errors.ToolFailed(
                f"The database {database!r} can only be read.",
                why=said,
                todo="Give ring0's user write permission on the file and its folder.",
            )
        case apsw.CantOpenError() | apsw.PermissionsError():
            return errors.ToolFailed(
                f"The database {database!r} can't be opened.",
                why=said,
                todo="Check the permissions of the file, its folder, and its -wal and -shm files.",
            )
        case apsw.FullError() | apsw.IOError() | apsw.NoMemError():
            return errors.ToolFailed(
                f"The database {database!r} can't be read or written.",
                why=said,
                todo="Check the disk and the free space.",
            )
        case apsw.InterruptError():
            return errors.LimitReached(
                f"The statement took longer than {limits.SQL_TIME_S_MAX} s.",
                why="Nothing was changed.",
                todo="Narrow it, or ask for an index.",
            )
        case apsw.TooBigError():
            return errors.LimitReached(
                f"A value or row is larger than {limits.SQL_VALUE_SIZE_BYTES_MAX} bytes.",
                why=said,
                todo="Read a part of it with substr().",
            )
        case apsw.AuthError():
            return errors.CallDenied("The engine refused a part of the statement.", why=said)
    return errors.CallInvalid("The database did not take the statement.", why=said)
