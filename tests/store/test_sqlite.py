"""The embedded store: the suite of all stores, and what only its one writer can get wrong."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import apsw
import pytest
from conformance import Place, StoreConformance

import journals
import stories
from journals import queued, row_of
from ring0.errors import StoreFailed, StoreFull
from ring0.store import base
from ring0.store.sqlite import JOURNAL, SqliteStore, committing, open_store
from ring0.store.sqlite.writer import WriterThread
from ring0.types import RunState
from simulated import Simulated


class SqlitePlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = Simulated()

    async def open(self) -> SqliteStore:
        return open_store(self.folder, self.runtime, write=True)


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path)


class TestSqliteStore(StoreConformance):
    """All of it."""

    def test_it_is_a_place(self, place: Place) -> None:
        assert place.runtime.now_us() > 0


def connection_of(store: SqliteStore) -> apsw.Connection:
    """The connection that writes."""
    assert isinstance(store._writer, WriterThread)
    return store._writer._committer._db


async def test_the_connection_that_writes_waits_for_the_disk(place: SqlitePlace) -> None:
    store = await place.open()
    asked = ("journal_mode", "synchronous", "trusted_schema", "wal_autocheckpoint")
    found = [connection_of(store).pragma(name) for name in asked]
    assert found == ["wal", 2, 0, 2_000]
    await store.close()


async def test_a_closed_journal_is_one_file_with_its_head_and_its_reserve(
    place: SqlitePlace,
) -> None:
    store = await place.open()
    await stories.tell(store)
    await store.close()
    assert sorted(os.listdir(place.folder)) == ["journal.db", "journal.head", "journal.reserve"]


async def test_a_flush_of_nothing_writes_nothing(place: SqlitePlace) -> None:
    store = await place.open()
    await store.append(queued("r-1"))
    log = place.folder / (JOURNAL + "-wal")
    size = log.stat().st_size
    await asyncio.gather(*(store.flush() for _ in range(50)))
    with pytest.raises(Exception, match="RunLive"):
        await store.append(journals.intended("r-1", 0, guards=[base.RunLive(run="r-1", epoch=9)]))
    await store.flush()
    assert log.stat().st_size == size
    await store.close()


async def test_a_commit_that_fails_acknowledges_nothing_durable_and_ends_the_writer(
    place: SqlitePlace,
) -> None:
    store = await place.open()
    await store.append(queued("r-1"))
    await store.append(journals.moved("r-1", epoch=1))
    await store.flush()
    connection_of(store).set_commit_hook(lambda: True)  # Every COMMIT fails from here on.
    told = await asyncio.gather(
        store.append(journals.intended("r-1", 0)),
        store.append(journals.intended("r-1", 1, durable=True)),
        store.flush(),
        return_exceptions=True,
    )
    assert isinstance(told[1], StoreFailed) and isinstance(told[2], StoreFailed)
    for _ in range(3):
        with pytest.raises(StoreFailed):
            await store.append(journals.intended("r-1", 2))
    await store.close()
    again = await place.open()
    assert (await row_of(again, "r-1")).events == 2
    assert await again.calls("r-1") == []
    await again.close()


async def test_a_riding_write_that_a_failing_commit_takes_along_is_followed_by_refusals(
    place: SqlitePlace,
) -> None:
    store = await place.open()
    await store.append(queued("r-1"))
    await store.append(journals.moved("r-1", epoch=1))
    await store.flush()
    connection_of(store).set_commit_hook(lambda: True)
    assert await store.append(journals.intended("r-1", 0)) == 3  # Told before the disk was asked.
    with pytest.raises(StoreFailed):
        await store.flush()
    assert await store.call("r-1/0/0") is None
    await store.close()


async def test_a_head_file_that_can_not_be_written_loses_no_acknowledged_write(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = await place.open()
    monkeypatch.setattr(committing, "write_head", full)
    assert await store.append(queued("r-1")) == 1
    with pytest.raises(StoreFull):
        await store.append(queued("r-2"))
    await store.close()
    monkeypatch.undo()
    again = await place.open()
    assert [run.id for run in await again.runs()] == ["r-1"]
    await again.append(queued("r-2"))
    await again.close()


async def test_a_fault_in_the_writer_itself_leaves_nobody_waiting(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("a fault of ours")

    store = await place.open()
    monkeypatch.setattr(committing.Committer, "group", broken)
    for _ in range(2):
        with pytest.raises(StoreFailed):
            await asyncio.wait_for(store.append(queued("r-1")), 5)
    await asyncio.wait_for(store.close(), 5)


async def test_every_append_is_answered_while_the_disk_fails(place: SqlitePlace) -> None:
    store = await place.open()
    for number in range(8):
        await store.append(queued(f"r-{number}"))
        await store.append(journals.moved(f"r-{number}", epoch=1))
    commits = 0

    def fails_later() -> bool:
        nonlocal commits
        commits += 1
        return commits > 5

    connection_of(store).set_commit_hook(fails_later)

    async def live(run: str) -> int:
        for number in range(10_000):
            try:
                await store.append(journals.intended(run, number, durable=True))
            except StoreFailed:
                return number
        return -1

    told = await asyncio.wait_for(asyncio.gather(*(live(f"r-{n}") for n in range(8))), 30)
    await store.close()
    again = await place.open()
    for number, acknowledged in enumerate(told):
        assert acknowledged >= 0
        assert len(await again.calls(f"r-{number}")) == acknowledged
    await again.close()


async def test_several_loops_write_through_one_writer(place: SqlitePlace) -> None:
    store = await place.open()
    answers: dict[str, list[int]] = {}

    async def live(run: str) -> None:
        await store.append(queued(run))
        await store.append(journals.moved(run, epoch=1))
        wanted = asyncio.gather(
            *(store.append(journals.intended(run, n, durable=n % 3 == 0)) for n in range(200))
        )
        answers[run] = await asyncio.wait_for(wanted, 20)

    threads = [
        threading.Thread(target=lambda run=f"r-{n}": asyncio.run(live(run))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.01)
    assert answers == {f"r-{n}": list(range(3, 203)) for n in range(4)}
    await store.close()


async def test_a_loop_that_was_closed_with_writes_on_their_way_harms_nobody(
    place: SqlitePlace,
) -> None:
    store = await place.open()

    async def leave() -> None:
        for number in range(50):
            task = asyncio.ensure_future(store.append(queued(f"r-left-{number}")))
            await asyncio.sleep(0)
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(leave()))
    thread.start()
    told = await asyncio.gather(*(store.append(queued(f"r-{n}")) for n in range(50)))
    assert told == [1] * 50
    thread.join()
    await store.flush()
    assert len(await store.runs()) == 100
    await store.close()


async def test_two_stores_read_while_one_writes(place: SqlitePlace) -> None:
    store = await place.open()
    await store.append(queued("r-1"))
    reader = open_store(place.folder, place.runtime, write=False)
    assert (await row_of(reader, "r-1")).state is RunState.QUEUED
    await store.append(journals.moved("r-1", epoch=1))
    await store.flush()
    assert (await row_of(reader, "r-1")).state is RunState.RUNNING
    await reader.close()
    await store.close()
