"""What is forgotten is out of the file: out of its tables, its WAL, the room between its cells."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

import journals
from journal_memory import fact, forgotten, note, of_operator, of_run
from journals import SCOPE
from ring0 import limits
from ring0.errors import StoreFailed
from ring0.observability import verify
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.rows import Indexed
from ring0.store.sqlite import JOURNAL, SqliteStore, open_store
from ring0.store.sqlite.scrubbing import scrub, stale_of
from ring0.store.terms import terms_of
from ring0.types import MemoryKind, NewRecord
from simulated import Simulated

MODEL = "minilm 0a1b"
_NAME = re.compile(rb"doc\d{4}xyzzy")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = open_store(tmp_path, Simulated(), write=True)
    yield opened
    await opened.close()


def residue(folder: Path, *words: bytes) -> set[bytes]:
    """Which of these are anywhere in the journal's files."""
    files = [path for path in folder.iterdir() if path.name.startswith(JOURNAL)]
    held = b"\n".join(path.read_bytes() for path in files)
    if all(_NAME.fullmatch(word) for word in words):  # Many: looked for all at once.
        return set(_NAME.findall(held)) & set(words)
    return {word for word in words if word in held}


def said(name: str, size: int) -> str:
    """Words that nobody else has, as many as that."""
    return " ".join(f"{name}w{number}" for number in range(size))


async def indexed(store: SqliteStore) -> dict[str, bytes]:
    """Writes terms and vectors of all there is; the vectors by what they are of."""
    vectors = {}
    while todo := await store.unindexed(MODEL, 500):
        rows = []
        for one in todo:
            terms, vector = terms_of(one.text), random.Random(one.id).randbytes(388)
            vectors[one.id] = vector
            rows.append(Indexed(one.number, terms.packed, terms.length, vector))
        await store.index(MODEL, rows)
    return vectors


async def test_no_byte_of_what_is_forgotten_is_in_the_file_and_neighbours_stay(
    store: SqliteStore, tmp_path: Path
) -> None:
    dice = random.Random(7)
    scope_key = await store.scope_key(SCOPE.owner)
    await store.append(journals.queued("r-1", remember=False))
    await store.append(journals.moved("r-1", epoch=1))
    for number in range(60):
        name = f"person{number:03d}"
        new = (
            note(said(name, dice.choice((3, 40, 900, 2_000)))[:32_000], key=f"key of {name}"),
            fact(f"{name}-city", subject=f"{name}-subject", session=f"{name}-session"),
            NewRecord(
                kind=MemoryKind.PASSAGE,
                text=f"{name}-passage",
                label=journals.UNTRUSTED,
                document=f"{name}-document",
                place=f"{name}-place",
                role=f"{name}-role",
            ),
        )
        order = of_run("r-1", new, scope_key=scope_key)
        if number % 3 == 0:
            order = of_operator(f"m-{number}", new, scope_key=scope_key)
        await store.append(order)
        if number % 20 == 0:
            await store.flush()
            await indexed(store)
    await store.flush()
    vectors = await indexed(store)
    everything = await store.records(SCOPE, states=(), most=1_000)
    gone, kept = list[str](), list[str]()
    for one in everything:
        number = int((one.subject or one.document or one.text)[6:9])
        (gone if dice.random() < 0.5 else kept).append(f"person{number:03d}")
    names = set(gone)
    ids = [one.id for one in everything if (one.subject or one.document or one.text)[:9] in names]
    left = [one for one in everything if one.id not in ids]
    for first in range(0, len(ids), 7):  # In many small groups: trees are balanced again and again.
        await store.append(forgotten(*ids[first : first + 7]))
    await store.wiped()
    words = [
        f"{name}{ending}".encode()
        for name in names
        for ending in ("w0 ", "w1", "-city", "-subject", "-session", "-passage")
    ]
    words += [f"{name}-{what}".encode() for name in names for what in ("document", "place", "role")]
    words += [f"key of {name}".encode() for name in names]
    words += [vectors[one] for one in ids if one in vectors]
    words += [terms_of(said(name, 3)).packed[:8] for name in names]
    assert residue(tmp_path, *words) == set()
    assert len(left) > 10 and await store.records(SCOPE, states=(), most=1_000) == left
    assert all(one.text in residue_of_texts(tmp_path, one.text) for one in left[:20])
    report = await verify(store)
    assert report.ok, report.problems


def residue_of_texts(folder: Path, text: str) -> set[str]:
    """A short text lies whole in the file: so what is searched for could be found."""
    probe = text[:100]
    return {text} if residue(folder, probe.encode()) else set()


async def test_an_erased_run_leaves_no_byte_of_what_it_said(
    store: SqliteStore, tmp_path: Path
) -> None:
    queued = journals.queued("r-1", task="the secret task")
    await store.append(queued)
    await store.append(journals.moved("r-1", epoch=1))
    await store.append(journals.intended("r-1", 0))
    await store.append(journals.ended("r-1", 0, remember=said("secret", 1_500)))
    over = journals.over("r-1", epoch=2)
    await store.append(over)
    await store.flush()
    row = await store.run("r-1")
    assert row is not None and residue(tmp_path, b"the secret task", b"secretw77") != set()
    event = ev.ValuesErased(values=1, records=tuple(store.remembered("r-1")), by="ann")
    await store.append(Write(run="r-1", events=[event], erased=[*queued.blobs, *over.blobs]))
    await store.wiped()
    assert residue(tmp_path, b"the secret task", b"secretw77", b"what it printed") == set()
    assert residue(tmp_path, journals.key_of("r-1")) == set()


async def half_forgotten(store: SqliteStore) -> list[bytes]:
    """Many records of different lengths, of which every other one is gone: names of those."""
    scope_key = await store.scope_key(SCOPE.owner)
    dice = random.Random(11)
    names = [f"doc{number:04d}xyzzy" for number in range(3_000)]
    dice.shuffle(names)
    for first in range(0, len(names), 6):
        new = tuple(
            NewRecord(
                kind=MemoryKind.PASSAGE,
                text="x" * dice.randint(1, 900),
                label=journals.USER,
                document=name * dice.randint(1, 9),
            )
            for name in names[first : first + 6]
        )
        await store.append(of_operator(f"m-{first}", new, scope_key=scope_key))
    await store.flush()
    loaded = await store.load_scope(SCOPE.owner, "")
    everything = [(one.id, name) for one, name in zip(loaded, names, strict=True)]
    gone = [one for one in everything if dice.random() < 0.5]
    dice.shuffle(gone)
    for first in range(0, len(gone), 5):
        await store.append(forgotten(*(one for one, _ in gone[first : first + 5])))
    await store.flush()
    return [name.encode() for _, name in gone]


async def test_cells_that_were_moved_leave_nothing_behind(
    store: SqliteStore, tmp_path: Path
) -> None:
    """SQLite leaves copies where it balances a tree, and they may come back with their page."""
    names = await half_forgotten(store)
    await store._emptied()
    assert residue(tmp_path, *names), "SQLite leaves nothing: then scrubbing.py is for nothing"
    await store.wiped()
    assert residue(tmp_path, *names) == set()
    scope_key = await store.scope_key(SCOPE.owner)
    new = tuple(note("later", session=f"s{number}") for number in range(400))
    await store.append(of_operator("m-later", new, scope_key=scope_key))
    left = await store.records(SCOPE, most=1_000)
    for one in left[::9]:  # Pages that are written again come from the file, not from memory.
        await store.append(forgotten(one.id))
    await store._emptied()
    assert residue(tmp_path, *names) == set()
    report = await verify(store)
    assert report.ok, report.problems


async def test_who_reads_the_journal_as_it_was_is_waited_for_and_named(
    store: SqliteStore, tmp_path: Path
) -> None:
    scope_key = await store.scope_key(SCOPE.owner)
    await store.append(of_operator("m-1", (note("the secret"),), scope_key=scope_key))
    reader = apsw.Connection(str(tmp_path / JOURNAL), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN; SELECT count(*) FROM record").fetchall()
    (one,) = await store.records(SCOPE)
    await store.append(forgotten(one.id))
    with pytest.raises(StoreFailed, match="not out of the file yet"):
        await store.wiped()
    await store.append(of_operator("m-2", (note("others go on"),), scope_key=scope_key))
    reader.close()
    await store.wiped()
    assert residue(tmp_path, b"the secret") == set()
    assert residue(tmp_path, b"others go on") == {b"others go on"}


async def test_all_of_a_file_is_looked_at_however_long_it_is(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WIPED_PAGES_AT_ONCE", 50)
    names = await half_forgotten(store)
    await store.wiped()
    assert residue(tmp_path, *names) == set()


def test_a_damaged_page_is_left_as_it_is() -> None:
    dice = random.Random(5)
    for _ in range(20_000):
        page = bytearray(dice.randbytes(512))
        page[0] = dice.choice((0x02, 0x05, 0x0A, 0x0D, 0x00, 0xFF))
        if dice.random() < 0.5:
            page[1:8] = bytes((0, dice.randrange(256), 0, dice.randrange(8), 1, 200, 0))
        for first, last in stale_of(bytes(page), 0):
            assert 8 <= first < last <= len(page)


def test_what_is_looked_for_is_where_sqlite_says(tmp_path: Path) -> None:
    """Only rooms that mean nothing are written over: the database is the same before and after."""
    path, dice = tmp_path / "any.db", random.Random(9)
    db = apsw.Connection(str(path))
    db.execute("PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB)")
    for _ in range(3_000):
        key, size = f"{dice.randrange(900)}", dice.choice((5, 90, 700, 9_000))
        db.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, dice.randbytes(size)))
        if dice.random() < 0.3:
            db.execute("DELETE FROM t WHERE k = ?", (f"{dice.randrange(900)}",))
    before = db.execute("SELECT k, v FROM t ORDER BY k").fetchall()
    pages = db.pragma("page_count")
    assert scrub(db, 1, pages + 1) > 0 and scrub(db, 1, pages + 1) == 0
    db.release_memory()
    assert db.execute("SELECT k, v FROM t ORDER BY k").fetchall() == before
    assert db.pragma("integrity_check") == "ok"
    db.close()
