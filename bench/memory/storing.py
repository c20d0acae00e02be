"""What the store takes to remember: records a second until they are on disk, bytes a record, and
how long it is from opening 100,000 records to the first answer.

Beside it: the row and an FTS5 row of it in one transaction, in raw SQLite (WAL, FULL), which knows
no journal, no proof, no key a scope and no vector.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apsw

from bench.memory import kept
from bench.memory.scale import SHARES, texts
from bench.rows import Row, row, spread
from ring0.store.sqlite.opening import JOURNAL
from ring0.types import Owner

RECORDS = 100_000
SINGLY = 10_000
WAITING = 256
FLOOR = "raw SQLite, row and FTS5 row"
OWNER: Owner = ("acme", "ann", "clerk")
_BARE, _WORDS, _VECTORS = "itself and its event", "with words", "with words and vector"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rows(count: int = RECORDS) -> list[Row]:
    """Half a minute. On a disk: /tmp may be memory."""
    made = texts(count, 1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("RING0_BENCH_DIR")) as folder:
        place = Path(folder)
        told = asyncio.run(_rates(place / "rates", made))
        told += _raw(place, made)
        told += asyncio.run(_disk(place / "many", made))
        return told + _cold(place / "many", count)


async def _rates(folder: Path, made: list[str]) -> list[Row]:
    """A record an event, as runs remember; then a thousand an event, as imports do."""
    store = kept.opened(folder)
    singly = made[:SINGLY]
    alone = [await _appended(store, number, singly) for number in range(min(200, len(singly)))]
    waiting = iter(range(len(alone), len(singly)))
    took: list[float] = []

    async def caller() -> None:
        for number in waiting:
            took.append(await _appended(store, number, singly))

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(WAITING)))
    rate = len(took) / (time.perf_counter() - begun)
    begun, cpu = time.perf_counter(), time.process_time()
    await kept.fill(store, OWNER, made, "m-import")
    all_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    await store.close()
    count = len(made)
    return [
        *spread("a record to the disk, one after the other", alone, FLOOR, SHARES),
        row(f"records to the disk, {WAITING} wait at once", rate, "records/s", len(took), FLOOR),
        *spread(f"a record to the disk, {WAITING} wait at once", took, "", SHARES),
        row("records to the disk, 1,000 an event", count / all_s, "records/s", count, FLOOR),
        row("a record of 1,000, all threads' CPU", cpu_s / count * 1e6, "µs", count),
    ]


async def _appended(store: Any, number: int, made: list[str]) -> float:
    begun = time.perf_counter()
    await store.append(await kept.written(store, OWNER, [made[number]], f"m-{number}"))
    return time.perf_counter() - begun


def _raw(folder: Path, made: list[str]) -> list[Row]:
    path = folder / "raw.db"
    connection = apsw.Connection(str(path))
    for said in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE record (number INTEGER PRIMARY KEY, scope TEXT, text TEXT)",
        "CREATE VIRTUAL TABLE t USING fts5 (text, tokenize = 'porter unicode61', content = '')",
    ):
        connection.execute(said).fetchall()
    alone = []
    for text in made[: min(200, len(made))]:
        begun = time.perf_counter()
        _insert(connection, [text])
        alone.append(time.perf_counter() - begun)
    grouped = {}
    for size in (WAITING, kept.AT_ONCE):
        begun, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(made), size):
            _insert(connection, made[start : start + size])
        grouped[size] = (time.perf_counter() - begun, time.process_time() - cpu)
    held = connection.last_insert_rowid()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    count = len(made)
    return [
        *spread(f"{FLOOR}, one a transaction", alone, "", SHARES),
        *(
            row(f"{FLOOR}, {size:,} a transaction", count / took_s, "records/s", count)
            for size, (took_s, _) in grouped.items()
        ),
        row(f"{FLOOR}, CPU", grouped[kept.AT_ONCE][1] / count * 1e6, "µs", count),
        row(f"{FLOOR}: disk a record", path.stat().st_size / held, "bytes", held),
    ]


def _insert(connection: apsw.Connection, made: list[str]) -> None:
    with connection:
        for text in made:
            connection.execute("INSERT INTO record (scope, text) VALUES ('one', ?)", (text,))
            number = connection.last_insert_rowid()
            connection.execute("INSERT INTO t (rowid, text) VALUES (?, ?)", (number, text))


async def _disk(folder: Path, made: list[str]) -> list[Row]:
    """The journal when it is closed: its WAL is in the file."""
    told = []
    for name in (_BARE, _WORDS, _VECTORS):
        store = kept.opened(folder)
        if name == _BARE:
            await kept.fill(store, OWNER, made, "m-many")
        else:
            await kept.index_all(store, vectors=name == _VECTORS)
        await store.close()
        size_bytes = (folder / JOURNAL).stat().st_size
        beside = FLOOR if name == _WORDS else ""
        each = size_bytes / len(made)
        told.append(row(f"disk a record, {name}", each, "bytes", len(made), beside))
    told.append(row("disk a record, of which text", sum(map(len, made)) / len(made), "bytes", 1))
    return told


def _cold(folder: Path, count: int) -> list[Row]:
    """In a process of its own: nothing is there yet."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory.storing", str(folder)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        timeout=300,
    )
    told = json.loads(done.stdout)
    name = f"{count:,} records in a store"
    return [
        row(f"{name}: opened", told["opened_s"], "s", 1),
        row(f"{name}: first recall after that", told["first_s"], "s", 1),
        row(f"{name}: the second", told["second_s"] * 1_000, "ms", 1),
        row(f"{name}: memory of the process, more", told["more_bytes"] / 1e6, "MB", 1),
    ]


async def _first(folder: Path) -> dict[str, float]:
    before = _resident_bytes()
    begun = time.perf_counter()
    store = kept.opened(folder)
    opened_s = time.perf_counter() - begun
    memory = kept.memory_over(store)
    took = []
    for query in texts(2, 6):
        begun = time.perf_counter()
        found = await memory.recall(kept.scope_of(OWNER), query, k=10)
        took.append(time.perf_counter() - begun)
        assert len(found) == 10
    more = _resident_bytes() - before
    await store.close()
    return {
        "opened_s": opened_s,
        "first_s": took[0],
        "second_s": took[1],
        "more_bytes": float(more),
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_first(Path(sys.argv[1])))))
