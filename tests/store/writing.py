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
from ring0.store.sqlite import open_store
from ring0.types import RunState


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
        await journals.tell(store, f"r-{number}", f"r-{number}-child")
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
    """Writes until the disk is full; then runs `grow`, opens again and looks."""
    store = open_store(folder, Runtime(), write=True)
    acknowledged = []
    try:
        for number in range(100_000):
            await store.append(journals.queued(f"r-{number}", task="x" * 3_000))
            acknowledged.append(f"r-{number}")
    except StoreFull as full:
        assert full.todo and full.why
    else:
        raise AssertionError("the disk was never full")
    for write in (journals.queued("r-late"), journals.moved("r-0", epoch=1)):
        try:
            await store.append(write)
            raise AssertionError("something was accepted after the disk was full")
        except StoreFull:
            pass
    assert await store.run("r-late") is None
    await store.close()
    try:
        store = open_store(folder, Runtime(), write=True)
        await store.append(journals.queued("r-still-full", task="x" * 300_000))
        raise AssertionError("a full disk took a write")
    except StoreFull:
        await store.close()
    assert os.system(grow) == 0
    store = open_store(folder, Runtime(), write=True)
    there = {run.id for run in await store.runs(most=1_000_000)}
    assert there >= set(acknowledged), "an acknowledged write is lost"
    assert len(there) <= len(acknowledged) + 2
    await store.append(journals.queued("r-after"))
    report = await verify(store)
    assert report.ok, report.problems
    await store.close()
    print(f"{len(acknowledged)} acknowledged, all there")


if __name__ == "__main__":
    asyncio.run(fill_the_disk(Path(sys.argv[1]), sys.argv[2]))
