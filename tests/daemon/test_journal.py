"""A worker's journal that can't be written: who is to open it anew, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ring0 import limits
from ring0.daemon.journal import Journal
from ring0.errors import KernelBusy, StoreFailed
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store.sqlite import RESERVE, open_store


class World:
    """A real journal, and a disk that says how much room it has."""

    def __init__(self, home: Path, store: Store) -> None:
        self.home = home
        self.store = store
        self.room_bytes = 0
        self.said: list[str] = []

    def journal(self) -> Journal:
        return Journal(
            self.home, self.store, Runtime(), self.said.append, lambda _: self.room_bytes
        )


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_LOOK_S", 0.01)


async def test_after_a_full_disk_another_worker_takes_over_once_there_is_room(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    w = World(tmp_path, store)
    try:
        looking = asyncio.ensure_future(w.journal().until_opened_anew())
        await asyncio.sleep(0.1)
        assert not looking.done() and not w.said  # It has its reserve.
        (tmp_path / RESERVE).unlink()
        await asyncio.sleep(0.1)
        assert not looking.done() and len(w.said) == 1  # Said once, and nothing to be done yet.
        w.room_bytes = limits.JOURNAL_ROOM_SIZE_BYTES_MIN
        await asyncio.wait_for(looking, 5)
        assert "room again" in w.said[-1]
    finally:
        await store.close()


async def test_a_journal_that_gave_up_ends_its_worker(tmp_path: Path) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    await store.close()  # From here on it refuses all, as one does whose disk broke.
    with pytest.raises(StoreFailed):
        await asyncio.wait_for(World(tmp_path, store).journal().until_opened_anew(), 5)


async def test_a_journal_that_is_crowded_for_a_moment_keeps_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    real, asked = store.flush, 0

    async def crowded_now_and_then() -> None:
        nonlocal asked
        asked += 1
        if asked % limits.JOURNAL_FAILURES_MAX:
            raise StoreFailed("too many writes wait", todo="Run less.")
        await real()

    monkeypatch.setattr(store, "flush", crowded_now_and_then)
    looking = asyncio.ensure_future(World(tmp_path, store).journal().until_opened_anew())
    await asyncio.sleep(0.3)
    assert not looking.done() and asked > 6
    looking.cancel()
    await store.close()


async def test_a_journal_has_one_writer_also_where_a_person_deleted_the_kernels_lock(
    tmp_path: Path,
) -> None:
    first = open_store(tmp_path, Runtime(), write=True)
    with pytest.raises(KernelBusy):
        open_store(tmp_path, Runtime(), write=True)
    await first.close()
    await open_store(tmp_path, Runtime(), write=True).close()
