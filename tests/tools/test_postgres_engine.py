"""What a SQL statement does is what PostgreSQL itself says: what is run, told and refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import postgres_world
import pytest
from postgres_world import PASSWORD, Shop, World, counts

from ring0 import errors, limits
from ring0.runtime import Runtime
from ring0.tools import sql
from ring0.tools.sql import databases as sql_databases
from ring0.tools.sql.postgres import connection as postgres_connection
from ring0.tools.sql.postgres import engine as postgres_engine
from ring0.tools.sql.postgres.url import parse_url
from ring0.tools.sql.watch import Watch


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    postgres_world.require()
    with postgres_world.running() as world:
        yield world


@pytest.fixture
def shop(world: World) -> Iterator[Shop]:
    shop = world.fresh()
    yield shop
    world.drop(shop.name)


# --- reading --------------------------------------------------------------------------------------


def test_a_query_gives_its_rows_in_the_types_of_json(shop: Shop) -> None:
    found = shop.query(
        "SELECT id, name, true AS yes, 1.50::numeric AS exact, 0.5::float8 AS half,"
        " 'NaN'::float8 AS none, '\\x01ff'::bytea AS raw, NULL AS empty, date '2026-01-02' AS day"
        " FROM customers WHERE name = $1 AND id < $2",
        ["Ada", 10],
    )
    assert found.columns == (
        "id", "name", "yes", "exact", "half", "none", "raw", "empty", "day",
    )  # fmt: skip
    assert found.rows == [
        [1, "Ada", True, "1.50", 0.5, None, {"base64": "Af8="}, None, "2026-01-02"]
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE customers",
        "VALUES (1, 'a'), (2, NULL)",
        "SELECT FROM customers",
        "SELECT id AS ring0_row, 1 AS c1, name, name FROM customers;",
        "(SELECT 1 UNION SELECT 2) ORDER BY 1 -- a comment",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5)"
        " SELECT * FROM n",
        "SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY total), string_agg(id::text,"
        " ',' ORDER BY id) FILTER (WHERE id > 1) FROM orders GROUP BY ROLLUP(customer)",
        "SELECT lag(total) OVER w, ARRAY[id, 2], ROW(1, 'x'), (1, 2) < (2, 3) FROM orders"
        " WINDOW w AS (PARTITION BY customer ORDER BY id ROWS 2 PRECEDING)",
        "SELECT '{\"a\": [1]}'::jsonb -> 'a' -> 0, jsonb_path_query('[1, 2]', '$[*]')",
        "SELECT * FROM customers TABLESAMPLE SYSTEM (100)",
        "SELECT random(), now(), clock_timestamp(), gen_random_uuid(), current_user",
        "SELECT c.name, o.* FROM customers c LEFT JOIN LATERAL"
        " (SELECT total FROM orders WHERE customer = c.id ORDER BY total LIMIT 1) o ON true",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
        "SELECT CASE WHEN id IN (SELECT customer FROM orders) THEN greatest(1, 2) ELSE"
        " coalesce(NULL, nullif(1, 1)) END, id IS DISTINCT FROM 1, name LIKE 'A%' FROM customers",
    ],
)
def test_reading_in_every_shape_is_read(shop: Shop, statement: str) -> None:
    assert shop.plan(statement).kind == "read"
    assert shop.query(statement).columns is not None


def test_rows_beyond_the_bound_are_cut_and_said(shop: Shop) -> None:
    found = shop.query("SELECT * FROM generate_series(1, 100000)")
    assert len(found.rows) == limits.SQL_ROWS_RETURNED_MAX
    assert found.truncated
    wide = shop.query("SELECT repeat('x', 200000) FROM generate_series(1, 100)")
    assert wide.truncated
    assert sum(len(row[0]) for row in wide.rows) <= limits.RESULT_SIZE_BYTES_MAX


def test_a_huge_value_stays_on_the_server(shop: Shop) -> None:
    with pytest.raises(errors.LimitReached, match="larger"):
        shop.query("SELECT repeat('x', 5000000)")
    given = shop.do("UPDATE customers SET name = 'x' WHERE id = 1 RETURNING repeat(name, 5000000)")
    assert given.rows.truncated
    assert given.rows.rows == []


def test_the_order_of_a_query_is_kept(shop: Shop) -> None:
    found = shop.query("SELECT i FROM generate_series(1, 150) i ORDER BY i % 7, i DESC")
    assert found.rows == [[i] for i in sorted(range(1, 151), key=lambda i: (i % 7, -i))]


def test_a_statement_that_takes_too_long_is_stopped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_connection._SETTINGS, "statement_timeout", "200")
    with pytest.raises(errors.LimitReached, match="longer"):
        shop.query("SELECT count(*) FROM generate_series(1, 1000000000000)")


def test_a_statement_is_stopped_from_outside_its_thread(shop: Shop) -> None:
    watch = Watch(Runtime())
    said: list[Exception] = []

    def work() -> None:
        try:
            postgres_engine.query(
                shop.server, PASSWORD, "SELECT count(*) FROM generate_series(1, 1000000000000)",
                [], watch,
            )  # fmt: skip
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not shop.rows("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'FETCH%'"):
        assert thread.is_alive()
    watch.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert isinstance(said[0], errors.ToolFailed)
    assert "stopped" in said[0].what


def test_parameters_are_counted_and_bound_never_pasted(shop: Shop) -> None:
    evil = "'; DROP TABLE customers; --"
    assert shop.query("SELECT $1::text", [evil]).rows == [[evil]]
    for wrong in ([], [1, 2]):
        with pytest.raises(errors.CallInvalid, match="do not fit"):
            shop.query("SELECT name FROM customers WHERE id = $1", wrong)
    for bad in ("a\0b", "\ud800", object(), {"base64": "?"}):
        with pytest.raises(errors.CallInvalid):
            shop.query("SELECT $1::text", [bad])
    with pytest.raises(errors.CallInvalid, match="NUL"):
        shop.query("SELECT 1\0; DROP TABLE customers")


# --- changing -------------------------------------------------------------------------------------


def test_a_plan_changes_nothing_and_the_execution_does_what_it_said(shop: Shop) -> None:
    before = shop.dump()
    plan = shop.plan("UPDATE customers SET name = $1 WHERE id = 1", ["Eve"])
    assert plan.kind == "write"
    assert counts(plan.changes) == {"customers": (0, 1, 0)}
    assert plan.sample[0].changed == {"name": "Eve"}
    assert shop.dump() == before
    done = shop.execute("UPDATE customers SET name = $1 WHERE id = 1", plan.digest, ["Eve"])
    assert done.changes == plan.changes
    assert shop.rows("SELECT name FROM customers WHERE id = 1") == [("Eve",)]


def test_what_cascades_is_counted_by_the_engine(shop: Shop) -> None:
    plan = shop.plan("DELETE FROM customers WHERE id = 1")
    assert counts(plan.changes) == {"customers": (0, 0, 1), "orders": (0, 0, 2)}


def test_an_insert_with_clock_and_sequence_is_approved_once_and_says_so(shop: Shop) -> None:
    statement = "INSERT INTO log(what) VALUES ($1) RETURNING id, at"
    plans = [shop.plan(statement, ["x"]) for _ in range(2)]
    assert plans[0].digest == plans[1].digest, "else a human would be asked for ever"
    assert any("other values" in note for note in plans[0].notes)
    assert any("sequence" in note for note in plans[0].notes)
    assert shop.execute(statement, plans[0].digest, ["x"]).changes == plans[0].changes


def test_what_is_written_is_a_part_of_the_digest(shop: Shop) -> None:
    one = shop.plan("INSERT INTO log(what) VALUES ('x')")
    with pytest.raises(errors.CallDenied, match="not those that were approved"):
        shop.execute("INSERT INTO log(what) VALUES ('y')", one.digest)
    assert shop.rows("SELECT count(*) FROM log") == [(0,)]


@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE customers SET name = 'other' WHERE id = 2",
        "INSERT INTO customers VALUES (7, 'New', 'n@x')",
        "DELETE FROM customers WHERE id = 3",
        "INSERT INTO orders(customer, total) VALUES (3, 1)",
    ],
)
def test_rows_that_changed_since_the_plan_refuse_the_execution(shop: Shop, meanwhile: str) -> None:
    plan = shop.plan("DELETE FROM customers")
    shop.run(meanwhile)
    before = shop.dump()
    with pytest.raises(errors.CallDenied, match="not those that were approved"):
        shop.execute("DELETE FROM customers", plan.digest)
    assert shop.dump() == before


def test_a_statement_that_does_otherwise_each_time_is_not_done(world: World, shop: Shop) -> None:
    shop.run("CREATE SEQUENCE turn", "GRANT USAGE ON SEQUENCE turn TO agent")
    statement = "DELETE FROM customers WHERE id = (SELECT 1 + nextval('turn') % 3)"
    before = shop.dump()
    try:
        digest = shop.plan(statement).digest
        with pytest.raises(errors.CallDenied):
            shop.execute(statement, digest)
    except errors.CallDenied:
        pass
    with pytest.raises(errors.CallDenied, match="twice"):
        shop.plan("DELETE FROM customers WHERE id <= (SELECT nextval('turn') % 3)")
    after = shop.dump()
    assert after["public.customers"] == before["public.customers"]


def test_too_many_rows_are_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SQL_ROWS_CHANGED_MAX", 4)
    with pytest.raises(errors.LimitReached, match="more than 4 rows"):
        shop.plan("DELETE FROM customers")


def test_rows_too_large_for_the_record_are_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLOB_SIZE_BYTES_MAX", 20)
    with pytest.raises(errors.LimitReached, match="bytes"):
        shop.plan("DELETE FROM customers")


def test_deferred_constraints_and_triggers_act_before_the_commit(world: World) -> None:
    shop = world.fresh(
        "CREATE TABLE child(id int PRIMARY KEY, of int REFERENCES customers(id)"
        " DEFERRABLE INITIALLY DEFERRED)",
        """CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN DELETE FROM orders; RETURN NULL; END $$""",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()",
    )
    with pytest.raises(errors.CallInvalid, match="did not take"):
        shop.plan("INSERT INTO child VALUES (1, 99)")
    found = shop.plan("INSERT INTO log(what) VALUES ('x')")
    assert counts(found.changes) == {"log": (1, 0, 0), "orders": (0, 0, 3)}
    world.drop(shop.name)


def test_parameters_written_as_elsewhere_are_answered_with_how_they_are_written_here(
    world: World,
) -> None:
    shop = world.fresh()
    for written in ("?", "%s"):
        with pytest.raises(errors.CallInvalid) as refused:
            shop.plan(f"DELETE FROM customers WHERE id = {written}")
        assert "$1" in refused.value.todo
    with pytest.raises(errors.CallInvalid) as refused:
        shop.plan("DELETE FORM customers")
    assert "$1" not in refused.value.todo
    world.drop(shop.name)


def test_rows_of_a_subtransaction_are_seen(world: World) -> None:
    shop = world.fresh(
        """CREATE FUNCTION careful() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           BEGIN UPDATE orders SET total = total + 1 WHERE customer = NEW.id;
           EXCEPTION WHEN division_by_zero THEN NULL; END; RETURN NEW; END $$""",
        "CREATE TRIGGER careful AFTER UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION careful()",
    )
    plan = shop.plan("UPDATE customers SET name = 'x' WHERE id = 1")
    assert counts(plan.changes) == {"customers": (0, 1, 0), "orders": (0, 2, 0)}
    assert [row.changed for row in plan.sample if row.table == "orders"] == [
        {"total": "11.50"}, {"total": "21.00"},
    ]  # fmt: skip
    # The trigger fires again when the rows are put back.
    assert "would change more rows of orders" in plan.why_irreversible
    world.drop(shop.name)


def test_a_row_that_others_have_locked_is_seen_all_the_same(shop: Shop) -> None:
    before = shop.dump()
    with shop.world.connect(shop.name) as other:
        other.autocommit = False
        other.execute("SELECT * FROM customers WHERE id = 1 FOR KEY SHARE")
        done = shop.do("UPDATE customers SET name = 'Eve' WHERE id < 3")
        assert done.images
        other.rollback()
    shop.undo(done.images)
    assert shop.dump() == before


def test_a_row_that_is_only_locked_is_not_a_change(shop: Shop) -> None:
    plan = shop.plan(
        "WITH l AS MATERIALIZED (SELECT id FROM customers FOR UPDATE)"
        " UPDATE customers SET name = 'x' FROM l WHERE l.id = customers.id AND l.id = 2"
    )
    assert [(row.op, row.row["id"]) for row in plan.sample] == [("UPDATE", "2")]
    assert plan.reversible
    found = shop.plan("INSERT INTO orders(customer, total) VALUES (1, 5)")
    assert counts(found.changes) == {"orders": (1, 0, 0)}
    assert found.reversible


def test_partitions_count_and_are_restored_as_one_table(world: World) -> None:
    shop = world.fresh(
        "CREATE TABLE visit(id int, day date, what text, PRIMARY KEY (id, day))"
        " PARTITION BY RANGE (day)",
        "CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE TABLE visit_2 PARTITION OF visit FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
        "INSERT INTO visit VALUES (1, '2026-01-05', 'a'), (2, '2026-02-05', 'b')",
    )
    shop.run("REVOKE ALL ON visit_1, visit_2 FROM agent")
    before = shop.dump()
    for statement in (
        "DELETE FROM visit",
        "UPDATE visit SET what = 'z'",
        "UPDATE visit SET day = '2026-02-06' WHERE id = 1",
    ):
        done = shop.do(statement)
        assert list(counts(done.changes)) == ["visit"]
        assert done.images, statement
        shop.undo(done.images)
        assert shop.dump() == before
    world.drop(shop.name)


def test_a_copy_from_another_table_is_told(shop: Shop) -> None:
    assert shop.plan("INSERT INTO log(what) SELECT name FROM customers").copies
    assert shop.plan("UPDATE orders SET total = (SELECT max(id) FROM customers)").copies
    assert not shop.plan("INSERT INTO log(what) VALUES ('x')").copies
    assert not shop.plan("INSERT INTO orders(customer, total) VALUES (1, 5)").copies
    assert not shop.plan("DELETE FROM customers WHERE id = 1").copies


def test_rows_that_the_role_may_not_see_are_counted_and_irreversible(world: World) -> None:
    shop = world.fresh(
        "CREATE TABLE hidden(id serial PRIMARY KEY, what text)",
        """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN INSERT INTO public.hidden(what) VALUES ('x'); RETURN NULL; END $$""",
        "CREATE TRIGGER note AFTER UPDATE ON customers EXECUTE FUNCTION note()",
    )
    shop.run("REVOKE ALL ON hidden FROM agent")
    found = shop.plan("UPDATE customers SET name = 'x' WHERE id = 1")
    assert counts(found.changes) == {"customers": (0, 1, 0), "hidden": (1, 0, 0)}
    assert "may not read" in found.why_irreversible
    world.drop(shop.name)


def test_row_security_of_the_role_holds_and_what_it_hides_is_counted(world: World) -> None:
    shop = world.fresh(
        "ALTER TABLE customers ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON customers TO agent USING (id = 1)",
        """CREATE FUNCTION spread() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN UPDATE public.customers SET name = 'y' WHERE id > 1; RETURN NULL; END $$""",
        "CREATE TRIGGER spread AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION spread()",
    )
    assert shop.query("SELECT id FROM customers").rows == [[1]]
    found = shop.plan("UPDATE customers SET name = 'x'")
    assert counts(found.changes) == {"customers": (0, 1, 0)}
    assert found.reversible
    shop.run("UPDATE customers SET email = 'new' WHERE id = 1")
    with pytest.raises(errors.CallDenied, match="not those that were approved"):
        shop.execute("UPDATE customers SET name = 'x'", found.digest)
    found = shop.plan("INSERT INTO log(what) VALUES ('x')")
    assert counts(found.changes) == {"customers": (0, 2, 0), "log": (1, 0, 0)}
    assert found.why_irreversible == "not every row of customers can be seen"
    world.drop(shop.name)


ODD = '"odd ""name"'


def test_columns_with_the_engines_own_names_do_no_harm(world: World) -> None:
    shop = world.fresh(
        f'CREATE TABLE {ODD}(id int PRIMARY KEY, ring0_new text, v text, "a b" text[],'
        " c1 char(9), gone int, d int GENERATED ALWAYS AS (id + 1) STORED)",
        f"ALTER TABLE {ODD} DROP COLUMN gone",
        f"""INSERT INTO {ODD} VALUES (1, 'x', 'y', '{{"1,2",NULL,"\\"q"}}', 'pad  ')""",
    )
    before = shop.rows(f"SELECT * FROM {ODD}")
    done = shop.do(f'UPDATE {ODD} SET "a b" = NULL, c1 = $1, v = NULL', ["z"])
    assert done.images
    shop.undo(done.images)
    assert shop.rows(f"SELECT * FROM {ODD}") == before
    done = shop.do(f"DELETE FROM {ODD}")
    shop.undo(done.images)
    assert shop.rows(f"SELECT * FROM {ODD}") == before
    world.drop(shop.name)


# --- who it is, and where -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "power",
    ["SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"],
)
def test_a_powerful_role_is_refused(shop: Shop, power: str) -> None:
    shop.run(f"CREATE ROLE strong LOGIN PASSWORD '{PASSWORD}' {power}")
    try:
        server = msgspec.structs.replace(shop.server, user="strong")
        with pytest.raises(errors.ToolFailed, match="too powerful") as told:
            postgres_engine.query(server, PASSWORD, "SELECT 1", [], Watch(Runtime()))
        assert power in told.value.why
    finally:
        shop.run("DROP ROLE strong")


@pytest.mark.parametrize(
    "group",
    ["pg_read_server_files", "pg_write_server_files", "pg_execute_server_program",
     "pg_signal_backend", "mighty"],
)  # fmt: skip
def test_a_role_that_may_become_a_powerful_one_is_refused(shop: Shop, group: str) -> None:
    shop.run(
        "CREATE ROLE mighty CREATEDB",
        f"CREATE ROLE strong LOGIN NOINHERIT PASSWORD '{PASSWORD}'",
        f"GRANT {group} TO strong",
    )
    try:
        for role in ("", "agent"):  # SET ROLE to a weak one does not help: it can be reset.
            server = msgspec.structs.replace(shop.server, user="strong", role=role)
            shop.run("GRANT agent TO strong")
            with pytest.raises(errors.ToolFailed, match="too powerful"):
                postgres_engine.query(server, PASSWORD, "SELECT 1", [], Watch(Runtime()))
    finally:
        shop.run("DROP ROLE strong", "DROP ROLE mighty")


def test_a_weaker_role_is_taken_after_the_login(shop: Shop) -> None:
    shop.run("CREATE ROLE reader", "GRANT reader TO agent", "GRANT SELECT ON customers TO reader")
    try:
        server = msgspec.structs.replace(shop.server, role="reader")
        watch = Watch(Runtime())
        assert postgres_engine.query(server, PASSWORD, "SELECT current_user", [], watch).rows == [
            ["reader"]
        ]
        with pytest.raises(errors.CallDenied, match="refused"):
            postgres_engine.plan(server, PASSWORD, "DELETE FROM customers", [], watch)
    finally:
        shop.run("DROP OWNED BY reader", "DROP ROLE reader")


def test_a_server_that_does_not_count_rows_is_refused(shop: Shop) -> None:
    shop.run(f"ALTER DATABASE {shop.name} SET track_counts = off")
    with pytest.raises(errors.ToolFailed, match="does not count"):
        shop.plan("DELETE FROM customers")


def test_a_role_without_a_temporary_schema_is_told_what_is_missing(shop: Shop) -> None:
    shop.run(f"REVOKE TEMPORARY ON DATABASE {shop.name} FROM PUBLIC")
    with pytest.raises(errors.ToolFailed, match="temporary") as told:
        shop.query("SELECT 1")
    assert "GRANT TEMPORARY" in told.value.todo


def test_names_are_not_looked_up_before_the_engines_own(shop: Shop) -> None:
    shop.run(f"ALTER DATABASE {shop.name} SET search_path = public, pg_catalog")
    with pytest.raises(errors.ToolFailed, match="before pg_catalog"):
        shop.query("SELECT 1")


def test_the_password_is_in_no_error(shop: Shop) -> None:
    with pytest.raises(errors.ToolFailed) as told:
        postgres_engine.query(shop.server, "wrong-secret-word", "SELECT 1", [], Watch(Runtime()))
    assert "wrong-secret-word" not in str(told.value)


def test_the_environments_password_is_not_used(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with pytest.raises(errors.ToolFailed, match="can't be reached"):
        postgres_engine.query(shop.server, "", "SELECT 1", [], Watch(Runtime()))


def test_nothing_stays_behind_in_the_database(shop: Shop) -> None:
    before = shop.dump()
    shop.query("SELECT * FROM customers")
    shop.plan("DELETE FROM customers")
    assert shop.dump() == before
    assert shop.rows("SELECT proname FROM pg_proc WHERE proname LIKE 'ring0%'") == []
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{shop.name}' AND usename = "
    assert shop.rows(query + "'agent'") == [(0,)]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"database": "x.db", "url": "postgresql://agent@host/db"},
        {"database": "x.db", "password_secret": "PG"},
        {"database": "x.db", "role": "reader"},
        {"url": "postgresql://agent@host/db", "password": "x"},
        {"url": "postgresql://agent:x@host/db"},
        {"url": 7},
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(errors.ManifestInvalid):
        sql.drivers("db", {"use": "sql", **config}, tmp_path, Runtime(), tmp_path / "home")


def test_without_psycopg_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setattr(sql_databases, "find_spec", lambda _: None)
    config = {"use": "sql", "url": "postgresql://agent@localhost/db"}
    with pytest.raises(errors.ManifestInvalid, match="psycopg"):
        sql.drivers("db", config, tmp_path, Runtime(), tmp_path)
    server = parse_url("postgresql://agent@localhost/db")
    with pytest.raises(errors.ManifestInvalid) as told:
        postgres_engine.query(server, "", "SELECT 1", [], Watch(Runtime()))
    assert "pip install -e '.[postgres]'" in told.value.todo


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://agent:secret@host/db",
        "postgresql://agent@host/db?password=secret",
        "postgresql://agent@host/db?options=-csession_replication_role%3Dreplica",
        "postgresql://agent@host/db?service=other",
        "postgresql://agent@host/db?passfile=/etc/shadow",
        "postgresql://agent@host1,host2/db",
        "postgresql://agent@/db",
        "postgresql://host/db",
        "postgresql://agent@host",
        "postgresql://agent@host:99999/db",
        "mysql://agent@host/db",
        "agent@host/db",
        "",
    ],
)
def test_a_url_that_says_too_much_or_too_little_is_refused(url: str) -> None:
    with pytest.raises(errors.ManifestInvalid) as told:
        parse_url(url)
    assert "secret" not in str(told.value).replace("password_secret", "").replace(
        "a secret", ""
    ).replace("that secret", "")


def test_a_server_elsewhere_must_prove_who_it_is() -> None:
    far = parse_url("postgresql://agent@db.example:5433/crm")
    assert far.tls == {"sslmode": "verify-full", "sslrootcert": "system"}
    assert (far.host, far.port, far.database, far.user) == ("db.example", 5433, "crm", "agent")
    near = parse_url("postgresql://agent@/crm?host=/run/postgresql")
    assert (near.host, near.tls) == ("/run/postgresql", {})
    loose = parse_url("postgresql://agent@db.example/crm?sslmode=require")
    assert loose.tls == {"sslmode": "require"}
