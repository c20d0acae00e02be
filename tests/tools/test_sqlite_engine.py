"""What a SQL statement does is what the engine says: the accidental drop, and all around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlite_world import SHOP, counts, do, dump, execute, plan, query, run, undo

from ring0 import errors, limits
from ring0.tools.sql.sqlite import engine


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")
    run(path, SHOP)
    return path


# --- the accidental drop ------------------------------------------------------------------------

DROPS = [
    "DROP TABLE customers",
    "dRoP\n\t/* nothing to see */ tAbLe -- x\n customers",
    "DROP TABLE IF EXISTS customers;",
    ";;DROP TABLE customers;;",
    "/* SELECT 1 */ DROP TABLE main.customers",
    'DROP TABLE "customers"',
    "DROP TABLE [customers]",
    "DROP INDEX orders_customer",
    "ALTER TABLE customers DROP COLUMN name",
    "ALTER TABLE customers RENAME TO gone",
    "CREATE TABLE x(a)",
    "CREATE TABLE x AS SELECT * FROM customers",
    "CREATE TEMP TABLE x(a)",
    "CREATE TEMP TRIGGER t AFTER INSERT ON customers BEGIN DELETE FROM orders; END",
    "CREATE TRIGGER t AFTER INSERT ON customers BEGIN DELETE FROM orders; END",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TEMP VIEW customers AS SELECT 1",
    "REINDEX",
    "ANALYZE",
]
FORBIDDEN = [
    "PRAGMA writable_schema = ON",
    "PRAGMA table_info(customers)",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = DELETE",
    "ATTACH '{other}' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{other}'",
    "vacuum /* */ main into '{other}'",
    "EXPLAIN VACUUM",
    "SELECT load_extension('x')",
    "SELECT writefile('{other}', 'x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT optimize(customers) FROM customers",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "CREATE VIRTUAL TABLE f USING csv(filename='/etc/passwd')",
    "BEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT x",
    "RELEASE x",
    "DROP TABLE IF EXISTS no_such_table",
]


@pytest.mark.parametrize("statement", DROPS)
def test_a_statement_that_changes_the_schema_is_never_run(shop: str, statement: str) -> None:
    before = dump(shop)
    found = plan(shop, statement)
    assert found.kind == "schema"
    assert found.why
    assert not found.changes
    assert not found.reversible
    with pytest.raises(errors.CallDenied):
        execute(shop, statement, found.digest)
    with pytest.raises(errors.CallDenied):
        query(shop, statement)
    assert dump(shop) == before


def test_a_drop_says_which_table_it_would_drop(shop: str) -> None:
    assert plan(shop, "DROP TABLE customers").why == "drops table customers"
    assert plan(shop, "ALTER TABLE orders ADD COLUMN x").why == "alters table orders"


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_what_reaches_out_of_the_rows_is_forbidden(
    shop: str, tmp_path: Path, statement: str
) -> None:
    other = tmp_path / "other.db"
    statement = statement.replace("{other}", str(other))
    before = dump(shop)
    try:
        found = plan(shop, statement)
    except errors.CallInvalid:
        # The engine does not even know the function or module.
        found = engine.Plan(kind="forbidden")
    assert found.kind == "forbidden"
    for door in (lambda: execute(shop, statement, ""), lambda: query(shop, statement)):
        with pytest.raises((errors.CallDenied, errors.CallInvalid)):
            door()
    assert dump(shop) == before
    assert not other.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1; DROP TABLE customers",
        "SELECT 1;;;DROP TABLE customers",
        "SELECT 1; -- x\nDROP TABLE customers",
        "SELECT 1; /* x */ DELETE FROM customers",
        "INSERT INTO log(what) VALUES ('x'); DELETE FROM customers",
        "SELECT 1; SELECT 2",
        "SELECT 1; PRAGMA writable_schema=ON",
        "SELECT 1; not sql at all",
        "SELECT ?; SELECT ?",
        "",
        "   ",
        ";",
        "-- only a comment",
        "SELECT 1\0; DROP TABLE customers",
        "\0DROP TABLE customers",
        "\ud800",
        "\uff24\uff32\uff2f\uff30 TABLE customers",
        "DR\u200bOP TABLE customers",
        "\u200bDROP TABLE customers",
        "SELECT 1\uff1b DROP TABLE customers FROM",
        "x" * (limits.SQL_STATEMENT_CHARS_MAX + 1),
        "DELETE FROM sqlite_schema",
        "DELETE FROM sqlite_master WHERE name = 'customers'",
        "UPDATE sqlite_schema SET sql = ''",
        'SELECT "no such column, nor a string"',
        "SELECT * FROM dbstat_is_not_there",
        "(" * 500 + "1" + ")" * 500,
    ],
)
def test_what_is_not_exactly_one_sound_statement_is_refused(shop: str, statement: str) -> None:
    before = dump(shop)
    for door in (
        lambda: plan(shop, statement),
        lambda: query(shop, statement),
        lambda: execute(shop, statement, ""),
    ):
        with pytest.raises((errors.CallInvalid, errors.CallDenied)):
            door()
    assert dump(shop) == before


@pytest.mark.parametrize(
    "statement", ["SELECT 1;", "SELECT 1 ; -- x", "/* a */ SELECT 1 /* b */;;\n;", " SELECT 1\n"]
)
def test_comments_and_semicolons_around_one_statement_are_fine(shop: str, statement: str) -> None:
    assert plan(shop, statement).kind == "read"
    assert query(shop, statement).rows == [[1]]


def test_a_comment_after_parameters_is_fine(shop: str) -> None:
    assert query(shop, "SELECT ?, ? ; -- x", [1, "b"]).rows == [[1, "b"]]
    assert do(shop, "DELETE FROM log WHERE id = ?; /* x */ ;", [9]).changes == ()


# --- what a statement really changes --------------------------------------------------------------


def test_a_delete_without_where_says_how_many_rows_it_takes(shop: str) -> None:
    before = dump(shop)
    found = plan(shop, "DELETE FROM log")
    assert counts(found.changes) == {}
    found = plan(shop, "DELETE FROM customers")
    assert found.kind == "write"
    assert counts(found.changes) == {"customers": (0, 0, 3), "orders": (0, 0, 3)}
    assert dump(shop) == before


def test_a_cascade_of_ten_thousand_rows_is_counted_exactly(tmp_path: Path) -> None:
    path = str(tmp_path / "big.db")
    run(
        path,
        SHOP
        + """
        INSERT INTO orders(customer, total) WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) SELECT 3, i * 1.5 FROM n;""",
    )
    before = dump(path)
    found = plan(path, "DELETE FROM customers WHERE id = 3")
    assert counts(found.changes) == {"customers": (0, 0, 1), "orders": (0, 0, 10_000)}
    assert found.reversible
    done = execute(path, "DELETE FROM customers WHERE id = 3", found.digest)
    assert done.changes == found.changes
    assert done.images == found.images
    assert dump(path) != before
    assert counts(undo(path, done.images)) == {"customers": (1, 0, 0), "orders": (10_000, 0, 0)}
    assert dump(path) == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO customers VALUES (9, 'Eve', 'a@x')",
        "REPLACE INTO customers VALUES (9, 'Eve', 'a@x')",
        "WITH x AS (SELECT 9) INSERT OR REPLACE INTO customers SELECT 9, 'Eve', 'a@x' FROM x",
    ],
)
def test_a_replace_that_destroys_another_row_says_so(shop: str, statement: str) -> None:
    before = dump(shop)
    found = plan(shop, statement)
    assert counts(found.changes) == {"customers": (1, 0, 1), "orders": (0, 0, 2)}
    undo(shop, do(shop, statement).images)
    assert dump(shop) == before


def test_an_update_or_replace_that_destroys_another_row_says_so(shop: str) -> None:
    before = dump(shop)
    statement = "UPDATE OR REPLACE customers SET email = 'a@x' WHERE id = 2"
    assert counts(plan(shop, statement).changes)["customers"][2] == 1
    done = do(shop, statement)
    assert query(shop, "SELECT id FROM customers").rows == [[2], [3]]
    undo(shop, done.images)
    assert dump(shop) == before


def test_a_conflict_clause_in_the_schema_that_destroys_a_row_is_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE);"
              "INSERT INTO t VALUES (1, 'a')")  # fmt: skip
    before = dump(path)
    done = do(path, "INSERT INTO t VALUES (2, 'a')")
    assert counts(done.changes) == {"t": (1, 0, 1)}
    undo(path, done.images)
    assert dump(path) == before


def test_an_upsert_says_whether_it_inserts_or_updates(shop: str) -> None:
    statement = (
        "INSERT INTO customers VALUES (1, 'Z', 'z@x'), (8, 'H', 'h@x') "
        "ON CONFLICT(id) DO UPDATE SET name = excluded.name RETURNING id, name"
    )
    before = dump(shop)
    done = do(shop, statement)
    assert counts(done.changes) == {"customers": (1, 1, 0)}
    assert done.rows.columns == ("id", "name")
    assert done.rows.rows == [[1, "Z"], [8, "H"]]
    undo(shop, done.images)
    assert dump(shop) == before


def test_a_trigger_that_empties_another_table_is_counted(shop: str) -> None:
    run(shop, "CREATE TRIGGER boom AFTER INSERT ON log BEGIN DELETE FROM orders; END")
    found = plan(shop, "INSERT INTO log(what) VALUES ('hello')")
    assert counts(found.changes) == {"log": (1, 0, 0), "orders": (0, 0, 3)}
    assert {"log", "orders"} >= {sample.table for sample in found.sample}


def test_nested_triggers_are_counted_to_the_last(shop: str) -> None:
    run(
        shop,
        """
        CREATE TABLE a(x); CREATE TABLE b(x); CREATE TABLE c(x); INSERT INTO c VALUES (1), (2);
        CREATE TRIGGER ta AFTER INSERT ON a BEGIN INSERT INTO b VALUES (new.x); END;
        CREATE TRIGGER tb AFTER INSERT ON b BEGIN UPDATE c SET x = new.x; DELETE FROM orders; END;
        CREATE TRIGGER tc AFTER DELETE ON orders BEGIN INSERT INTO log(what) VALUES (old.id); END;
    """,
    )
    before = dump(shop)
    done = do(shop, "INSERT INTO a VALUES (7)")
    assert counts(done.changes) == {
        "a": (1, 0, 0), "b": (1, 0, 0), "c": (0, 2, 0), "orders": (0, 0, 3), "log": (3, 0, 0),
    }  # fmt: skip
    undo(shop, done.images)
    assert dump(shop) == before


def test_a_delete_on_a_view_says_which_table_it_empties(shop: str) -> None:
    run(shop, "CREATE VIEW v AS SELECT id FROM log;"
              "CREATE TRIGGER iv INSTEAD OF DELETE ON v BEGIN DELETE FROM orders; END;"
              "INSERT INTO log(what) VALUES ('x')")  # fmt: skip
    found = plan(shop, "DELETE FROM v")
    assert counts(found.changes) == {"orders": (0, 0, 3)}
    assert "log" in found.reads


def test_a_write_behind_a_cte_is_a_write(shop: str) -> None:
    found = plan(
        shop, "WITH x AS (SELECT 1 AS id) DELETE FROM orders WHERE id IN (SELECT id FROM x)"
    )
    assert found.kind == "write"
    assert counts(found.changes) == {"orders": (0, 0, 1)}


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT"])
def test_rows_that_a_foreign_key_rewrites_are_counted(tmp_path: Path, action: str) -> None:
    path = str(tmp_path / "x.db")
    run(
        path,
        f"""CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES (0), (1), (2);
        CREATE TABLE c(x INT DEFAULT 0 REFERENCES p ON DELETE {action} ON UPDATE CASCADE);
        INSERT INTO c VALUES (1), (1), (2);""",
    )
    before = dump(path)
    for statement, wanted in (
        ("DELETE FROM p WHERE id = 1", {"p": (0, 0, 1), "c": (0, 2, 0)}),
        ("UPDATE p SET id = 10 WHERE id = 1", {"p": (0, 1, 0), "c": (0, 2, 0)}),
    ):
        done = do(path, statement)
        assert counts(done.changes) == wanted
        undo(path, done.images)
        assert dump(path) == before


@pytest.mark.parametrize("when", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_broken_foreign_key_fails_in_the_plan_and_not_only_at_the_commit(
    tmp_path: Path, when: str
) -> None:
    path = str(tmp_path / "x.db")
    run(path, f"CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(x REFERENCES p {when});"
              "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);")  # fmt: skip
    before = dump(path)
    for statement in ("INSERT INTO c VALUES (5)", "DELETE FROM p"):
        with pytest.raises(errors.CallInvalid, match="FOREIGN KEY"):
            plan(path, statement)
        with pytest.raises(errors.CallInvalid, match="FOREIGN KEY"):
            execute(path, statement, "")
    assert dump(path) == before


def test_the_plan_shows_the_human_up_to_five_rows_a_table(shop: str) -> None:
    run(shop, "UPDATE customers SET name = replace(hex(zeroblob(200)), '00', 'ab') WHERE id = 3")
    found = plan(shop, "UPDATE customers SET email = id || '@y', name = name")
    first, last = found.sample[0], found.sample[-1]
    assert (first.table, first.op) == ("customers", "UPDATE")
    assert first.row == {"id": 1, "name": "Ada", "email": "a@x"}
    assert first.changed == {"email": "1@y"}
    assert last.row["name"].endswith("(400 characters)")
    assert len(plan(shop, "INSERT INTO log(what) SELECT a.id FROM orders a, orders b").sample) == 5


def test_an_explain_runs_nothing(shop: str) -> None:
    before = dump(shop)
    assert plan(shop, "EXPLAIN SELECT * FROM orders").kind == "read"
    assert query(shop, "EXPLAIN QUERY PLAN SELECT * FROM orders").rows
    assert plan(shop, "EXPLAIN DELETE FROM orders").changes == ()
    assert dump(shop) == before
