"""`audit verify` finds and names every change of a journal; and what it can't find is written down.

The forger here is careful: triggers that forbid a change are put back after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import random
import shutil
from pathlib import Path

import apsw
import pytest

import journal_memory
import journals
from ring0.errors import StoreDamaged
from ring0.observability import Report, verify
from ring0.store import Write, merkle
from ring0.store import events as ev
from ring0.store.rows import Indexed
from ring0.store.sqlite import HEAD, JOURNAL, open_store
from ring0.store.terms import terms_of
from ring0.types import RunState, Scope
from simulated import Simulated
from stories import tell

FORBIDDING = ("event_is_kept", "event_stays")
TABLES = (
    *("run", "call", "approval", "file", "sandbox", "kill", "record"),
    *("lock", "message", "cap", "tenant"),
    *("current", "keyed", "child", "recalled", "window"),
)


async def written(folder: Path, *, note: str = "", stories: int = 2) -> None:
    store = open_store(folder, Simulated(), write=True)
    for number in range(stories):
        await tell(store, f"r-{number}", f"r-{number}-child")
    other = Scope(tenant="other", principal="bob", agent="cook", run=None)
    await store.append(journals.queued("r-9", scope=other, task="cook the ledger"))
    await store.append(
        Write(run="r-9", events=[ev.RunMoved(state=RunState.RUNNING, epoch=1, note=note)])
    )
    await store.append(journals.sandboxed("r-9", "s-9"))
    await store.flush()
    todo = await store.unindexed("minilm", 100)
    terms = [terms_of(one.text) for one in todo]
    rows = [
        Indexed(one.number, of.packed, of.length, b"v") for one, of in zip(todo, terms, strict=True)
    ]
    await store.index("minilm", rows)
    await store.close()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    asyncio.run(written(folder))
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    """A copy to forge."""
    for name in (JOURNAL, HEAD):
        shutil.copy(honest / name, tmp_path / name)
    return tmp_path


def verified(folder: Path) -> Report:
    async def look() -> Report:
        store = open_store(folder, Simulated(), write=False)
        try:
            return await verify(store)
        finally:
            await store.close()

    return asyncio.run(look())


def forge(folder: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    connection = apsw.Connection(str(folder / JOURNAL))
    triggers = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name IN (?, ?)", FORBIDDING
    ).fetchall()
    for name in FORBIDDING:
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    for statement in statements:
        connection.execute(statement, values if "?" in statement else None).fetchall()
        assert connection.changes() or not statement.startswith(("UPDATE", "DELETE")), statement
    for (text,) in triggers:
        if "DROP TABLE event" not in statements:
            connection.execute(str(text))
    connection.close()


def found(folder: Path, words: str) -> Report:
    report = verified(folder)
    assert not report.ok
    assert any(words in problem for problem in report.problems), report.problems
    return report


# --- honest -----------------------------------------------------------------------------------


def test_an_honest_journal_verifies(honest: Path) -> None:
    report = verified(honest)
    assert report.ok and report.problems == (), report.problems
    assert report.events == report.anchored > 60
    assert report.blobs > 20 and report.unnamed == 0 and report.rows > 30
    assert report.root in (honest / HEAD).read_text()


def test_an_empty_journal_verifies(tmp_path: Path) -> None:
    asyncio.run(open_store(tmp_path, Simulated(), write=True).close())
    report = verified(tmp_path)
    assert report.ok and report.events == 0 and report.root == merkle.EMPTY_ROOT.hex()


async def test_a_journal_verifies_while_it_is_written(tmp_path: Path) -> None:
    """All is read from one moment: what a kernel writes meanwhile is no contradiction."""
    store = open_store(tmp_path, Simulated(), write=True)
    await store.append(journals.queued("r-1"))
    await store.append(journals.moved("r-1", epoch=1))
    writing = True

    async def write() -> None:
        number = 0
        while writing:
            await store.append(journals.intended("r-1", number))
            await store.append(journals.ended("r-1", number, remember=f"number {number}"))
            number += 1

    task = asyncio.ensure_future(write())
    sizes = set()
    for _ in range(25):
        await asyncio.sleep(0.004)
        # In a thread: so that the writes go on while it looks.
        report = await asyncio.to_thread(verified, tmp_path)
        assert report.ok, report.problems
        sizes.add(report.events)
    assert len(sizes) > 5
    writing = False
    await task
    await store.close()


async def test_a_journal_of_hostile_names_verifies(tmp_path: Path) -> None:
    store = open_store(tmp_path, Simulated(), write=True)
    for text in ("a\x00b", "'; --", "\u202e\x1b[31m", "🦀" * 50, "new\nline"):
        run = f"r-{text}"
        await store.append(
            journals.queued(
                run, task=text, scope=Scope(tenant=text, principal=text, agent=text, run=None)
            )
        )
        await store.append(journals.moved(run, epoch=1, why=text))
        await store.append(journals.intended(run, 0))
        await store.append(
            journals.ended(run, 0, remember=text, files=[(text.replace("\n", ""), b"x")])
        )
    await store.flush()
    report = await verify(store)
    assert report.ok, report.problems
    await store.close()


def test_values_that_nothing_names_are_counted_and_not_judged(folder: Path) -> None:
    forge(folder, "INSERT INTO blob VALUES ('aa', 0, x'00')")
    report = verified(folder)
    assert report.ok and report.unnamed == 1


def test_it_makes_one_digest_a_value_however_many_runs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write() -> None:
        store = open_store(tmp_path, Simulated(), write=True)
        await asyncio.gather(*(store.append(journals.queued(f"r-{n}")) for n in range(150)))
        await store.close()

    asyncio.run(write())
    made = 0
    module = importlib.import_module("ring0.observability.verify")  # Its name is a function's too.
    address = module.address

    def counted(key: bytes, value: bytes) -> str:
        nonlocal made
        made += 1
        return str(address(key, value))

    monkeypatch.setattr(module, "address", counted)
    monkeypatch.setattr("ring0.store.records.address", counted)
    report = verified(tmp_path)
    assert report.ok and made == report.blobs == 450


# --- the log ----------------------------------------------------------------------------------


def rehashed(folder: Path, index: int, before: bytes, after: bytes) -> None:
    """Changes an event's bytes and its leaf hash with it."""
    connection = apsw.Connection(str(folder / JOURNAL))
    body: bytes
    ((body,),) = connection.execute(  # type: ignore[assignment]
        "SELECT body FROM event WHERE idx = ?", (index,)
    ).fetchall()
    connection.close()
    assert before in body
    changed = body.replace(before, after)
    leaf = hashlib.sha256(b"\x00" + changed).digest()
    forge(
        folder,
        f"UPDATE event SET body = ?, leaf = ? WHERE idx = {index}",
        values=(changed, leaf),
    )


def test_an_edited_event_is_named(folder: Path) -> None:
    forge(
        folder,
        "UPDATE event SET body = CAST(replace(CAST(body AS TEXT), 'r-0', 'r-8') AS BLOB)"
        " WHERE idx = 12",
    )
    found(folder, "event 12 (r-0 #10): its bytes are not those that were hashed")


def test_an_event_that_was_edited_and_hashed_again_is_found_by_the_root(folder: Path) -> None:
    rehashed(folder, 4, b'"pid":42', b'"pid":43')
    report = found(folder, "the tree says")
    assert any("not those of the head file" in problem for problem in report.problems)
    assert any("table sandbox" in problem for problem in report.problems)


def test_an_edited_leaf_is_named(folder: Path) -> None:
    forge(folder, "UPDATE event SET leaf = zeroblob(32) WHERE idx = 5")
    found(folder, "event 5 (kernel #3): its bytes are not those that were hashed")


@pytest.mark.parametrize(("one", "other"), [(5, 6), (2, 40)])
def test_two_events_that_changed_places_are_found(folder: Path, one: int, other: int) -> None:
    forge(
        folder,
        f"UPDATE event SET idx = -1 WHERE idx = {one}",
        f"UPDATE event SET idx = {one} WHERE idx = {other}",
        f"UPDATE event SET idx = {other} WHERE idx = -1",
    )
    found(folder, "the tree says")
    found(folder, f"event {one}")


def test_an_event_that_is_gone_from_the_middle_is_named(folder: Path) -> None:
    forge(folder, "DELETE FROM event WHERE idx = 20")
    found(folder, "event 20: missing (the next is 21)")


def test_an_event_that_is_gone_is_found_though_the_others_moved_up(folder: Path) -> None:
    forge(
        folder,
        "DELETE FROM event WHERE idx = 20",
        "UPDATE event SET idx = idx - 1 WHERE idx > 20",
    )
    found(folder, "follows #")


def test_a_journal_without_its_end_is_found(folder: Path) -> None:
    forge(folder, "DELETE FROM event WHERE idx >= (SELECT max(idx) - 4 FROM event)")
    found(folder, "was cut short")


def test_a_journal_that_is_an_older_whole_copy_is_found_by_the_head_file(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    older = tmp_path_factory.mktemp("older")
    asyncio.run(written(older, stories=1))
    shutil.copy(older / JOURNAL, folder / JOURNAL)
    report = verified(folder)
    assert len(report.problems) == 1 and "was cut short" in report.problems[0]


def test_an_event_that_was_added_is_found(folder: Path) -> None:
    entry = ev.Entry(run="r-9", seq=4, at_us=1, body=ev.RunMoved(state=RunState.RUNNING))
    body = ev.encode_entry(entry)
    forge(
        folder,
        "INSERT INTO event SELECT max(idx) + 1, 'r-9', 4, ?, ? FROM event",
        values=(merkle.leaf_hash(body), body),
    )
    found(folder, "the tree says")


def test_an_event_that_was_added_in_the_middle_is_found(folder: Path) -> None:
    entry = ev.Entry(run="r-9", seq=4, at_us=1, body=ev.RunMoved(state=RunState.RUNNING))
    body = ev.encode_entry(entry)
    forge(folder, "UPDATE event SET idx = -idx WHERE idx > 30")
    forge(folder, "UPDATE event SET idx = -idx + 1 WHERE idx < 0")
    forge(
        folder,
        "INSERT INTO event VALUES (31, 'r-9', 4, ?, ?)",
        values=(merkle.leaf_hash(body), body),
    )
    found(folder, "event 31")


def test_a_repeated_event_is_named(folder: Path) -> None:
    forge(
        folder,
        "INSERT INTO event SELECT (SELECT max(idx) + 1 FROM event), run, 4, leaf, body FROM event"
        " WHERE run = 'r-9' AND seq = 3",
    )
    found(folder, "it calls itself r-9 #3, not r-9 #4")


def test_an_event_in_another_name_is_named(folder: Path) -> None:
    forge(folder, "UPDATE event SET run = 'r-8' WHERE idx = 9")
    found(folder, "event 9")


def test_bytes_that_are_no_event_are_named(folder: Path) -> None:
    for body in (b"", b"{", b'{"run":"r-0"}', b"[" * 100_000):
        forge(folder, "UPDATE event SET body = ? WHERE idx = 6", values=(body,))
        found(folder, "event 6 (r-0 #4): it can't have happened")


# --- the tree and the head file ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE tree SET peaks = zeroblob(length(peaks))", "the tree says"),
        ("UPDATE tree SET peaks = x'00'", "the tree: 1 bytes of peaks"),
        ("UPDATE tree SET size = size - 1", "the tree"),
        ("UPDATE tree SET size = -1", "the tree"),
        ("UPDATE tree SET kernel_seq = kernel_seq + 1", "the tree says that the kernel is at"),
        ("DELETE FROM tree", "the tree's row is gone"),
    ],
)
def test_an_edited_tree_is_found(folder: Path, statement: str, words: str) -> None:
    forge(folder, statement)
    found(folder, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no head file"),
        (b"", "no head file"),
        (b"\xff" * 99, "no head file"),
        (b"ring0-head-v1 %020d %s\n" % (9_999, b"a" * 64), "was cut short"),
        (b"ring0-head-v1 %020d %s\n" % (7, b"a" * 64), "the first 7 events are not those"),
        (b"ring0-head-v1 %020d %s\n" % (0, b"a" * 64), "the head file says nothing"),
    ],
)
def test_an_edited_head_file_is_found(folder: Path, content: bytes | None, words: str) -> None:
    if content is None:
        (folder / HEAD).unlink()
    else:
        (folder / HEAD).write_bytes(content)
    found(folder, words)


# --- projections ------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_an_edited_row_is_named(folder: Path, table: str) -> None:
    edited = "CAST(replace(CAST(row AS TEXT), 'r-0', 'r-8') AS BLOB)"
    if table in ("file", "kill", "sandbox", "lock", "tenant"):
        edited = "CAST(replace(CAST(row AS TEXT), ':\"', ':\"x') AS BLOB)"
    forge(folder, f"UPDATE {table} SET row = {edited} WHERE key = (SELECT min(key) FROM {table})")
    found(folder, f"table {table}: the row")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("row", ["x''", "x'7b'", "CAST('[]' AS BLOB)", "zeroblob(9000)"])
def test_a_row_that_can_not_be_read_is_named(folder: Path, table: str, row: str) -> None:
    forge(folder, f"UPDATE {table} SET row = {row} WHERE key = (SELECT max(key) FROM {table})")
    found(folder, f"table {table}: the row")


@pytest.mark.parametrize("table", TABLES)
def test_a_row_that_is_gone_is_named(folder: Path, table: str) -> None:
    forge(folder, f"DELETE FROM {table} WHERE key = (SELECT min(key) FROM {table})")
    report = found(folder, f"table {table}: the row")
    assert any("is missing" in problem for problem in report.problems)


@pytest.mark.parametrize("table", TABLES)
def test_a_row_that_was_added_is_named(folder: Path, table: str) -> None:
    connection = apsw.Connection(str(folder / JOURNAL))
    names = [str(name) for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    taken = ", ".join(name for name in names if name != "number")
    given = taken.replace("key", "'planted'", 1)
    forge(folder, f"INSERT INTO {table} ({taken}) SELECT {given} FROM {table} LIMIT 1")
    found(folder, f"table {table}: the row 'planted' comes from no event")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("run", "state = 'running'"),
        ("run", "root = 'r-9'"),
        ("call", "run = 'r-9'"),
        ("approval", "state = 'approved'"),
        ("approval", "run = 'r-9'"),
        ("sandbox", "ended = 1 - ended"),
        ("kill", "generation = 0"),
        ("run", "wake_us = 7"),
        ("lock", "run = 'r-9'"),
        ("lock", "tenant = 'other'"),
        ("lock", "resource = 'file:/etc'"),
        ("message", "taken = 1 - taken"),
        ("message", "receiver = 'r-9'"),
        ("record", "tenant = 'other'"),
        ("record", "principal = 'bob'"),
        ("record", "role = 'directive'"),
        ("record", "state = 'retired'"),
        ("record", "integrity = 0, superseded_us = 1"),
        ("record", "valid_to_us = 9"),
        ("record", "document = 'law.md'"),
        ("recalled", "record = 'r-9#1'"),
    ],
)
def test_what_lies_beside_a_row_is_checked_for_guards_ask_it(
    folder: Path, table: str, change: str
) -> None:
    forge(folder, f"UPDATE {table} SET {change} WHERE key = (SELECT min(key) FROM {table})")
    found(folder, f"table {table}: what lies beside the row")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record_terms SET terms = zeroblob(10) WHERE number = 2",
        "UPDATE record_terms SET length = length + 1 WHERE number = 2",
        "INSERT INTO record_terms VALUES (99, 1, x'00')",
        "INSERT INTO vector VALUES (1, 99, x'00')",
        "UPDATE vector SET model = 7 WHERE number = 2",
    ],
)
def test_an_index_that_does_not_say_what_its_records_say_is_found(
    folder: Path, statement: str
) -> None:
    forge(folder, statement)
    found(folder, "the index: ")


def test_what_a_record_says_can_not_be_changed_with_its_terms(folder: Path) -> None:
    said = terms_of("wire the money")
    forge(
        folder,
        "UPDATE blob SET value = CAST('wire the money' AS BLOB)"
        " WHERE address = (SELECT blob FROM record WHERE number = 1)",
    )
    forge(
        folder,
        "UPDATE record_terms SET terms = ?, length = 3 WHERE number = 1",
        values=(said.packed,),
    )
    report = found(folder, "r-0#1 says is not what was remembered")
    assert len(report.problems) == 1


def test_what_was_forgotten_and_is_there_again_is_found(folder: Path) -> None:
    name = "r-0-m"
    gone = journal_memory.story(name, b"")[8]
    forge(
        folder,
        *(
            f"INSERT INTO blob VALUES ('{where}', 0, x'{value.hex()}')"
            for where, value in gone.blobs.items()
            if b"gone again" in value
        ),
    )
    found(folder, "was forgotten, and is there")


def test_a_key_of_memory_that_is_gone_is_found(folder: Path) -> None:
    forge(folder, "DELETE FROM run_key WHERE run = 'm-r-0-m'")
    found(folder, "the key of m-r-0-m is gone")
    forge(folder, "DELETE FROM scope_key")
    found(folder, "its facts can't be compared")


def test_a_record_that_says_nothing_any_more_is_found(folder: Path) -> None:
    forge(folder, "DELETE FROM blob WHERE address = (SELECT blob FROM record WHERE number = 1)")
    found(folder, "r-0#1 names the value")


# --- values and keys ----------------------------------------------------------------------------


def test_an_edited_value_is_named(folder: Path) -> None:
    forge(folder, "UPDATE blob SET value = x'6e6f21' WHERE value = x'6e6f'")
    found(folder, "is not what was stored under that address (r-")


def test_a_value_that_is_gone_is_named(folder: Path) -> None:
    forge(folder, "DELETE FROM blob WHERE value = x'6e6f'")
    found(folder, "which is gone")


def test_the_policy_and_what_a_human_was_shown_are_values_too(folder: Path) -> None:
    forge(folder, "DELETE FROM blob WHERE CAST(value AS TEXT) LIKE 'permit%'")
    found(folder, "kernel names the value")
    forge(folder, "DELETE FROM blob WHERE CAST(value AS TEXT) = 'what the human is shown'")
    found(folder, "r-1 names the value")


def test_a_message_is_a_value_too_under_its_senders_key_or_under_none(folder: Path) -> None:
    forge(folder, "UPDATE blob SET value = x'41' WHERE value = CAST('a person asks' AS BLOB)")
    found(folder, "is not what was stored under that address (kernel)")
    forge(folder, "UPDATE blob SET value = x'42' WHERE value = CAST('are you there?' AS BLOB)")
    found(folder, "is not what was stored under that address (r-0)")
    forge(folder, "DELETE FROM blob WHERE value = x'42'")
    found(folder, "r-0 names the value")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM run_key WHERE run = 'r-0'", "the key of run r-0 is gone"),
        ("UPDATE run_key SET key = zeroblob(32) WHERE run = 'r-0'", "under that address (r-0)"),
        ("INSERT INTO run_key VALUES ('r-7', zeroblob(32))", "a key stands for 'r-7'"),
    ],
)
def test_an_edited_key_is_named(folder: Path, statement: str, words: str) -> None:
    forge(folder, statement)
    found(folder, words)


# --- the file and its schema ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "CREATE TRIGGER yes AFTER INSERT ON approval BEGIN"
            " UPDATE approval SET state = 'approved'; END",
            "the schema: trigger 'yes' is not what ring0 made",
        ),
        ("CREATE TABLE notes (text TEXT)", "the schema: table 'notes'"),
        ("DROP INDEX call_by_run", "the schema: index 'call_by_run' is missing"),
        ("ALTER TABLE run ADD COLUMN planted TEXT", "the schema: table 'run'"),
    ],
)
def test_a_changed_schema_is_named(folder: Path, statement: str, words: str) -> None:
    forge(folder, statement)
    found(folder, words)


def test_a_missing_trigger_is_named(folder: Path) -> None:
    connection = apsw.Connection(str(folder / JOURNAL))
    connection.execute("DROP TRIGGER event_is_kept")
    connection.close()
    found(folder, "the schema: trigger 'event_is_kept' is missing")


def test_a_missing_table_is_an_answer_and_no_traceback(folder: Path) -> None:
    for table in ("event", "blob", "run_key", "call", "record_terms", "tree"):
        forge(folder, f"DROP TABLE {table}")
        found(folder, "the schema: table")
        found(folder, f"no such table: {table}")


def test_text_that_is_no_text_is_an_answer_and_no_traceback(folder: Path) -> None:
    for table, column in (("event", "run"), ("call", "key"), ("blob", "address")):
        forge(folder, f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT)"
                      f" WHERE {column} = (SELECT max({column}) FROM {table})")  # fmt: skip
        found(folder, "the journal can't be read to its end")


def test_damaged_pages_are_an_answer_and_no_traceback(folder: Path, honest: Path) -> None:
    dice = random.Random(7)
    content = (honest / JOURNAL).read_bytes()
    for _ in range(25):
        page = dice.randrange(1, len(content) // 4_096)
        damaged = bytearray(content)
        damaged[page * 4_096 : page * 4_096 + 512] = dice.randbytes(512)
        (folder / JOURNAL).write_bytes(damaged)
        try:
            report = verified(folder)
            assert not report.ok and report.problems
        except StoreDamaged as error:  # A page of the schema: it can't even be opened.
            assert error.why and error.todo


# --- at random ------------------------------------------------------------------------------------


def test_a_change_of_any_stored_field_is_found(folder: Path, honest: Path) -> None:
    """One field of one row of one table, at random: bytes turned, numbers moved, texts changed."""
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    for _ in range(120):
        shutil.copy(honest / JOURNAL, folder / JOURNAL)
        connection = apsw.Connection(str(folder / JOURNAL))
        table = dice.choice([*TABLES, "event", "blob", "run_key", "tree"])
        columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
        column = dice.choice([name for name in columns if name != "one"])
        rows = connection.execute(f"SELECT {columns[0]}, {column} FROM {table}").fetchall()
        name, value = dice.choice(rows)
        connection.close()
        changed = _changed(value, dice)
        forge(
            folder,
            f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {columns[0]} = ?",
            values=(changed, name),
        )
        report = verified(folder)
        where = f"{table}.{column} of {name!r}: {value!r} to {changed!r} (seed {seed})"
        assert not report.ok, where


def _changed(value: object, dice: random.Random) -> object:
    if isinstance(value, int):
        return value + dice.choice([-1, 1, 1_000])
    if isinstance(value, str):
        return value + dice.choice(["x", "\x00", " "])
    assert isinstance(value, bytes)
    if not value:
        return b"x"
    at = dice.randrange(len(value))
    return value[:at] + bytes([value[at] ^ (1 << dice.randrange(8))]) + value[at + 1 :]


# --- the limit ------------------------------------------------------------------------------------


def test_the_limit_journal_and_head_file_rewritten_together_are_not_found(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever owns the machine can do this; a checkpoint kept elsewhere would show it."""
    before = verified(folder)
    rewritten = tmp_path_factory.mktemp("rewritten")
    asyncio.run(written(rewritten, note="nothing happened here"))
    for name in (JOURNAL, HEAD):
        shutil.copy(rewritten / name, folder / name)
    after = verified(folder)
    assert after.ok and after.events == before.events
    assert after.root != before.root, "an anchor elsewhere would tell"


def test_many_problems_are_counted_and_the_first_are_named(folder: Path) -> None:
    forge(folder, "UPDATE event SET leaf = zeroblob(32)")
    report = verified(folder)
    assert 9 <= len(report.problems) <= 30
    assert report.problems[0].startswith("event 0 (kernel #1)")
    assert report.problems[8] == f"and {report.events - 8} more of this kind"
