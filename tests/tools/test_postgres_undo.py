"""Taking back a change of a PostgreSQL database: exactly, or refused, and told beforehand."""

from __future__ import annotations

from collections.abc import Iterator

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


CHANGES = [
    "DELETE FROM customers",
    "DELETE FROM customers WHERE id = 1",
    "DELETE FROM orders",
    "UPDATE customers SET name = upper(name), email = NULL",
    "UPDATE customers SET id = id + 10 WHERE id = 3",
    "UPDATE orders SET customer = 3 WHERE customer = 1",
    "INSERT INTO orders(customer, total) SELECT id, 5 FROM customers",
    "INSERT INTO log(what) VALUES ('x'), (NULL)",
    "INSERT INTO customers VALUES (1, 'x', 'a@x'), (8, 'h', 'h@x') ON CONFLICT (id) DO UPDATE"
    " SET name = excluded.name",
    "WITH gone AS (DELETE FROM orders RETURNING id, customer)"
    " UPDATE customers SET name = 'had ' || gone.id FROM gone WHERE customer = customers.id",
    "WITH d AS (DELETE FROM customers WHERE id = 3) INSERT INTO log(what) VALUES ('x')",
    "UPDATE customers SET name = name",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_undo_puts_every_row_back(shop: Shop, statement: str) -> None:
    before = shop.dump()
    plan = shop.plan(statement)
    assert plan.reversible, plan.why_irreversible
    done = shop.execute(statement, plan.digest)
    if not statement.endswith("name = name"):
        assert shop.dump() != before
    undone = shop.undo(done.images)
    assert shop.dump() == before
    if not statement.endswith("name = name"):
        assert sum(sum(numbers) for numbers in counts(undone).values()) > 0


@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE customers SET name = 'other' WHERE id = 1",
        "DELETE FROM customers WHERE id = 1",
        "UPDATE customers SET id = 77 WHERE id = 3",
    ],
)
def test_undo_refuses_where_a_row_has_changed_since(shop: Shop, meanwhile: str) -> None:
    done = shop.do("UPDATE customers SET name = 'x'")
    shop.run(meanwhile)
    before = shop.dump()
    with pytest.raises(errors.UndoRefused, match="changed since"):
        shop.undo(done.images)
    assert shop.dump() == before


@pytest.mark.parametrize(
    "meanwhile",
    [
        "INSERT INTO customers VALUES (1, 'again', 'z@x')",
        "INSERT INTO customers VALUES (50, 'taken', 'a@x')",
        "ALTER TABLE customers ADD COLUMN more int",
        "DROP TABLE orders",
        "ALTER TABLE customers DROP CONSTRAINT customers_pkey CASCADE",
    ],
)
def test_undo_of_a_delete_refuses_where_it_would_overwrite(shop: Shop, meanwhile: str) -> None:
    done = shop.do("DELETE FROM customers")
    shop.run(meanwhile)
    before = shop.dump()
    with pytest.raises(errors.UndoRefused):
        shop.undo(done.images)
    assert shop.dump() == before


def test_undo_of_an_insert_refuses_where_others_refer_to_the_row_now(shop: Shop) -> None:
    """The foreign key would take the new order with it: more than was changed."""
    done = shop.do("INSERT INTO customers VALUES (9, 'New', 'n@x')")
    shop.run("INSERT INTO orders(customer, total) VALUES (9, 1)")
    before = shop.dump()
    with pytest.raises(errors.UndoRefused):
        shop.undo(done.images)
    assert shop.dump() == before


def test_undo_waits_for_nobody_and_overwrites_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_connection._SETTINGS, "lock_timeout", "200")
    done = shop.do("UPDATE customers SET name = 'x'")
    with shop.world.connect(shop.name) as other:
        other.autocommit = False
        other.execute("UPDATE customers SET name = 'theirs' WHERE id = 2")
        with pytest.raises(errors.ToolFailed, match="Others"):
            shop.undo(done.images)
        other.commit()
    with pytest.raises(errors.UndoRefused, match="changed since"):
        shop.undo(done.images)


def test_undo_happens_once(shop: Shop) -> None:
    done = shop.do("DELETE FROM orders")
    shop.undo(done.images)
    with pytest.raises(errors.UndoRefused):
        shop.undo(done.images)


LOG = (
    """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN INSERT INTO log(what) VALUES (TG_OP); RETURN NULL; END $$""",
    "CREATE TRIGGER audit AFTER UPDATE OR DELETE OR INSERT ON customers"
    " FOR EACH ROW EXECUTE FUNCTION audit()",
)


def test_a_log_that_triggers_write_keeps_its_rows_and_that_is_said(world: World) -> None:
    shop = world.fresh(*LOG)
    before = shop.dump()
    plan = shop.plan("UPDATE customers SET name = 'x' WHERE id = 1")
    assert plan.reversible
    assert any("leaves what triggers add to log" in note for note in plan.notes)
    done = shop.execute("UPDATE customers SET name = 'x' WHERE id = 1", plan.digest)
    shop.undo(done.images)
    assert shop.dump()["public.customers"] == before["public.customers"]
    assert shop.rows("SELECT what FROM log") == [("UPDATE",), ("UPDATE",)]
    world.drop(shop.name)


def test_what_a_trigger_would_not_let_back_is_told_before_it_is_done(world: World) -> None:
    shop = world.fresh(
        """CREATE FUNCTION only_up() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.total := greatest(OLD.total, NEW.total); RETURN NEW; END $$""",
        "CREATE TRIGGER only_up BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION only_up()",
    )
    plan = shop.plan("UPDATE orders SET total = 100")
    assert not plan.reversible
    assert "did not store it as it was" in plan.why_irreversible
    assert plan.images == b""
    assert shop.execute("UPDATE orders SET total = 100", plan.digest).images == b""
    world.drop(shop.name)


STAMP = (
    "ALTER TABLE customers ADD COLUMN changed timestamptz DEFAULT '2020-01-01'",
    """CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN NEW.changed := now(); RETURN NEW; END $$""",
    "CREATE TRIGGER stamp BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION stamp()",
)


def test_a_time_that_a_trigger_stamps_stays_and_that_is_said(world: World) -> None:
    shop = world.fresh(*STAMP)
    plan = shop.plan("UPDATE customers SET name = 'x'")
    assert plan.reversible, plan.why_irreversible
    assert any("customers: changed" in note for note in plan.notes)
    done = shop.execute("UPDATE customers SET name = 'x'", plan.digest)
    shop.undo(done.images)
    assert shop.rows("SELECT id, name FROM customers ORDER BY id") == [
        (1, "Ada"), (2, "Bob"), (3, "Cyd"),
    ]  # fmt: skip
    assert shop.rows("SELECT count(*) FROM customers WHERE changed > '2021-01-01'") == [(3,)]
    world.drop(shop.name)


def test_a_table_without_a_primary_key_is_irreversible_and_that_is_said(world: World) -> None:
    shop = world.fresh("CREATE TABLE loose(a int)", "INSERT INTO loose VALUES (1), (1)")
    plan = shop.plan("DELETE FROM loose")
    assert counts(plan.changes) == {"loose": (0, 0, 2)}
    assert "no primary key" in plan.why_irreversible
    world.drop(shop.name)


def test_more_rows_than_are_kept_are_irreversible(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SQL_ROWS_REVERSIBLE_MAX", 2)
    plan = shop.plan("DELETE FROM orders")
    assert "more than 2 rows" in plan.why_irreversible


def test_a_row_that_is_too_large_to_keep_is_irreversible_and_still_checked(shop: Shop) -> None:
    shop.run("UPDATE customers SET name = repeat('x', 400000) WHERE id = 1")
    plan = shop.plan("DELETE FROM customers WHERE id = 1")
    assert "too large" in plan.why_irreversible
    shop.run("UPDATE customers SET name = repeat('y', 400000) WHERE id = 1")
    with pytest.raises(errors.CallDenied, match="not those that were approved"):
        shop.execute("DELETE FROM customers WHERE id = 1", plan.digest)


def test_circles_and_trees_of_references_are_put_back(world: World) -> None:
    shop = world.fresh(
        "CREATE TABLE tree(id int PRIMARY KEY, up int REFERENCES tree(id) ON DELETE CASCADE)",
        "INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)",
        "CREATE TABLE hen(id int PRIMARY KEY, egg int)",
        "CREATE TABLE egg(id int PRIMARY KEY, hen int REFERENCES hen(id) ON DELETE CASCADE)",
        "ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg(id) ON DELETE SET NULL",
        "INSERT INTO hen VALUES (1, NULL)",
        "INSERT INTO egg VALUES (5, 1)",
        "UPDATE hen SET egg = 5",
    )
    before = shop.dump()
    done = shop.do("DELETE FROM tree WHERE id = 1")
    assert counts(done.changes) == {"tree": (0, 0, 3)}
    shop.undo(done.images)
    assert shop.dump() == before
    plan = shop.plan("DELETE FROM hen")
    assert not plan.reversible, "each wants the other first"
    done = shop.do("DELETE FROM egg")
    assert counts(done.changes) == {"egg": (0, 0, 1), "hen": (0, 1, 0)}
    shop.undo(done.images)
    assert shop.dump() == before
    world.drop(shop.name)


def test_values_of_every_type_come_back_exactly(world: World) -> None:
    shop = world.fresh(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN short AS varchar(5) CHECK (value <> '')",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE TABLE every(id uuid, n numeric, f float8, r real, c char(7), v varchar(9),"
        " t text, b bytea, ts timestamp, tz timestamptz, d date, iv interval, j json, jb jsonb,"
        " a int[], aa text[][], m mood, s short, p pair, ra int4range, bl bool, ip inet, x xml,"
        ' bits bit(4), money money, i8 bigint, i2 smallint, q "char",'
        " i int GENERATED ALWAYS AS IDENTITY, tsv tsvector, g int GENERATED ALWAYS AS (1) STORED,"
        " PRIMARY KEY (id, c))",
        """INSERT INTO every VALUES (gen_random_uuid(), 1.10000, 0.1, 1e-7, 'a b', ' x ',
           E'\\\\ ''"{},\\n', '\\x00ff', '2026-01-01 00:00:00.000001', '0044-03-15 BC', 'infinity',
           '1 mon -2 days 00:00:00.1', '{"a": 1, "a":2}', '{"b": [1.0]}', '{1,NULL,3}',
           '{{a,"b,c"},{NULL,"\\""}}', 'ok', 'abc', '(1,"x,""y")', '[1,5)', true, '10.0.0.1/8',
           NULL, '1010', 12.5, 9223372036854775807, -1, 'x', DEFAULT, 'a:1 b', DEFAULT)""",
        "INSERT INTO every(id, c, f, r) VALUES (gen_random_uuid(), 'z', 'NaN', '-Infinity')",
    )
    before = shop.dump()
    done = shop.do("DELETE FROM every")
    assert done.images
    shop.undo(done.images)
    assert shop.dump() == before
    done = shop.do(
        "UPDATE every SET n = NULL, f = NULL, r = 1, c = 'q', v = 'w', t = '', b = '', ts = now(),"
        " tz = now(), d = 'today', iv = '1s', j = '1', jb = 'null', a = NULL, aa = '{}', m = 'sad',"
        " s = 'd', p = NULL, ra = 'empty', bl = NULL, ip = NULL, bits = NULL, money = 0, i8 = 0,"
        " i2 = 0, q = 'y', tsv = NULL"
    )
    assert done.images
    shop.undo(done.images)
    assert shop.dump() == before
    world.drop(shop.name)


async def test_evidence_holds_no_password_and_opens_the_right_database(shop: Shop) -> None:
    before = shop.dump()
    images = shop.do("DELETE FROM customers").images
    where = sql_databases.PostgresServer(server=shop.server, password_secret="PG")
    kept = sql_databases.evidence(where, images)
    assert PASSWORD.encode() not in kept
    with pytest.raises(errors.ManifestInvalid, match="secret"):
        await sql.undo(kept, Runtime())
    with pytest.raises(errors.ManifestInvalid, match="secret"):
        await sql.undo(kept, Runtime(), lambda name: "")
    undone = await sql.undo(kept, Runtime(), {"PG": PASSWORD}.__getitem__)
    assert undone == {"restored": {"customers": 3, "orders": 3}}
    assert shop.dump() == before


@pytest.mark.parametrize("kept", [b"", b"\xc1", msgspec.msgpack.encode({"path": 1})])
async def test_damaged_evidence_is_refused(kept: bytes) -> None:
    with pytest.raises(errors.UndoRefused):
        await sql.undo(kept, Runtime())


def test_damaged_images_are_refused(shop: Shop) -> None:
    for images in (b"", b"\xc1", msgspec.msgpack.encode([99, {}, [], []])):
        with pytest.raises(errors.UndoRefused):
            shop.undo(images)


def test_a_connection_that_breaks_at_the_commit_is_looked_after(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked what became of the transaction: nobody has to guess."""
    plain = postgres_connection.Connection.commit

    def broken_after(db: postgres_connection.Connection) -> None:
        number = db.run("SELECT pg_current_xact_id_if_assigned()::text").rows[0][0]
        plain(db)
        raise postgres_connection.CommitLost(number or "", "the line is dead")

    def broken_before(db: postgres_connection.Connection) -> None:
        number = db.run("SELECT pg_current_xact_id_if_assigned()::text").rows[0][0]
        db.roll_back()
        raise postgres_connection.CommitLost(number or "", "the line is dead")

    digest = shop.plan("DELETE FROM orders").digest
    monkeypatch.setattr(postgres_connection.Connection, "commit", broken_before)
    with pytest.raises(errors.ToolFailed, match="undid"):
        shop.execute("DELETE FROM orders", digest)
    assert shop.rows("SELECT count(*) FROM orders") == [(3,)]
    monkeypatch.setattr(postgres_connection.Connection, "commit", broken_after)
    assert counts(shop.execute("DELETE FROM orders", digest).changes) == {"orders": (0, 0, 3)}
    assert shop.rows("SELECT count(*) FROM orders") == [(0,)]


def test_a_commit_that_nobody_can_ask_about_is_unknown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = shop.plan("DELETE FROM orders").digest

    def kill_the_line(db: postgres_connection.Connection) -> None:
        db.pgconn.finish()
        monkeypatch.setattr(postgres_engine, "opened", unreachable)
        raise postgres_connection.CommitLost("1234", "the line is dead")

    def unreachable(*_: object) -> None:
        raise errors.ToolFailed("can't be reached")

    monkeypatch.setattr(postgres_connection.Connection, "commit", kill_the_line)
    with pytest.raises(errors.EffectUnknown, match="broke at the commit"):
        postgres_engine.execute(
            shop.server, PASSWORD, "DELETE FROM orders", [], digest, Watch(Runtime())
        )


def test_a_rehearsal_takes_several_back_one_after_another_and_changes_nothing(shop: Shop) -> None:
    kept = []
    for name in ("one", "two", "three"):
        statement = f"UPDATE customers SET name = '{name}' WHERE id = 1"
        kept.insert(0, shop.execute(statement, shop.plan(statement).digest).images)
    after = shop.dump()

    def rehearsed(several: list[bytes]) -> tuple[int, str]:
        watch = Watch(Runtime())
        found = postgres_engine.rehearse_undo(shop.server, PASSWORD, several, watch)
        return found.done, found.why

    assert rehearsed(kept) == (3, "")
    done, why = rehearsed([kept[0], kept[2], kept[1]])
    assert done == 1 and "has changed since" in why
    assert shop.dump() == after
