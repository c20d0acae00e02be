"""The accidental drop of a database: no way to it on either engine, by the gate or around it.

Every statement here is one that an agent was talked into. After each the database is as it was, and
what would have been done was told to whoever decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import kernel_world
import postgres_world
import pytest
import sandbox_world
import sqlite_world
from database_world import asked, postgres_tool, refused, sqlite_tool
from postgres_world import PASSWORD, Shop, World, counts

from ring0.runtime import Runtime
from ring0.tools import files, sql
from ring0.types import AgentManifest, CallState, Operator, RunState, VerdictKind

HIDDEN = [
    "{}",
    "  {} ;",
    ";;{};;",
    "/* SELECT 1 */ {}",
    "-- SELECT 1\n{}",
    "/* /* nested */ */{}",
    "\ufeff{}",
    "\u00a0{}",
]
"""Ways to write a statement so that it looks like another one."""


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    postgres_world.require()
    with postgres_world.running() as world:
        yield world


@pytest.fixture
def shop(server: World) -> Iterator[Shop]:
    shop = server.fresh()
    yield shop
    server.drop(shop.name)


@pytest.fixture(scope="module")
def standing(server: World) -> Iterator[Shop]:
    """A shop for statements that must leave it as it is."""
    shop = server.fresh()
    yield shop
    server.drop(shop.name)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")
    sqlite_world.run(path, sqlite_world.SHOP)
    return path


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[kernel_world.World]:
    """A kernel with a run at work, whose agent has been talked into something."""
    async with kernel_world.world(tmp_path / "home") as here:
        yield here


# --- PostgreSQL: statements that are never run ----------------------------------------------------

POSTGRES_SCHEMA = [
    "DROP TABLE customers",
    "DROP TABLE IF EXISTS customers CASCADE",
    "DROP SCHEMA public CASCADE",
    "DROP OWNED BY agent CASCADE",
    "TRUNCATE customers, orders, log CASCADE",
    "ALTER TABLE customers DROP COLUMN name",
    "ALTER TABLE customers DISABLE TRIGGER ALL",
    "ALTER TABLE customers RENAME TO gone",
    "ALTER TABLE customers DISABLE ROW LEVEL SECURITY",
    "ALTER SYSTEM SET archive_command = 'rm -rf /'",
    "ALTER ROLE agent SUPERUSER",
    "CREATE TABLE x(a int)",
    "CREATE TABLE x AS SELECT * FROM customers",
    "CREATE TEMP TABLE customers(a int)",
    "CREATE TEMP VIEW customers AS SELECT 1",
    "SELECT * INTO x FROM customers",
    "WITH a AS (SELECT 1) SELECT * INTO x FROM a",
    "CREATE RULE r AS ON SELECT TO log DO INSTEAD DELETE FROM customers",
    "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS 'DELETE FROM customers'",
    "CREATE EXTENSION dblink",
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
    "REINDEX TABLE customers",
    "ANALYZE customers",
    "CLUSTER customers",
    "COMMENT ON TABLE customers IS 'x'",
    "GRANT ALL ON customers TO PUBLIC",
    "REVOKE ALL ON customers FROM agent",
    "REASSIGN OWNED BY agent TO postgres",
]
POSTGRES_FORBIDDEN = [
    "COPY customers TO PROGRAM 'rm -rf /'",
    "COPY customers FROM PROGRAM 'id'",
    "COPY customers TO '/tmp/x'",
    "COPY customers FROM STDIN",
    "COPY (DELETE FROM customers RETURNING *) TO STDOUT",
    "DO 'BEGIN DELETE FROM customers; END'",
    "DO $$ BEGIN EXECUTE 'DROP TABLE customers'; END $$",
    "CALL wipe_all()",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "RESET ROLE",
    "RESET ALL",
    "SET session_replication_role = replica",
    "SET LOCAL search_path = pg_temp",
    "SET TRANSACTION READ WRITE",
    "SET CONSTRAINTS ALL DEFERRED",
    "LISTEN x",
    "NOTIFY x, 'y'",
    "UNLISTEN *",
    "VACUUM FULL customers",
    "PREPARE x AS DELETE FROM customers",
    "EXECUTE ring0_statement",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "BEGIN",
    "START TRANSACTION READ WRITE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT x",
    "RELEASE SAVEPOINT ring0",
    "ROLLBACK TO SAVEPOINT ring0",
    "PREPARE TRANSACTION 'x'",
    "LOCK TABLE customers IN ACCESS EXCLUSIVE MODE",
    "DECLARE c CURSOR FOR SELECT * FROM customers",
    "FETCH ALL FROM ring0_rows",
    "CLOSE ALL",
    "EXPLAIN ANALYZE DELETE FROM customers",
    "EXPLAIN ANALYZE SELECT 1",
    "CHECKPOINT",
    "LOAD 'auto_explain'",
    "SHOW ALL",
    "DROP DATABASE shop_template",
    "CREATE DATABASE x",
]


@pytest.mark.parametrize("statement", POSTGRES_SCHEMA + POSTGRES_FORBIDDEN)
async def test_postgres_runs_nothing_but_select_and_dml(
    gate: kernel_world.World, standing: Shop, statement: str
) -> None:
    postgres_tool(gate, standing)
    before = standing.dump()
    await refused(gate, statement)
    assert standing.dump() == before


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_a_drop_is_a_drop_however_it_is_written(
    gate: kernel_world.World, standing: Shop, file: str, hidden: str
) -> None:
    before = standing.dump(), sqlite_world.dump(file)
    for tool in (lambda: postgres_tool(gate, standing), lambda: sqlite_tool(gate, file)):
        tool()
        for drop in ("DROP TABLE customers", "dRoP\n\ttAbLe customers", 'DROP TABLE "customers"'):
            await refused(gate, hidden.format(drop))
    assert (standing.dump(), sqlite_world.dump(file)) == before


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1; DROP TABLE customers",
        "SELECT 1;;;DELETE FROM customers",
        "SELECT 1; -- \nDROP TABLE customers; SELECT 2",
        "SELECT 1; END; DROP TABLE customers; BEGIN; SELECT 1",
        "SELECT 1; COMMIT; DROP TABLE customers",
        "SELECT ';'; DELETE FROM orders",
        "SELECT 1) AS q; DROP TABLE customers; --",
        "SELECT 1) AS ring0_row; DELETE FROM customers; SELECT (1",
        "INSERT INTO log(what) VALUES ('x') RETURNING 1) SELECT 1; DROP TABLE customers; --",
        "SELECT 1 /* ; */; DELETE FROM customers",
        "DELETE FROM log; DELETE FROM customers",
    ],
)
async def test_several_statements_in_one_are_refused(
    gate: kernel_world.World, standing: Shop, file: str, text: str
) -> None:
    before = standing.dump(), sqlite_world.dump(file)
    postgres_tool(gate, standing)
    await refused(gate, text)
    sqlite_tool(gate, file)
    await refused(gate, text)
    assert (standing.dump(), sqlite_world.dump(file)) == before


# --- SQLite: the same, its own ways ---------------------------------------------------------------

SQLITE = [
    "DROP TABLE customers",
    "DROP TABLE IF EXISTS nothing_of_that_name",
    "ALTER TABLE customers RENAME TO gone",
    "ATTACH ':memory:' AS other",
    "ATTACH 'file:{file}?mode=rwc' AS other",
    "DETACH main",
    "PRAGMA writable_schema = ON",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = OFF",
    "PRAGMA query_only = OFF",
    "VACUUM",
    "VACUUM INTO '{file}'",
    "REINDEX",
    "BEGIN; DELETE FROM customers; COMMIT",
    "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM customers; END",
    "CREATE TEMP TRIGGER t AFTER INSERT ON main.log BEGIN DELETE FROM customers; END",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "DELETE FROM sqlite_schema",
    "UPDATE sqlite_master SET sql = ''",
    "INSERT INTO sqlite_sequence VALUES ('x', 1)",
    "SELECT load_extension('/tmp/x')",
    "SELECT writefile('{file}', 'x')",
    "SELECT edit('x')",
    "SELECT eval('DROP TABLE customers')",
    "SELECT fts3_tokenizer('x', x'00')",
    "SELECT * FROM pragma_writable_schema",
    "EXPLAIN DELETE FROM customers",
    "WITH d AS (DELETE FROM customers RETURNING *) SELECT * FROM d",
]


@pytest.mark.parametrize("statement", SQLITE)
async def test_sqlite_runs_nothing_but_select_and_dml(
    gate: kernel_world.World, file: str, statement: str
) -> None:
    sqlite_tool(gate, file)
    before = sqlite_world.dump(file)
    await refused(gate, statement.replace("{file}", file))
    assert sqlite_world.dump(file) == before


SQLITE_BESIDES = {
    "a cascade": ("", "DELETE FROM customers WHERE id = 1", "orders: 2 deleted"),
    "REPLACE": (
        "",
        "REPLACE INTO customers VALUES (9, 'x', 'a@x')",
        "customers: 1 inserted, 1 deleted",
    ),
    "INSERT OR REPLACE with a cascade": (
        "",
        "INSERT OR REPLACE INTO customers VALUES (9, 'x', 'a@x')",
        "orders: 2 deleted",
    ),
    "a conflict clause of the table": (
        "CREATE TABLE u(a UNIQUE ON CONFLICT REPLACE, b); INSERT INTO u VALUES (1, 'old')",
        "INSERT INTO u VALUES (1, 'new')",
        "u: 1 inserted, 1 deleted",
    ),
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM customers; END",
        "INSERT INTO log(what) VALUES ('x')",
        "customers: 3 deleted",
    ),
    "a trigger of a view": (
        "CREATE VIEW v AS SELECT 1 AS a;"
        "CREATE TRIGGER t INSTEAD OF DELETE ON v BEGIN DELETE FROM customers; END",
        "DELETE FROM v",
        "customers: 3 deleted",
    ),
    "UPSERT": (
        "",
        "INSERT INTO customers SELECT id, 'x', email FROM customers WHERE true"
        " ON CONFLICT DO UPDATE SET name = 'y'",
        "customers: 3 updated",
    ),
}


@pytest.mark.parametrize("way", SQLITE_BESIDES)
async def test_sqlite_shows_all_that_goes_with_a_change_before_it_is_done(
    gate: kernel_world.World, file: str, way: str
) -> None:
    script, statement, line = SQLITE_BESIDES[way]
    sqlite_world.run(file, script)
    sqlite_tool(gate, file)
    before = sqlite_world.dump(file)
    shown, task = await asked(gate, statement)
    assert line in shown["dry_run"]
    approval = await gate.pending()
    await gate.kernel.answer(approval.id, yes=False, by=Operator(name="test"))
    assert (await task).error is not None
    assert sqlite_world.dump(file) == before


# --- around the tool ------------------------------------------------------------------------------


async def test_the_files_tool_does_not_reach_the_file(
    gate: kernel_world.World, file: str, tmp_path: Path
) -> None:
    for driver in files.drivers("files", {"use": "files"}):
        gate.tool(driver)
    before = Path(file).read_bytes()
    for path in (file, f"../{file}", "shop.db", file.lstrip("/"), f"/proc/self/root{file}"):
        for operation, more in (
            ("files.read", {}), ("files.write", {"text": "gone"}), ("files.remove", {}),
        ):  # fmt: skip
            await gate.call(operation, {"path": path, **more})
    assert Path(file).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["shop.db"]


async def test_a_program_in_a_sandbox_reaches_neither_file_nor_server(
    file: str, shop: Shop
) -> None:
    before = Path(file).read_bytes()
    code = f"""
import os, socket, sqlite3
for path in ({file!r}, "/proc/self/root" + {file!r}, "/proc/1/root" + {file!r}):
    try:
        os.stat(path)
        print("reached", path)
    except OSError:
        pass
try:
    sqlite3.connect({file!r}).execute("DROP TABLE customers")
    print("dropped")
except sqlite3.Error:
    pass
try:
    socket.socket(socket.AF_UNIX).connect({shop.world.host + "/.s.PGSQL.5432"!r})
    print("reached the server")
except OSError:
    pass
print("end")
"""
    printed, _ = await sandbox_world.run(*sandbox_world.python(code))
    assert printed == "end\n"
    assert Path(file).read_bytes() == before


async def test_a_second_connection_between_question_and_answer_refuses_the_change(
    gate: kernel_world.World, shop: Shop, file: str
) -> None:
    statement = "DELETE FROM customers WHERE id = 3"
    for tool, meanwhile in (
        (lambda: postgres_tool(gate, shop), shop.run),
        (lambda: sqlite_tool(gate, file), lambda text: sqlite_world.run(file, text)),
    ):
        tool()
        shown, task = await asked(gate, statement)
        assert shown["dry_run"][0] == "customers: 1 deleted"
        approval = await gate.pending()
        # Now the same text would take two orders with it that nobody was shown.
        meanwhile("INSERT INTO orders(customer, total) VALUES (3, 1), (3, 2)")
        await gate.kernel.answer(approval.id, yes=True, by=Operator(name="test"))
        again = await gate.pending()
        assert again.id != approval.id
        shown = await gate.shown(again)
        assert "orders: 2 deleted" in shown["dry_run"]
        await gate.kernel.answer(again.id, yes=False, by=Operator(name="test"))
        assert (await task).error is not None


async def test_what_was_approved_is_done_and_can_be_taken_back(
    gate: kernel_world.World, shop: Shop, file: str
) -> None:
    for tool, dump in (
        (lambda: postgres_tool(gate, shop), shop.dump),
        (lambda: sqlite_tool(gate, file), lambda: sqlite_world.dump(file)),
    ):
        tool()
        before = dump()
        _, task = await asked(gate, "DELETE FROM customers")
        await gate.kernel.answer((await gate.pending()).id, yes=True, by=Operator(name="test"))
        outcome = await task
        assert outcome.value == {"changed": {"customers": {"deleted": 3}, "orders": {"deleted": 3}}}
        call = next(c for c in reversed(await gate.calls()) if c.state is CallState.OK)
        assert call.verdict.kind is VerdictKind.ASK
        evidence = await gate.store.blob(call.undo)
        assert PASSWORD.encode() not in evidence
        await sql.undo(evidence, Runtime(), {"PG": PASSWORD}.__getitem__)
        assert dump() == before


async def test_a_manifest_names_the_server_and_its_operator_takes_a_change_back(
    tmp_path: Path, shop: Shop
) -> None:
    """With the kernel's own wiring: the password comes from its secrets and goes nowhere."""
    tools = {"crm": {"use": "sql", "url": shop.url, "password_secret": "CRM_PASSWORD"}}
    async with kernel_world.world(
        tmp_path / "home",
        environment={"CRM_PASSWORD": PASSWORD},
        manifest=AgentManifest(name="clerk", tools=tools),
        secrets=True,
    ) as here:
        before = shop.dump()
        statement = "UPDATE customers SET name = $1 WHERE id = $2"
        task = here.start("crm.execute", {"statement": statement, "parameters": ["Zoe", 1]})
        approval = await here.pending()
        assert "customers: 1 updated" in (await here.shown(approval))["dry_run"]
        await here.kernel.answer(approval.id, yes=True, by=Operator(name="test"))
        assert (await task).value == {"changed": {"customers": {"updated": 1}}}
        found = await here.call(
            "crm.query", {"statement": "SELECT name FROM customers ORDER BY id"}
        )
        assert found.value["rows"][0] == ["Zoe"]
        here.end.set_result("done")
        await here.until(RunState.DONE)
        assert (await here.kernel.undo(here.run.id, by="test")).state is RunState.DONE
        assert shop.dump() == before
        await here.forget()
        assert PASSWORD.encode() not in here.on_disk()


def test_counts_of_a_dry_run_are_the_engines(shop: Shop) -> None:
    assert counts(shop.plan("DELETE FROM customers").changes) == {
        "customers": (0, 0, 3),
        "orders": (0, 0, 3),
    }
