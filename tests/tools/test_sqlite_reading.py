"""A query only reads, limits hold, and a file that can't serve is said to be so."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from sqlite_world import MOMENT, SHOP, after, do, dump, execute, plan, query, run, undo

from ring0 import errors, limits
from ring0.tools.sql.sqlite import engine

FILE_SIZE_BYTES_MAX = 64 * limits.MIB


@pytest.fixture(autouse=True)
def small_files() -> Iterator[None]:
    """Some of these statements have no end: where nothing of ours stops them, Linux does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE_BYTES_MAX, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")
    run(path, SHOP)
    return path


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orders",
        "INSERT INTO log(what) VALUES (1) RETURNING id",
        "UPDATE orders SET total = 0",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "EXPLAIN DELETE FROM orders",
        "REPLACE INTO log(id) VALUES (1)",
    ],
)
def test_a_query_never_writes(shop: str, statement: str) -> None:
    before = dump(shop)
    with pytest.raises(errors.CallDenied):
        query(shop, statement)
    assert dump(shop) == before


def test_a_query_gives_values_that_json_can_hold(shop: str) -> None:
    found = query(
        shop, "SELECT 9007199254740993 AS big, x'00ff' AS b, 1e999 AS inf, NULL, 'a\u00e9'"
    )
    assert found.columns[:3] == ("big", "b", "inf")
    assert found.rows == [[9007199254740993, {"base64": "AP8="}, None, None, "a\u00e9"]]
    assert query(shop, "SELECT id FROM orders WHERE 0").columns == ("id",)


def test_a_query_is_cut_at_the_row_limit_and_says_so(shop: str) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT {}) SELECT i FROM n"
    exact = query(shop, many.format(limits.SQL_ROWS_RETURNED_MAX))
    assert (len(exact.rows), exact.truncated) == (limits.SQL_ROWS_RETURNED_MAX, False)
    more = query(shop, many.format(limits.SQL_ROWS_RETURNED_MAX + 1))
    assert (len(more.rows), more.truncated) == (limits.SQL_ROWS_RETURNED_MAX, True)
    wide = query(shop, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 9) "
                       "SELECT zeroblob(400000) FROM n")  # fmt: skip
    assert wide.truncated
    assert len(wide.rows) == 2


def test_parameters_are_bound_and_never_text(shop: str) -> None:
    evil = "'; DROP TABLE customers; --"
    assert query(shop, "SELECT ?, :b", [evil, {"base64": "AP8="}]).rows == [
        [evil, {"base64": "AP8="}]
    ]
    assert query(shop, "SELECT :a, @b, $c", {"a": True, "b": 2**62, "c": None}).rows == [
        [1, 2**62, None]
    ]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("SELECT ?", []),
        ("SELECT ?", [1, 2]),
        ("SELECT 1", [1]),
        ("SELECT :a", {}),
        ("SELECT :a", {"a": 1, "b": 2}),
        ("SELECT ?", {"a": 1}),
        ("SELECT ?", [2**63]),
        ("SELECT ?", [[1]]),
        ("SELECT ?", [{"base64": "!"}]),
        ("SELECT ?", ["\ud800"]),
        ("SELECT ?; -- x", [1, 2]),
    ],
)
def test_parameters_that_do_not_fit_are_refused(shop: str, statement: str, parameters: Any) -> None:
    with pytest.raises(errors.CallInvalid):
        plan(shop, statement, parameters)
    with pytest.raises(errors.CallInvalid):
        query(shop, statement, parameters)


# --- limits -----------------------------------------------------------------------------------


def test_a_statement_that_never_ends_is_ended(shop: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) "
    before = dump(shop)
    with pytest.raises(errors.LimitReached, match="longer than"):
        engine.query(shop, endless + "SELECT count(*) FROM n", (), is_over=after(50))
    with pytest.raises(errors.LimitReached, match="longer than"):
        engine.plan(shop, endless + "DELETE FROM log WHERE id IN (SELECT max(i) FROM n)", (),
                    moment=MOMENT, is_over=after(50))  # fmt: skip
    assert dump(shop) == before


def test_more_rows_than_the_limit_are_refused_and_nothing_is_done(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SQL_ROWS_CHANGED_MAX", 4)
    before = dump(shop)
    for door in (lambda: plan(shop, "DELETE FROM customers"),
                 lambda: execute(shop, "DELETE FROM customers", "")):  # fmt: skip
        with pytest.raises(errors.LimitReached, match="more than 4 rows"):
            door()
    assert dump(shop) == before
    assert plan(shop, "DELETE FROM orders").kind == "write"


def test_an_insert_without_end_stops_at_the_row_limit(shop: str) -> None:
    with pytest.raises(errors.LimitReached, match="more than 100000 rows"):
        plan(shop, "INSERT INTO log(what) WITH RECURSIVE n(i) AS "
                   "(SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n")  # fmt: skip


def test_more_rows_than_can_be_kept_are_not_reversible_and_the_plan_says_so(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SQL_ROWS_REVERSIBLE_MAX", 4)
    found = plan(shop, "DELETE FROM customers")
    assert not found.reversible
    assert "more than 4 rows" in found.why_irreversible
    assert found.images == b""
    done = execute(shop, "DELETE FROM customers", found.digest)
    assert done.images == b""
    with pytest.raises(errors.UndoRefused):
        undo(shop, done.images)


def test_row_images_are_bounded_in_bytes(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOB_SIZE_BYTES_MAX", 100)
    assert "bytes" in plan(shop, "DELETE FROM customers").why_irreversible


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT zeroblob(1000000000)",
        "SELECT hex(zeroblob(1000000))",
        "SELECT length(printf('%.*c', 500000000, 'x'))",
        "INSERT INTO log(what) VALUES (zeroblob(1000000000))",
        "INSERT INTO log(what) VALUES (randomblob(1000000000))",
    ],
)
def test_a_value_too_large_is_refused(shop: str, statement: str) -> None:
    with pytest.raises((errors.LimitReached, errors.CallInvalid)):
        plan(shop, statement) if statement.startswith("INSERT") else query(shop, statement)


def test_a_trigger_that_calls_itself_for_ever_is_refused(shop: str) -> None:
    run(shop, "CREATE TABLE r(x); CREATE TRIGGER t AFTER INSERT ON r "
              "BEGIN INSERT INTO r VALUES (new.x + 1); END")  # fmt: skip
    with pytest.raises(errors.CallInvalid, match="too deep"):
        plan(shop, "INSERT INTO r VALUES (1)")
    assert query(shop, "SELECT * FROM r").rows == []


# --- the file ---------------------------------------------------------------------------------


def test_a_missing_file_is_said_to_be_missing_and_is_not_made(tmp_path: Path) -> None:
    for name in ("none.db", "", ":memory:", "file::memory:?cache=shared", "a\0b", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        path = str(tmp_path / name) if name not in ("", ":memory:") else name
        for door in (lambda p=path: plan(p, "SELECT 1"), lambda p=path: query(p, "SELECT 1"),
                     lambda p=path: undo(p, b"")):  # fmt: skip
            with pytest.raises(errors.NotFound):
                door()
    assert sorted(os.listdir(tmp_path)) == ["folder"]


def test_a_file_that_is_no_database_is_said_so_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"this is a letter, not a database" * 100)
    for door in (lambda: query(str(path), "SELECT * FROM t"),
                 lambda: plan(str(path), "DELETE FROM t")):  # fmt: skip
        with pytest.raises(errors.ToolFailed, match="not a SQLite database"):
            door()
    assert path.read_bytes() == b"this is a letter, not a database" * 100


def test_a_locked_database_is_said_to_be_locked(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.tools.sql.sqlite.connection.BUSY_TIMEOUT_MS", 20)
    other = apsw.Connection(shop)
    other.execute("BEGIN EXCLUSIVE")
    for door in (lambda: plan(shop, "DELETE FROM log"), lambda: query(shop, "SELECT * FROM log")):
        with pytest.raises(errors.ToolFailed, match="locked"):
            door()
    other.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any file")
def test_a_read_only_file_can_be_read_and_not_written(shop: str) -> None:
    os.chmod(shop, stat.S_IRUSR)
    assert plan(shop, "SELECT * FROM log").kind == "read"
    with pytest.raises(errors.ToolFailed, match="only be read"):
        plan(shop, "DELETE FROM log")


def test_a_database_in_wal_mode_works_alike(shop: str) -> None:
    run(shop, "PRAGMA journal_mode=WAL")
    reader = apsw.Connection(shop)
    reader.execute("BEGIN; SELECT * FROM customers")
    before = dump(shop)
    done = do(shop, "DELETE FROM customers")
    undo(shop, done.images)
    assert dump(shop) == before
    reader.close()


def test_a_transaction_that_another_program_left_half_done_is_rolled_back(
    shop: str, tmp_path: Path
) -> None:
    before = dump(shop)
    db = apsw.Connection(shop)
    db.execute("PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN")
    db.execute("UPDATE customers SET name = 'half'")
    db.execute("INSERT INTO log(what) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n"
               " LIMIT 5000) SELECT hex(zeroblob(50)) FROM n")  # fmt: skip
    crashed = str(tmp_path / "crashed.db")
    shutil.copy(shop, crashed)
    shutil.copy(shop + "-journal", crashed + "-journal")
    db.close()
    assert query(crashed, "SELECT name FROM customers").rows == [["Ada"], ["Bob"], ["Cyd"]]
    assert dump(crashed) == before


def test_errors_of_the_engine_are_bounded_and_on_one_line(shop: str) -> None:
    with pytest.raises(errors.CallInvalid) as caught:
        plan(shop, 'SELECT * FROM "' + "\x1b[31m\n" * 500 + '"')
    assert len(caught.value.why) <= 300
    assert "\x1b" not in caught.value.why
    assert "\n" not in caught.value.why


def test_text_that_is_not_utf8_is_refused_and_not_mangled(shop: str) -> None:
    run(shop, "INSERT INTO log(what) VALUES (CAST(x'ff61' AS TEXT))")
    with pytest.raises(errors.CallDenied, match="UTF-8"):
        plan(shop, "DELETE FROM log")
    with pytest.raises(errors.ToolFailed, match="UTF-8"):
        query(shop, "SELECT what FROM log")
    assert query(shop, "SELECT hex(what) FROM log").rows == [["FF61"]]
