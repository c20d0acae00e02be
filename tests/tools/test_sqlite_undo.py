"""What was planned is what is executed, and it is taken back exactly or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import apsw
import pytest
from sqlite_world import (
    MOMENT,
    SHOP,
    counts,
    do,
    dump,
    execute,
    never,
    plan,
    query,
    run,
    state,
    undo,
)

from ring0 import errors
from ring0.tools.sql.sqlite import engine
from ring0.tools.sql.sqlite.engine import Moment


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")
    run(path, SHOP)
    return path


# --- approval and execution ---------------------------------------------------------------------


def test_what_changed_between_plan_and_execution_is_not_executed(shop: str) -> None:
    statement = "DELETE FROM customers WHERE name LIKE 'A%'"
    for meddling in (
        "INSERT INTO orders(customer, total) VALUES (1, 99)",
        "UPDATE orders SET total = 11 WHERE id = 1",
        "UPDATE customers SET name = 'Abe' WHERE id = 2",
        "UPDATE orders SET customer = 2 WHERE id = 2",
        "UPDATE customers SET email = 'A@x' WHERE id = 1",
    ):
        found = plan(shop, statement)
        run(shop, meddling)
        before = dump(shop)
        with pytest.raises(errors.CallDenied, match="not those that were approved"):
            execute(shop, statement, found.digest)
        assert dump(shop) == before


def test_a_change_elsewhere_does_not_stop_the_execution(shop: str) -> None:
    found = plan(shop, "DELETE FROM customers WHERE id = 1")
    run(shop, "UPDATE customers SET name = 'Bobby' WHERE id = 2; CREATE TABLE new_one(x)")
    assert execute(shop, "DELETE FROM customers WHERE id = 1", found.digest).digest == found.digest


def test_a_trigger_made_since_the_plan_is_seen_in_the_execution(shop: str) -> None:
    found = plan(shop, "DELETE FROM customers WHERE id = 1")
    run(shop, "CREATE TRIGGER t AFTER DELETE ON customers BEGIN DELETE FROM log; "
              "INSERT INTO log(what) VALUES ('x'); END")  # fmt: skip
    with pytest.raises(errors.CallDenied):
        execute(shop, "DELETE FROM customers WHERE id = 1", found.digest)
    assert query(shop, "SELECT count(*) FROM customers").rows == [[3]]


def test_the_clock_and_the_dice_are_the_same_in_the_rehearsal_and_the_execution(
    shop: str,
) -> None:
    run(shop, "CREATE TABLE t(id TEXT DEFAULT (hex(randomblob(8))), r DEFAULT (random()),"
              "at DEFAULT CURRENT_TIMESTAMP, d DEFAULT (unixepoch('now')), k)")  # fmt: skip
    done = do(shop, "INSERT INTO t(k) VALUES (1), (date('now', '+1 day')) RETURNING *")
    (one, two) = done.rows.rows
    assert one[2] == "2023-11-14 22:13:20"
    assert one[3] == 1_700_000_000
    assert two[4] == "2023-11-15"
    assert one[0] != two[0]
    other = Moment(now_us=MOMENT.now_us, seed=b"other")
    found = engine.plan(shop, "INSERT INTO t DEFAULT VALUES", (), moment=other, is_over=never)
    assert found.digest != plan(shop, "INSERT INTO t DEFAULT VALUES").digest


def test_an_index_on_a_date_stays_usable_with_the_still_clock(shop: str) -> None:
    run(
        shop,
        "CREATE TABLE t(at, d GENERATED ALWAYS AS (date(at)) STORED, x);"
        "CREATE INDEX i ON t(date(at)); CREATE INDEX j ON t(lower(x)) WHERE x > 'a'",
    )
    done = do(shop, "INSERT INTO t(at, x) VALUES ('2020-02-03 04:05', 'q') RETURNING d")
    assert done.rows.rows == [["2020-02-03"]]
    undo(shop, done.images)
    db = apsw.Connection(shop)
    assert db.execute("PRAGMA integrity_check").get == "ok"


def test_reconciling_tells_whether_the_effect_is_there(shop: str) -> None:
    statement = "DELETE FROM customers WHERE id = 1"
    found = plan(shop, statement)
    assert state(shop, found.images) == "not_done"
    execute(shop, statement, found.digest)
    assert state(shop, found.images) == "done"
    run(shop, "INSERT INTO customers VALUES (1, 'Ada', 'a@x')")
    assert state(shop, found.images) == "mixed"


# --- undo -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meddling",
    [
        "UPDATE customers SET name = 'other' WHERE id = 1",
        "UPDATE customers SET name = 'X' WHERE id = 1",  # only the case differs
        "DELETE FROM customers WHERE id = 1",
        "INSERT INTO customers VALUES (2, 'new Bob', 'n@x')",
        "INSERT INTO customers VALUES (9, 'thief of the address', 'b@x')",
    ],
)
def test_undo_refuses_where_a_row_has_changed_since(shop: str, meddling: str) -> None:
    one = do(shop, "UPDATE customers SET name = 'x' WHERE id = 1")
    two = do(shop, "DELETE FROM customers WHERE id = 2")
    run(shop, meddling)
    before = dump(shop)
    with pytest.raises(errors.UndoRefused, match="customers"):
        undo(shop, one.images if "id = 1" in meddling else two.images)
    assert dump(shop) == before


def test_undo_refuses_to_leave_a_row_without_its_parent(shop: str) -> None:
    done = do(shop, "INSERT INTO customers VALUES (7, 'G', 'g@x')")
    run(shop, "INSERT INTO orders(customer, total) VALUES (7, 1)")
    before = dump(shop)
    with pytest.raises(errors.UndoRefused, match="orders"):
        undo(shop, done.images)
    assert dump(shop) == before


def test_undo_accepts_references_that_were_broken_before(shop: str) -> None:
    db = apsw.Connection(shop)
    db.execute("PRAGMA foreign_keys=OFF; INSERT INTO orders(customer) VALUES (999)")
    db.close()
    done = do(shop, "DELETE FROM customers WHERE id = 1")
    before = dump(shop)
    undo(shop, done.images)
    assert dump(shop) != before


def test_undo_destroys_nothing_where_the_schema_replaces_on_conflict(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE);"
              "INSERT INTO t VALUES (1, 'a')")  # fmt: skip
    done = do(path, "DELETE FROM t")
    run(path, "INSERT INTO t VALUES (2, 'a')")
    before = dump(path)
    with pytest.raises(errors.UndoRefused):
        undo(path, done.images)
    assert dump(path) == before


def test_undo_refuses_where_the_table_is_not_what_it_was(shop: str) -> None:
    done = do(shop, "DELETE FROM customers WHERE id = 1")
    run(shop, "ALTER TABLE customers ADD COLUMN extra DEFAULT 5")
    with pytest.raises(errors.UndoRefused, match="not what it was"):
        undo(shop, done.images)
    for nonsense in (b"", b"\x00", b"\xff" * 9, done.images[:-3]):
        with pytest.raises(errors.UndoRefused):
            undo(shop, nonsense)


def test_undo_fires_no_trigger_and_no_foreign_key_action(shop: str) -> None:
    run(shop, "CREATE TRIGGER t1 AFTER INSERT ON customers BEGIN DELETE FROM log; END;"
              "CREATE TRIGGER t2 AFTER DELETE ON customers BEGIN DELETE FROM log; END;"
              "INSERT INTO log(what) VALUES ('kept')")  # fmt: skip
    done = do(shop, "UPDATE customers SET name = 'x' WHERE id = 1")
    undo(shop, done.images)
    assert query(shop, "SELECT what FROM log").rows == [["kept"]]
    assert query(shop, "SELECT count(*) FROM orders").rows == [[3]]


def test_every_value_comes_back_exactly(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    db = apsw.Connection(path)
    db.execute("""CREATE TABLE t(a, b INTEGER, c TEXT COLLATE NOCASE, d REAL, e NUMERIC, f BLOB,
        g GENERATED ALWAYS AS (coalesce(b, 0) + 1) STORED);
        CREATE TABLE w(k TEXT COLLATE NOCASE, n, v, PRIMARY KEY(n, k)) WITHOUT ROWID;
        CREATE TABLE r("rowid", "oid", x);""")
    values = [
        None,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        9007199254740993,
        0.1,
        1e300,
        math.inf,
        -math.inf,
        5e-324,
        -0.0,
        1.0,
        "",
        "a\0b",
        "\U0001f600",
        "1e3",
        "0x10",
        b"",
        b"\0\xff",
        "A",
    ]
    for value in values:
        db.execute("INSERT INTO t(a,b,c,d,e,f) VALUES (?1,?1,?1,?1,?1,?1)", (value,))
        if value is not None:
            db.execute("INSERT OR IGNORE INTO w VALUES (?1, ?1, ?1)", (value,))
            db.execute("INSERT INTO r VALUES (?1, ?1, ?1)", (value,))
    db.close()
    before = dump(path)
    for statement in (
        "DELETE FROM t", "UPDATE t SET a = 1, b = 2, c = 3, d = 4, e = 5, f = 6",
        "UPDATE t SET rowid = rowid + 1000", "DELETE FROM w",
        "UPDATE w SET k = lower(k) WHERE typeof(k) = 'text'",
        "UPDATE w SET v = 'new'", "DELETE FROM r", "UPDATE r SET x = NULL",
        "INSERT INTO t(rowid, a) VALUES (-5, 1)",
    ):  # fmt: skip
        done = do(path, statement)
        assert dump(path) != before
        assert state(path, done.images) == "done"
        undo(path, done.images)
        assert dump(path) == before
        assert state(path, done.images) == "not_done"


def test_rows_that_swap_their_unique_values_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE);"
              "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)")  # fmt: skip
    before = dump(path)
    for statement in (
        "UPDATE t SET id = -id",
        "REPLACE INTO t VALUES (1, 20), (3, 10)",
        "INSERT INTO t VALUES (1, 5) ON CONFLICT DO UPDATE SET id = 4, u = 1",
    ):
        done = do(path, statement)
        assert dump(path) != before
        undo(path, done.images)
        assert dump(path) == before


def test_a_column_added_later_is_restored_with_its_default(shop: str) -> None:
    run(shop, "ALTER TABLE customers ADD COLUMN level INT DEFAULT 3")
    before = dump(shop)
    undo(shop, do(shop, "DELETE FROM customers").images)
    assert dump(shop) == before


def test_an_autoincrement_id_is_not_given_out_again_after_undo(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, x)")
    undo(path, do(path, "INSERT INTO t(x) VALUES (1)").images)
    assert do(path, "INSERT INTO t(x) VALUES (1) RETURNING id").rows.rows == [[2]]
    with pytest.raises(errors.CallDenied):
        execute(path, "UPDATE sqlite_sequence SET seq = 0", "")
    assert plan(path, "DELETE FROM sqlite_sequence").kind == "forbidden"


def test_a_change_in_a_full_text_table_is_counted_and_said_to_be_irreversible(shop: str) -> None:
    run(
        shop,
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('hello sea');"
        "CREATE TRIGGER n AFTER INSERT ON log BEGIN INSERT INTO notes VALUES (new.what); END",
    )
    assert query(shop, "SELECT body FROM notes WHERE notes MATCH 'sea'").rows == [["hello sea"]]
    found = plan(shop, "INSERT INTO log(what) VALUES ('deep')")
    assert found.kind == "write"
    assert not found.reversible
    assert "notes" in found.why_irreversible
    done = execute(shop, "INSERT INTO log(what) VALUES ('deep')", found.digest)
    assert done.images == b""
    assert query(shop, "SELECT body FROM notes('deep')").rows == [["deep"]]
    with pytest.raises((errors.CallInvalid, errors.CallDenied)):
        plan(shop, "DELETE FROM notes_content")


def test_the_schema_can_be_read_by_its_table_valued_functions(shop: str) -> None:
    assert query(shop, "SELECT name FROM pragma_table_info('log')").rows[0] == ["id"]
    for statement in ("SELECT * FROM pragma_database_list", "SELECT * FROM pragma_function_list"):
        with pytest.raises(errors.CallDenied):
            query(shop, statement)


def test_rows_with_virtual_columns_which_the_engine_hides_are_seen_all_the_same(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE hid(a, v GENERATED ALWAYS AS (a * 2) VIRTUAL, b DEFAULT (random()));"
              "CREATE TABLE log(x); CREATE TRIGGER t AFTER UPDATE ON hid "
              "BEGIN INSERT INTO log VALUES (new.v); END;"
              "INSERT INTO hid VALUES (1, 2), (3, 4)")  # fmt: skip
    for statement, wanted in (
        ("DELETE FROM hid", {"hid": (0, 0, 2)}),
        ("UPDATE hid SET a = a + 1", {"hid": (0, 2, 0), "log": (2, 0, 0)}),
        ("UPDATE hid SET rowid = rowid + 1 WHERE a = 3", {"hid": (0, 1, 0), "log": (1, 0, 0)}),
        ("INSERT INTO hid(a) VALUES (5)", {"hid": (1, 0, 0)}),
    ):
        before = dump(path)
        done = do(path, statement)
        assert counts(done.changes) == wanted
        assert dump(path) != before
        undo(path, done.images)
        assert dump(path) == before
    found = plan(path, "UPDATE hid SET a = 9")
    assert found.sample[0].row == {"a": 1, "b": 2}
    run(path, "UPDATE hid SET b = 5 WHERE a = 3")
    with pytest.raises(errors.CallDenied, match="not those that were approved"):
        execute(path, "UPDATE hid SET a = 9", found.digest)


def test_hidden_rows_without_a_rowid_are_refused_and_not_guessed(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE hid(a PRIMARY KEY, v AS (a * 2)) WITHOUT ROWID;"
              "INSERT INTO hid VALUES (1)")  # fmt: skip
    with pytest.raises(errors.CallDenied, match="hid"):
        plan(path, "DELETE FROM hid")


def test_a_row_changed_twice_by_one_statement_comes_back_as_it_first_was(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    run(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 10), (2, 20);"
              "CREATE TRIGGER a AFTER UPDATE ON t WHEN new.n < 13 "
              "BEGIN UPDATE t SET n = n + 1 WHERE id = new.id; END;"
              "CREATE TRIGGER b AFTER INSERT ON t BEGIN DELETE FROM t; END")  # fmt: skip
    before = dump(path)
    for statement, wanted in (("UPDATE t SET n = 11 WHERE id = 1", (0, 3, 0)),
                              ("REPLACE INTO t VALUES (1, 1)", (1, 0, 3))):  # fmt: skip
        done = do(path, statement)
        assert counts(done.changes) == {"t": wanted}
        assert dump(path) != before
        undo(path, done.images)
        assert dump(path) == before
