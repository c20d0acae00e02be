"""Processes that write to a journal, and are killed or run out of disk."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import apsw

import journals
from ring0.errors import StoreFull
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite import RESERVE, SqliteStore, open_store
from ring0.types import RunState
from stories import tell


def forked(body: Callable[[], None]) -> BaseProcess:
    """A process that begins as a copy of this one: no start-up, so that a kill meets the work."""
    process = multiprocessing.get_context("fork").Process(target=body, daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


async def _story_and_die(folder: Path, stories: int) -> None:
    store = open_store(folder, Runtime(), write=True)
    for number in range(stories):
        await tell(store, f"r-{number}", f"r-{number}-child")
    os.kill(os.getpid(), signal.SIGKILL)


def crashed(folder: Path, stories: int = 3) -> None:
    """Leaves a journal as a kill -9 does: with a WAL."""
    process = forked(lambda: asyncio.run(_story_and_die(folder, stories)))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (folder / "journal.db-wal").stat().st_size > 0


def die_in_the_middle_of_the_first_page(folder: Path) -> None:
    """Leaves what a kill leaves before there is a WAL: a rollback journal that must be applied."""

    def body() -> None:
        connection = apsw.Connection(str(folder / "journal.db"))
        connection.execute("PRAGMA cache_size = 1").fetchall()
        connection.execute("BEGIN; CREATE TABLE half (made BLOB)").fetchall()
        for _ in range(50):  # More than the cache holds: some of it goes to the file.
            connection.execute("INSERT INTO half VALUES (randomblob(20000))")
        os.kill(os.getpid(), signal.SIGKILL)

    forked(body).join()
    assert (folder / "journal.db").stat().st_size > 0
    assert (folder / "journal.db-journal").stat().st_size > 0


async def write_for_ever(folder: Path, run: str, told: int) -> None:
    """Numbered writes, many on their way at once, every third durable; what is acknowledged on disk
    is told to the pipe as a line."""
    os.write(told, b"ready\n")
    store = open_store(folder, Runtime(), write=True)
    await store.append(journals.queued(run))
    await store.append(journals.moved(run, epoch=1))
    waits: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        event = ev.RunMoved(state=RunState.RUNNING, note=str(number))
        durable = number % 3 == 0
        seq = await store.append(Write(run=run, events=[event], durable=durable))
        if durable:
            os.write(told, f"{seq} {number}\n".encode())

    number = 0
    while True:
        while len(waits) < 40:
            waits.add(asyncio.ensure_future(one(number)))
            number += 1
        _, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


async def fill_the_disk(folder: Path, grow: str) -> None:
    """Writes until the disk is full, kills and ends; then runs `grow`, opens again and looks."""
    store = open_store(folder, Runtime(), write=True)
    acknowledged = await fill(store)
    assert not (folder / RESERVE).exists(), "the reserve is held back from what needs it"
    for write in (journals.queued("r-late"), journals.moved("r-0", epoch=1)):
        await refused(store, write)
    await essential(store, 0)
    assert await store.run("r-late") is None
    await store.close()
    store = open_store(folder, Runtime(), write=True)
    # The WAL is in the file now, which made some room.
    acknowledged += await fill(store, "s")
    await refused(store, journals.queued("r-late"))
    assert await store.kill_generation() == 1
    await essential(store, 1)
    await store.close()
    assert os.system(grow) == 0
    store = open_store(folder, Runtime(), write=True)
    assert (folder / RESERVE).exists(), "there is room for it again"
    assert await store.kill_generation() == 2
    runs = {run.id: run for run in await store.runs(most=1_000_000)}
    assert runs.keys() >= set(acknowledged), "an acknowledged write is lost"
    assert len(runs) <= len(acknowledged) + 2
    assert [runs[run].state for run in ("r-0", "r-1")] == [RunState.CANCELLED] * 2
    await store.append(journals.queued("r-after"))
    report = await verify(store)
    assert report.ok, report.problems
    await store.close()
    print(f"{len(acknowledged)} acknowledged, all there")


async def fill(store: SqliteStore, names: str = "r") -> list[str]:
    """What was acknowledged before the disk was full."""
    acknowledged = []
    for number in range(100_000):
        try:
            await store.append(journals.queued(f"{names}-{number}", task="x" * 3_000))
        except StoreFull as full:
            assert full.todo and full.why
            return acknowledged
        acknowledged.append(f"{names}-{number}")
    raise AssertionError("the disk was never full")


async def refused(store: SqliteStore, write: Write) -> None:
    try:
        await store.append(write)
    except StoreFull:
        return
    raise AssertionError("something was accepted after the disk was full")


async def essential(store: SqliteStore, number: int) -> None:
    """What stops and ends something is taken."""
    run = f"r-{number}"
    await store.append(journals.killed("run", run, number + 1))
    await store.append(journals.over(run, state=RunState.CANCELLED))


if __name__ == "__main__":
    asyncio.run(fill_the_disk(Path(sys.argv[1]), sys.argv[2]))
