"""The engines behind the `sql` tool: a SQLite file or a PostgreSQL server, with one interface.

What each does is in `sqlite/engine.py` and `postgres/engine.py`; here is what a manifest may say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from ring0.errors import ManifestInvalid, UndoRefused
from ring0.tools.sql.plan import Done, Plan, Restorable, Rows, TableChange
from ring0.tools.sql.postgres import engine as postgres_engine
from ring0.tools.sql.postgres.connection import no_psycopg
from ring0.tools.sql.postgres.url import Server, parse_url
from ring0.tools.sql.sqlite import engine as sqlite_engine
from ring0.tools.sql.sqlite.moment import Moment
from ring0.tools.sql.watch import Watch
from ring0.types import Frozen

Secret = Callable[[str], str]
"""A secret's value by its name; empty where there is none."""

_TABLES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"


class SqlConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[tools.NAME]` with `use = "sql"`: either `database` or `url`."""

    use: str
    database: str = ""
    """Path of a SQLite file, from the manifest's folder."""
    url: str = ""
    """`postgresql://user@host/database`, never with a password."""
    password_secret: str = ""
    """The name of the secret that is the password."""
    role: str = ""
    """SET ROLE after the login."""
    functions: list[str] = []
    """`schema.name` of volatile functions of the database that statements may call."""
    output: Literal["untrusted", "trusted-field"] = "untrusted"
    """What the text in its tables is worth."""


class Engine(Protocol):
    """One database. Its methods block: they run in a thread."""

    def plan(self, args: dict[str, Any], moment: Moment, watch: Watch) -> Plan: ...
    def query(self, args: dict[str, Any], watch: Watch) -> Rows: ...
    def execute(self, args: dict[str, Any], digest: str, moment: Moment, watch: Watch) -> Done: ...
    def undo(self, images: bytes, watch: Watch) -> tuple[TableChange, ...]: ...
    def rehearse_undo(self, several: Sequence[bytes], watch: Watch) -> Restorable: ...


class Database(Protocol):
    """Where a database is; without its secret."""

    @property
    def marks(self) -> str:
        """How a statement names its parameters, for its author."""

    @property
    def name(self) -> str:
        """As every agent that uses it would call it in the name of a lock."""

    def unlocked(self, secret: Secret | None) -> Engine:
        """The engine to use now, with the password that is right now."""
        ...


class SqliteFile(Frozen, frozen=True, tag="sqlite"):
    """A SQLite file."""

    database: str

    @property
    def name(self) -> str:
        return Path(self.database).name

    @property
    def marks(self) -> str:
        return "Values for the ? in the statement, in order."

    def unlocked(self, secret: Secret | None) -> Engine:
        return _Sqlite(self.database)


class PostgresServer(Frozen, frozen=True, tag="postgres"):
    """A database of a PostgreSQL server."""

    server: Server
    password_secret: str = ""

    @property
    def name(self) -> str:
        return self.server.database

    @property
    def marks(self) -> str:
        return "Values for $1, $2, … in the statement, in order."

    def unlocked(self, secret: Secret | None) -> Engine:
        password = ""
        if self.password_secret:
            password = secret(self.password_secret) if secret is not None else ""
            if not password:
                raise ManifestInvalid(
                    f"There is no secret {self.password_secret!r}.",
                    why=f"It is the password of the database {self.server}.",
                    todo=f"`ring0 secret set {self.password_secret}`",
                )
        return _Postgres(self.server, password)


class _Sqlite:
    def __init__(self, database: str) -> None:
        self._database = database

    def plan(self, args: dict[str, Any], moment: Moment, watch: Watch) -> Plan:
        found = sqlite_engine.plan(
            self._database, *_given(args), moment=moment, is_over=watch.is_over
        )
        return msgspec.structs.replace(found, copies=self._copies(found, watch))

    def _copies(self, plan: Plan, watch: Watch) -> bool:
        elsewhere = set(plan.reads) - {change.table for change in plan.changes}
        writes = any(change.inserted or change.updated for change in plan.changes)
        if not writes or not elsewhere:  # A delete writes nothing: its cascades read elsewhere.
            return False
        rows = sqlite_engine.query(self._database, _TABLES, [], is_over=watch.is_over).rows
        return bool(elsewhere & {row[0] for row in rows})  # The rest are names of a WITH.

    def query(self, args: dict[str, Any], watch: Watch) -> Rows:
        return sqlite_engine.query(self._database, *_given(args), is_over=watch.is_over)

    def execute(self, args: dict[str, Any], digest: str, moment: Moment, watch: Watch) -> Done:
        return sqlite_engine.execute(
            self._database, *_given(args), digest, moment=moment, is_over=watch.is_over
        )

    def undo(self, images: bytes, watch: Watch) -> tuple[TableChange, ...]:
        return sqlite_engine.undo(self._database, images, is_over=watch.is_over)

    def rehearse_undo(self, several: Sequence[bytes], watch: Watch) -> Restorable:
        return sqlite_engine.rehearse_undo(self._database, several, is_over=watch.is_over)


class _Postgres:
    def __init__(self, server: Server, password: str) -> None:
        self._server = server
        self._password = password

    def __repr__(self) -> str:
        return f"<{self._server}>"

    def plan(self, args: dict[str, Any], moment: Moment, watch: Watch) -> Plan:
        return postgres_engine.plan(self._server, self._password, *_given(args), watch)

    def query(self, args: dict[str, Any], watch: Watch) -> Rows:
        return postgres_engine.query(self._server, self._password, *_given(args), watch)

    def execute(self, args: dict[str, Any], digest: str, moment: Moment, watch: Watch) -> Done:
        return postgres_engine.execute(self._server, self._password, *_given(args), digest, watch)

    def undo(self, images: bytes, watch: Watch) -> tuple[TableChange, ...]:
        return postgres_engine.undo(self._server, self._password, images, watch)

    def rehearse_undo(self, several: Sequence[bytes], watch: Watch) -> Restorable:
        return postgres_engine.rehearse_undo(self._server, self._password, several, watch)


def _given(args: dict[str, Any]) -> tuple[str, list[Any]]:
    return args["statement"], args.get("parameters", [])


# --- what a manifest says -------------------------------------------------------------------------


def configured(instance: str, config: SqlConfig, folder: Path, off_limits: Path) -> Database:
    """The database that `[tools.NAME]` names. Raises ManifestInvalid.

    off_limits: ring0's own data folder; nothing in it is ever an agent's.
    """
    if bool(config.database) == bool(config.url):
        raise ManifestInvalid(
            f"[tools.{instance}] names {'two databases' if config.url else 'no database'}.",
            todo='Write either `database = "file.db"` or `url = "postgresql://user@host/database"`.',
        )
    if config.url:
        if find_spec("psycopg") is None:
            raise no_psycopg()
        server = parse_url(config.url)
        functions = tuple(config.functions)
        server = msgspec.structs.replace(server, role=config.role, functions=functions)
        return PostgresServer(server=server, password_secret=config.password_secret)
    if config.password_secret or config.role or config.functions:
        raise ManifestInvalid(
            f"[tools.{instance}]: password_secret, role and functions are of PostgreSQL.",
            why="A SQLite file has none of them.",
            todo="Leave them out.",
        )
    return SqliteFile(database=str(_file(instance, config.database, folder, off_limits)))


def _file(instance: str, database: str, folder: Path, off_limits: Path) -> Path:
    path = (folder / database).resolve()
    if not path.is_file():
        raise ManifestInvalid(
            f"[tools.{instance}]: there is no database {path}.",
            why="The sql tool never creates one.",
            todo="Name an existing SQLite file, from the manifest's folder.",
        )
    own = off_limits.resolve()
    if path.parent == own or path.is_relative_to(own / "snapshots"):
        raise ManifestInvalid(
            f"[tools.{instance}] names {path}.",
            why="ring0's own files are never an agent's.",
            todo="Keep databases elsewhere.",
        )
    return path


class Evidence(Frozen, frozen=True):
    """What a change leaves behind so that it can be taken back."""

    database: str | SqliteFile | PostgresServer
    """A string: a SQLite file, as earlier versions wrote it."""
    images: bytes


def touched(database: Database, tables: Iterable[str]) -> tuple[str, ...]:
    """What a change of these tables touches, as locks are named: `table:customers`, and more
    narrowly `table:crm.db/customers`. No instance's name is in it: agents choose these freely."""
    return tuple(
        name for table in tables for name in (f"table:{table}", f"table:{database.name}/{table}")
    )


def evidence(database: Database, images: bytes) -> bytes:
    assert isinstance(database, SqliteFile | PostgresServer)
    return msgspec.msgpack.encode(Evidence(database=database, images=images))


def read_evidence(kept: bytes) -> tuple[Database, bytes]:
    """Where, and the row images. Raises UndoRefused where it can't be read."""
    try:
        found = msgspec.msgpack.decode(kept, type=Evidence)
    except msgspec.DecodeError:
        raise UndoRefused(
            "What was kept to take this back can't be read.", why="Its record is damaged."
        ) from None
    where = found.database
    return (SqliteFile(database=where) if isinstance(where, str) else where), found.images
