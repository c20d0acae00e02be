"""What a statement would set off in PostgreSQL: functions, triggers, rules, foreign tables.

What can't be taken back is refused before it runs; all else is told before it is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import kernel_world
import postgres_world
import pytest
from database_world import asked, postgres_tool, refused
from postgres_world import Shop, World

from ring0 import errors
from ring0.types import Operator


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    postgres_world.require()
    with postgres_world.running() as world:
        yield world


@pytest.fixture(scope="module")
def standing(server: World) -> Iterator[Shop]:
    """A shop for statements that must leave it as it is."""
    shop = server.fresh()
    yield shop
    server.drop(shop.name)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[kernel_world.World]:
    """A kernel with a run at work, whose agent has been talked into something."""
    async with kernel_world.world(tmp_path / "home") as here:
        yield here


# --- PostgreSQL: functions ------------------------------------------------------------------------

REACHING_OUT = [
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT lo_create(7)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_unlink(4242)",
    "SELECT lo_put(4242, 0, 'x')",
    "SELECT lo_truncate(lo_open(4242, 131072), 0)",
    "SELECT pg_sleep(0)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_cancel_backend(1)",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT pg_notify('x', 'y')",
    "SELECT pg_advisory_lock(1)",
    "SELECT setval('orders_id_seq', 1)",
    "SELECT pg_logical_emit_message(false, 'x', 'y')",
    "SELECT pg_export_snapshot()",
    "SELECT pg_reload_conf()",
    "SELECT pg_switch_wal()",
    "SELECT query_to_xml('DELETE FROM customers RETURNING 1', true, true, '')",
    "SELECT query_to_xml('SELECT wipe()', true, true, '')",
    "SELECT table_to_xml('wiping', true, true, '')",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT cursor_to_xml('c', 1, true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(wipe()::text)')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT wipe()')",
    "SELECT dblink_exec('dbname=postgres', 'DROP TABLE customers')",
    "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'",
    "UPDATE pg_class SET relname = 'x' WHERE relname = 'customers'",
    "DELETE FROM pg_catalog.pg_class",
    "INSERT INTO pg_largeobject VALUES (4242, 0, 'x')",
]
WIPES = [
    "SELECT wipe()",
    "SELECT * FROM wipe()",
    "SELECT 1 WHERE wipe() > 0",
    "SELECT 1 ORDER BY wipe()",
    "SELECT 1 LIMIT wipe()",
    "SELECT coalesce(NULL, wipe())",
    "SELECT (SELECT wipe())",
    "WITH a AS (SELECT wipe()) SELECT 1 FROM a",
    "VALUES (wipe())",
    "SELECT count(*) FILTER (WHERE wipe() > 0) FROM log",
    "SELECT * FROM wiping",
    "SELECT * FROM wiping_deep",
    "SELECT 1 @@@ 1",
    "SELECT '1'::mood::int",
    "SELECT summed(i) FROM generate_series(1, 2) i",
    "SELECT summed(i) OVER () FROM generate_series(1, 2) i",
    "SELECT ROW(1, 2) IN (SELECT wipe(), 2)",
    "SELECT 1 FROM log TABLESAMPLE BERNOULLI (wipe())",
    "SELECT l.* FROM log l, LATERAL wipe()",
    "SELECT ARRAY[wipe()]",
    "INSERT INTO log(what) VALUES (wipe()::text)",
    "UPDATE log SET what = wipe()::text",
    "DELETE FROM log WHERE wipe() > 0",
    "INSERT INTO log(what) VALUES ('x') RETURNING wipe()",
    "INSERT INTO customers VALUES (1, 'x', 'y') ON CONFLICT (id) DO UPDATE SET name = wipe()::text",
    "MERGE INTO log USING customers ON false WHEN NOT MATCHED THEN INSERT (what)"
    " VALUES (wipe()::text)",
]
"""All ways to call a volatile function of the database that runs as its owner."""

WIPE = (
    """CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
       $$ BEGIN DELETE FROM public.customers; RETURN 1; END $$""",
    """CREATE FUNCTION wipe2(int, int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
       $$ BEGIN DELETE FROM public.customers; RETURN 1; END $$""",
    "CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = wipe2)",
    "CREATE AGGREGATE summed(int) (SFUNC = wipe2, STYPE = int, INITCOND = '0')",
    "CREATE TYPE mood AS (a int)",
    """CREATE FUNCTION from_mood(mood) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
       $$ BEGIN DELETE FROM public.customers; RETURN 1; END $$""",
    "CREATE CAST (mood AS int) WITH FUNCTION from_mood(mood)",
    "CREATE VIEW wiping AS SELECT wipe()",
    "CREATE VIEW wiping_deep AS SELECT * FROM (SELECT 1 FROM wiping) w",
    "CREATE PROCEDURE wipe_all() LANGUAGE sql AS 'DELETE FROM customers'",
)


@pytest.fixture(scope="module")
def trapped(server: World) -> Iterator[Shop]:
    """A shop whose owner left functions about that destroy it."""
    shop = server.fresh(*WIPE, "SELECT lo_create(4242)")
    yield shop
    server.drop(shop.name)


@pytest.mark.parametrize("statement", REACHING_OUT + WIPES)
async def test_no_function_with_effects_is_called(
    gate: kernel_world.World, trapped: Shop, statement: str
) -> None:
    postgres_tool(gate, trapped)
    before = trapped.dump()
    try:
        # Refused before it runs: a reading transaction would not stop all of these.
        assert trapped.plan(statement).kind == "forbidden"
    except (errors.CallInvalid, errors.CallDenied):
        pass  # The engine does not know it, or the role may not.
    await refused(gate, statement)
    assert trapped.dump() == before


async def test_a_query_draws_no_number(gate: kernel_world.World, standing: Shop) -> None:
    postgres_tool(gate, standing)
    await refused(gate, "SELECT nextval('orders_id_seq')")
    assert standing.rows("SELECT last_value FROM orders_id_seq") == [(3,)]


async def test_a_function_that_lies_about_being_stable_can_change_nothing(
    gate: kernel_world.World, server: World
) -> None:
    shop = server.fresh(
        *WIPE,
        """CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS
           $$ BEGIN PERFORM public.wipe(); RETURN 1; END $$""",
        """CREATE FUNCTION loud() RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
           $$ BEGIN DELETE FROM public.customers; RETURN 1; END $$""",
        "INSERT INTO log(what) VALUES ('x')",
    )
    postgres_tool(gate, shop)
    before = shop.dump()
    await refused(gate, "SELECT quiet()")
    await refused(gate, "SELECT loud()")
    assert shop.dump() == before
    shown, task = await asked(gate, "UPDATE log SET what = 'x' WHERE quiet() > 0")
    assert any("customers: 3 deleted" in line for line in shown["dry_run"])
    task.cancel()
    server.drop(shop.name)


async def test_a_function_that_the_operator_names_may_be_called_and_is_counted(
    gate: kernel_world.World, trapped: Shop
) -> None:
    postgres_tool(gate, trapped, functions=["public.wipe"])
    before = trapped.dump()
    await refused(gate, "SELECT wipe()")  # A reading transaction stays one.
    shown, task = await asked(gate, "UPDATE log SET what = wipe()::text")
    task.cancel()
    assert shown["dry_run"] == ["no row would change"]  # The log is empty: it was never called.
    assert trapped.dump() == before


# --- what a harmless statement would do besides ---------------------------------------------------

BESIDES = {
    "a cascade": ((), "DELETE FROM customers WHERE id = 1", "orders: 2 deleted"),
    "a trigger": (
        (
            """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN DELETE FROM customers; RETURN NULL; END $$""",
            "CREATE TRIGGER t AFTER INSERT ON log EXECUTE FUNCTION f()",
        ),
        "INSERT INTO log(what) VALUES ('x')",
        "customers: 3 deleted",
    ),
    "a trigger of a view": (
        (
            "CREATE VIEW names AS SELECT name FROM customers",
            """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN DELETE FROM orders; RETURN OLD; END $$""",
            "CREATE TRIGGER t INSTEAD OF DELETE ON names FOR EACH ROW EXECUTE FUNCTION f()",
        ),
        "DELETE FROM names WHERE name = 'Ada'",
        "orders: 3 deleted",
    ),
    "a view that can be written": (
        ("CREATE VIEW plain AS SELECT * FROM customers",),
        "DELETE FROM plain",
        "customers: 3 deleted",
    ),
    "a rule": (
        ("CREATE RULE r AS ON INSERT TO log DO ALSO DELETE FROM customers",),
        "INSERT INTO log(what) VALUES ('x')",
        "customers: 3 deleted",
    ),
    "a rule instead": (
        (
            "CREATE RULE r AS ON UPDATE TO log DO INSTEAD DELETE FROM orders",
            "INSERT INTO log(what) VALUES ('x')",
        ),
        "UPDATE log SET what = 'y'",
        "orders: 3 deleted",
    ),
    "ON CONFLICT": (
        (),
        "INSERT INTO customers SELECT id, 'x', NULL FROM customers ON CONFLICT (id) DO UPDATE"
        " SET name = excluded.name",
        "customers: 3 updated",
    ),
    "MERGE": (
        (),
        "MERGE INTO customers USING log ON false WHEN NOT MATCHED BY SOURCE THEN DELETE"
        if postgres_world.VERSION >= "17"
        else "DELETE FROM customers",
        "customers: 3 deleted",
    ),
    "a WITH that deletes": (
        (),
        "WITH gone AS (DELETE FROM orders RETURNING id) INSERT INTO log(what)"
        " SELECT id::text FROM gone",
        "orders: 3 deleted",
    ),
    "a foreign key that sets null": (
        (
            "CREATE TABLE note(id int PRIMARY KEY, of int REFERENCES customers ON DELETE SET NULL)",
            "INSERT INTO note VALUES (1, 3)",
        ),
        "DELETE FROM customers WHERE id = 3",
        "note: 1 updated",
    ),
}


@pytest.mark.parametrize("way", BESIDES)
async def test_postgres_shows_all_that_goes_with_a_change_before_it_is_done(
    gate: kernel_world.World, server: World, way: str
) -> None:
    scripts, statement, line = BESIDES[way]
    shop = server.fresh(*scripts)
    postgres_tool(gate, shop)
    before = shop.dump()
    shown, task = await asked(gate, statement)
    assert line in shown["dry_run"]
    approval = await gate.pending()
    await gate.kernel.answer(approval.id, yes=False, by=Operator(name="test"))
    assert (await task).error is not None
    assert shop.dump() == before
    server.drop(shop.name)


async def test_a_delete_inside_a_select_is_no_read(
    gate: kernel_world.World, standing: Shop
) -> None:
    postgres_tool(gate, standing)
    before = standing.dump()
    await refused(gate, "WITH d AS (DELETE FROM customers RETURNING *) SELECT * FROM d")
    await refused(gate, "WITH d AS (DELETE FROM customers RETURNING *) SELECT count(*) FROM d")
    assert standing.dump() == before


TRAPS = {
    "TRUNCATE": "TRUNCATE customers CASCADE",
    "DROP": "DROP TABLE customers CASCADE",
    "ALTER": "ALTER TABLE customers DROP COLUMN name",
    "CREATE": "CREATE TEMP TABLE x AS SELECT * FROM customers",
    "GRANT": "GRANT ALL ON customers TO PUBLIC",
    "a large object": "PERFORM lo_unlink(4242)",
    "a new large object": "PERFORM lo_create(4343)",
}


@pytest.mark.parametrize("way", TRAPS)
async def test_a_trigger_that_changes_more_than_rows_is_refused(
    gate: kernel_world.World, server: World, way: str
) -> None:
    shop = server.fresh(
        f"""CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN {TRAPS[way]}; RETURN NULL; END $$""",
        "CREATE TRIGGER t AFTER INSERT ON log EXECUTE FUNCTION f()",
        "SELECT lo_create(4242)",
    )
    postgres_tool(gate, shop)
    before = shop.dump()
    await refused(gate, "INSERT INTO log(what) VALUES ('x')")
    kind = shop.plan("INSERT INTO log(what) VALUES ('x')").kind
    assert kind == ("forbidden" if "large" in way else "schema")
    assert shop.dump() == before
    server.drop(shop.name)


OUTSIDE = (
    "CREATE LANGUAGE anything HANDLER plpgsql_call_handler",
    """CREATE FUNCTION mail() RETURNS int LANGUAGE anything STABLE AS
       $$ BEGIN RETURN 1; END $$""",
    """CREATE FUNCTION mailing() RETURNS trigger LANGUAGE anything AS
       $$ BEGIN RETURN NEW; END $$""",
)
BROUGHT_ALONG = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION mailing()",
    "a condition of a trigger": "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW"
    " WHEN (mail() > 0) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "a default": "ALTER TABLE log ADD COLUMN m int DEFAULT mail()",
    "a check": "ALTER TABLE log ADD CHECK (mail() > 0)",
    "a policy": "CREATE POLICY p ON log USING (mail() > 0)",
    "a rule": "CREATE RULE r AS ON INSERT TO log DO ALSO SELECT mail()",
    "a rule that tells others": "CREATE RULE r AS ON INSERT TO log DO ALSO NOTIFY x",
    "a trigger of a table that hangs on it": "CREATE TRIGGER t AFTER DELETE ON orders"
    " FOR EACH ROW EXECUTE FUNCTION mailing()",
}


@pytest.mark.parametrize("way", BROUGHT_ALONG)
async def test_what_a_rehearsal_could_not_take_back_is_not_rehearsed(
    gate: kernel_world.World, server: World, way: str
) -> None:
    """Code in a language that may open files and lines: it would mail, and then be rolled back."""
    shop = server.fresh(*OUTSIDE, BROUGHT_ALONG[way])
    postgres_tool(gate, shop)
    hangs = "hangs" in way
    statement = "DELETE FROM customers" if hangs else "INSERT INTO log(what) VALUES ('x')"
    before = shop.dump()
    await refused(gate, statement)
    assert shop.plan(statement).kind == "forbidden"
    await refused(gate, "SELECT mail()")
    assert shop.plan("SELECT mail()").kind == "forbidden"
    assert shop.dump() == before
    server.drop(shop.name)


async def test_rows_of_another_server_are_out_of_reach(
    gate: kernel_world.World, server: World
) -> None:
    shop = server.fresh(
        "CREATE FOREIGN DATA WRAPPER far",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER far",
        "CREATE FOREIGN TABLE theirs(id int) SERVER elsewhere",
        "CREATE VIEW disguised AS SELECT * FROM theirs",
    )
    postgres_tool(gate, shop)
    for statement in ("SELECT * FROM theirs", "DELETE FROM theirs", "SELECT * FROM disguised"):
        await refused(gate, statement)
        assert "foreign table" in shop.plan(statement).why
    server.drop(shop.name)
