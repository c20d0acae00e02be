"""A connection to a PostgreSQL server as a role that may do little, and its errors in our words.

It speaks the extended protocol only: the server itself refuses more than one statement in a text.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0 import errors, limits
from ring0.tools.sql.postgres.url import Server
from ring0.tools.sql.watch import Watch

if TYPE_CHECKING:
    import psycopg

Text = str | None
MESSAGE_CHARS_MAX: Final = 300
VERSION_MIN: Final = 140_000
_NO_FILE: Final = "/nonexistent/ring0"
"""libpq reads ~/.pgpass unless it is told of another file: this one is never there."""


TRANSIENT: Final = ("55P03", "40001", "40P01")
"""Others hold or change the same rows at this moment."""


class EngineError(Exception):
    """What the server answered: the five characters of SQLSTATE and its message."""

    def __init__(self, state: str, message: str) -> None:
        self.state = state
        super().__init__(message)


class CommitLost(Exception):
    """The connection broke while the server committed. `number` is the transaction's."""

    def __init__(self, number: str, message: str) -> None:
        self.number = number
        super().__init__(message)


class Answer(msgspec.Struct, frozen=True):
    """Rows as the text that the server sent."""

    rows: list[list[Text]]
    count: int
    """Rows changed, as the server counts the statement's own."""


class Connection:
    """One connection to a server, in use by one thread."""

    def __init__(self, connection: psycopg.Connection[Any], server: Server, watch: Watch) -> None:
        self._connection = connection
        self.pgconn = connection.pgconn
        self.server = server
        self._watch = watch

    def run(
        self, text: str, values: Sequence[Text] = (), types: Sequence[int] | None = None
    ) -> Answer:
        """One statement by the extended protocol; values and answer are text."""
        self._look()
        return self._answer(self.pgconn.exec_params(text.encode(), _bytes(values), types or None))

    def run_prepared(self, name: str, values: Sequence[Text]) -> Answer:
        self._look()
        return self._answer(self.pgconn.exec_prepared(name.encode(), _bytes(values)))

    def parses(self, text: str) -> bool:
        """Whether the server takes the text as one statement of any kind. Nothing is run."""
        self._look()
        return self.pgconn.prepare(b"ring0_look", text.encode()).status in _good()

    def describe(self, name: str) -> tuple[list[int], list[tuple[str, int]]]:
        """The types of a prepared statement's parameters; names and types of its columns."""
        found = self.pgconn.describe_prepared(name.encode())
        self._answer(found)
        return (
            [found.param_type(place) for place in range(found.nparams)],
            [
                ((found.fname(place) or b"").decode(), found.ftype(place))
                for place in range(found.nfields)
            ],
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN; rolled back at the end. Who wants the effect commits inside."""
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")
        try:
            yield
        finally:
            self.roll_back()

    def commit(self) -> None:
        """Raises EffectUnknown where the server can't be asked what became of it."""
        number = self.run("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text").rows[0][0]
        result = self.pgconn.exec_params(b"COMMIT", None)
        if result.status in _good() and result.command_status == b"COMMIT":
            return
        state, message = _diagnosed(result, self.pgconn)
        if self.pgconn.status == 0:
            raise EngineError(state, message)  # The server said no: it is rolled back.
        raise CommitLost(number or "", message)

    def roll_back(self) -> None:
        # Also when the time is over: nothing stays open that could still commit.
        if self.pgconn.status == 0 and self.pgconn.transaction_status != 0:
            self.pgconn.exec_params(b"ROLLBACK", None)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is done inside is gone at the end."""
        self.run("SAVEPOINT ring0")
        try:
            yield
        finally:
            if self.pgconn.status == 0 and self.pgconn.transaction_status != 0:
                for text in (b"ROLLBACK TO SAVEPOINT ring0", b"RELEASE SAVEPOINT ring0"):
                    self._answer(self.pgconn.exec_params(text, None))

    def _look(self) -> None:
        if self._watch.is_over():
            raise EngineError("57014", "the time is over")

    def _answer(self, result: Any) -> Answer:
        if result.status not in _good():
            raise EngineError(*_diagnosed(result, self.pgconn))
        rows = [
            [_text(result.get_value(row, column)) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
        return Answer(rows, result.command_tuples or 0)


def _good() -> tuple[Any, ...]:
    from psycopg.pq import ExecStatus

    return (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def _bytes(values: Sequence[Text]) -> list[bytes | None] | None:
    return [None if value is None else value.encode() for value in values] or None


def _text(value: bytes | None) -> Text:
    return None if value is None else value.decode()


def _diagnosed(result: Any, pgconn: Any) -> tuple[str, str]:
    from psycopg.pq import DiagnosticField

    fields = (DiagnosticField.MESSAGE_PRIMARY, DiagnosticField.MESSAGE_DETAIL)
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"08006").decode()
    said = [(result.error_field(field) or b"").decode("utf-8", "replace") for field in fields]
    text = ": ".join(part for part in said if part)
    return state, text or pgconn.error_message.decode("utf-8", "replace")


# --- opening ------------------------------------------------------------------------------------

_SETTINGS: Final = {
    "client_encoding": "UTF8",
    "client_min_messages": "error",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "extra_float_digits": "1",
    "row_security": "on",
    "synchronous_commit": "on",
    "jit": "off",
    "quote_all_identifiers": "off",
    "statement_timeout": str(limits.SQL_TIME_S_MAX * 1000),
    "lock_timeout": str(limits.POSTGRES_LOCK_WAIT_S_MAX * 1000),
    "idle_in_transaction_session_timeout": str(3 * limits.SQL_TIME_S_MAX * 1000),
}

_STATE: Final = """
SELECT pg_catalog.current_setting('server_version_num'),
    pg_catalog.current_setting('track_counts'),
    pg_catalog.current_setting('session_replication_role'),
    pg_catalog.pg_is_in_recovery()::text,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')::text,
    ((pg_catalog.current_schemas(true))[1] = 'pg_catalog')::text,
    pg_catalog.getdatabaseencoding()
"""

_STRONG_ROLES: Final = """
SELECT r.rolname, r.rolsuper::text, r.rolcreaterole::text, r.rolcreatedb::text,
    r.rolreplication::text, r.rolbypassrls::text
FROM pg_catalog.pg_roles r
WHERE (r.rolname IN (session_user, current_user)
       OR pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
       OR pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER'))
  AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
       OR r.rolname IN ('pg_read_server_files', 'pg_write_server_files',
           'pg_execute_server_program', 'pg_signal_backend', 'pg_signal_autovacuum_worker',
           'pg_create_subscription', 'pg_checkpoint', 'pg_maintain'))
ORDER BY r.rolsuper DESC, r.rolname
"""
_ATTRIBUTES: Final = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")


@contextmanager
def opened(server: Server, password: str, watch: Watch) -> Iterator[Connection]:
    """A connection of a role that can do little, closed at the end; its errors become ours."""
    connection = _connect(server, password)
    db = Connection(connection, server, watch)
    # A socket object of its own: to shut the line down is safe, also when libpq has closed it.
    line = socket.socket(fileno=os.dup(connection.pgconn.socket))
    try:
        watch.stop_with(lambda: _interrupt(connection), lambda: _break_off(line))
        _settle_in(db)
        yield db
    except EngineError as error:
        raise ours(error, server, stopped=watch.stopped) from None
    finally:
        watch.stop_with(None, None)
        connection.close()
        line.close()


def _connect(server: Server, password: str) -> psycopg.Connection[Any]:
    try:
        import psycopg
    except ImportError:
        raise no_psycopg() from None
    try:
        return psycopg.connect(
            "",
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=password,
            passfile=_NO_FILE,
            options="",
            gssencmode="disable",
            application_name="ring0",
            connect_timeout=limits.POSTGRES_CONNECT_S_MAX,
            tcp_user_timeout=limits.POSTGRES_NETWORK_S_MAX * 1000,
            autocommit=True,
            **server.tls,
        )
    except (psycopg.Error, UnicodeError) as error:
        raise errors.ToolFailed(
            f"The database {server} can't be reached as {server.user}.",
            why=one_line(str(error).replace(password, "…") if password else str(error)),
            todo="Check the url, the server, the network and the password's secret.",
        ) from None


def no_psycopg() -> errors.ManifestInvalid:
    return errors.ManifestInvalid(
        "The sql tool needs psycopg to speak with a PostgreSQL server, and it is not there.",
        todo="Install its extra `postgres`"
        " (in a checkout: `.venv/bin/pip install -e '.[postgres]'`).",
    )


def _interrupt(connection: psycopg.Connection[Any]) -> None:
    import psycopg

    try:
        connection.cancel_safe(timeout=limits.POSTGRES_CONNECT_S_MAX)
    except psycopg.Error:
        pass  # It has ended meanwhile, or its own time limit ends it.


def _break_off(line: socket.socket) -> None:
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has ended meanwhile.


def _settle_in(db: Connection) -> None:
    """Settings that a text means one thing under, and a look at who we are."""
    names = list(_SETTINGS)
    marks = ", ".join(
        f"pg_catalog.set_config(${2 * i + 1}, ${2 * i + 2}, false)" for i in range(len(names))
    )
    db.run(f"SELECT {marks}", [text for pair in _SETTINGS.items() for text in pair])
    if db.server.role:
        db.run("SELECT pg_catalog.set_config('role', $1, false)", [db.server.role])
    version, counts, replication, standby, temporary, path, encoding = db.run(_STATE).rows[0]
    for wrong, what, todo in (
        (int(version or 0) < VERSION_MIN, "is older than PostgreSQL 14", "Upgrade it."),
        (standby == "true", "is a standby", "Name the primary server: only it can tell what a"
         " statement would do."),
        (counts != "on", "does not count changed rows", "Set `track_counts = on` on the server."),
        (replication != "origin", "runs no triggers", "Reset session_replication_role."),
        (temporary != "true", "gives the role no temporary schema, which ring0 needs to ask it what"
         " a statement would call", "GRANT TEMPORARY ON DATABASE … TO the role."),
        (path != "true", "looks for names elsewhere before pg_catalog", "Take pg_catalog out of the"
         " role's search_path: then it comes first."),
        (encoding != "UTF8", f"is encoded in {encoding}", "Use a database in UTF8."),
    ):  # fmt: skip
        if wrong:
            raise errors.ToolFailed(f"The database {db.server} {what}.", todo=todo)
    strong = db.run(_STRONG_ROLES).rows
    if strong:
        name, *attributes = strong[0]
        has = [a for a, is_so in zip(_ATTRIBUTES, attributes, strict=True) if is_so == "true"]
        raise errors.ToolFailed(
            f"The role {db.server.role or db.server.user} is too powerful for an agent.",
            why=f"It is, or may become, {name}" + (f" ({', '.join(has)})." if has else "."),
            todo="Make a role for it: CREATE ROLE agent LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
            " NOREPLICATION NOBYPASSRLS, and GRANT it the rows that it needs.",
        )


# --- errors -------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """The server's message: untrusted (it repeats the statement), so bounded and on one line."""
    return "".join(c if c.isprintable() else " " for c in text)[:MESSAGE_CHARS_MAX].strip()


def ours(error: EngineError, server: Server, *, stopped: bool = False) -> errors.Ring0Error:
    said, state = one_line(str(error)), error.state
    if state == "57014":
        if stopped:
            return errors.ToolFailed("The statement was stopped.", why="Nothing was changed.")
        return errors.LimitReached(
            f"The statement took longer than {limits.SQL_TIME_S_MAX} s.",
            why="Nothing was changed.",
            todo="Narrow it, or ask for an index.",
        )
    if state in TRANSIENT:
        return errors.ToolFailed(
            f"Others are changing the same rows of {server}.",
            why=f"{said}. Nothing was changed.",
            todo="Try again.",
        )
    if state in ("42501", "25006"):
        return errors.CallDenied("The database refused it.", why=said)
    if state[:2] in ("08", "57", "53", "58", "XX", "28"):
        return errors.ToolFailed(
            f"The database {server} failed.",
            why=said,
            todo="Look at the server: its log, its disk, its network.",
        )
    if state == "54000":
        return errors.LimitReached("The statement is too much for the server.", why=said)
    return errors.CallInvalid("The database did not take the statement.", why=said)
