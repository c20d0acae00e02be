"""A statement that is stopped in the middle has settled: done and on record, or nothing done."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kernel_world
import postgres_world
import pytest
import sqlite_world
from database_world import asked, postgres_tool, sqlite_tool
from postgres_world import PASSWORD, Shop, World

from ring0 import errors, limits
from ring0.runtime import Runtime
from ring0.tools.sql.postgres import engine as postgres_engine
from ring0.tools.sql.watch import Watch, settled
from ring0.types import CallState, Operator


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    postgres_world.require()
    with postgres_world.running() as world:
        yield world


@pytest.fixture
def shop(server: World) -> Iterator[Shop]:
    shop = server.fresh()
    yield shop
    server.drop(shop.name)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")
    sqlite_world.run(path, sqlite_world.SHOP)
    return path


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[kernel_world.World]:
    """A kernel with a run at work, whose agent has been talked into something."""
    async with kernel_world.world(tmp_path / "home") as here:
        yield here


# --- a kill in the middle -------------------------------------------------------------------------


async def test_a_call_that_is_killed_has_settled_either_way(
    gate: kernel_world.World, shop: Shop
) -> None:
    """The run's end waits for the statement: done and on record, or nothing done."""
    postgres_tool(gate, shop)
    with shop.world.connect(shop.name) as other:
        _, task = await asked(gate, "DELETE FROM customers")
        approval = await gate.pending()
        other.autocommit = False
        other.execute("SELECT * FROM customers WHERE id = 2 FOR UPDATE")  # The delete will wait.
        await gate.kernel.answer(approval.id, yes=True, by=Operator(name="test"))
        await asyncio.sleep(0.3)
        before = shop.dump()
        await gate.kernel.kill("run", gate.run.id, by="test")
        other.rollback()
    await asyncio.gather(task, return_exceptions=True)
    assert shop.dump() == before
    assert all(call.state is not CallState.UNKNOWN for call in await gate.calls())
    assert shop.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = 'agent'") == [(0,)]


async def test_a_sqlite_statement_that_is_killed_has_settled_either_way(
    gate: kernel_world.World, file: str
) -> None:
    sqlite_tool(gate, file)
    sqlite_world.run(file, "CREATE TABLE n(i); INSERT INTO n VALUES (1), (2), (3), (4), (5)")
    # Slow enough to be met in the middle, and stopped long before its end.
    many = ", ".join(f"n n{i}" for i in range(7))
    outcome = gate.start(
        "db.execute",
        {"statement": f"DELETE FROM customers WHERE (SELECT sum(n0.i) FROM {many}) > 0"},
    )
    await asyncio.sleep(0.05)
    begun = gate.kernel.runtime.monotonic_us()
    await gate.kernel.kill("run", gate.run.id, by="test")
    assert gate.kernel.runtime.monotonic_us() - begun < 5_000_000
    await asyncio.gather(outcome, return_exceptions=True)
    assert sqlite3.connect(file).execute("SELECT count(*) FROM customers").fetchone() == (3,)
    assert all(call.state is not CallState.UNKNOWN for call in await gate.calls())


async def test_a_commit_that_was_first_is_told_though_the_call_was_cancelled(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel comes when the rows are on disk: the driver gives the result, not `unknown`."""
    watch = Watch(Runtime())
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> str:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
        return "committed"

    task = asyncio.create_task(settled(Runtime(), watch, work, effect=True))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done(), "it waits for its thread"
    go.set()
    assert await task == "committed"


async def test_a_server_that_never_answers_is_broken_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is halted: no timeout of its own, no cancel reaches it."""
    if shop.world.remote:
        pytest.skip("the server of RING0_TEST_PG is not ours to halt")
    monkeypatch.setattr(limits, "SQL_WALL_S_MAX", 1)
    monkeypatch.setattr(limits, "SQL_STOP_S_MAX", 1)
    runtime = Runtime()
    watch = Watch(runtime)
    work = partial(
        postgres_engine.query, shop.server, PASSWORD,
        "SELECT count(*) FROM generate_series(1, 1000000000000)", [], watch,
    )  # fmt: skip
    task = asyncio.create_task(settled(runtime, watch, work, effect=False))
    found: list[Any] = []
    while not found:
        await asyncio.sleep(0.01)
        found = shop.rows("SELECT pid FROM pg_stat_activity WHERE query LIKE 'FETCH%'")
    os.kill(found[0][0], signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(errors.ToolFailed, match="no answer"):
                await task
    finally:
        os.kill(found[0][0], signal.SIGCONT)


async def test_a_statement_that_was_stopped_says_that_nothing_was_done() -> None:
    watch = Watch(Runtime())
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        while not watch.is_over():
            pass
        raise errors.LimitReached("it took too long")

    for effect, told in ((True, errors.ToolFailed), (False, asyncio.CancelledError)):
        watch.stopped = False
        begun.clear()
        task = asyncio.create_task(settled(Runtime(), watch, work, effect=effect))
        await begun.wait()
        task.cancel()
        with pytest.raises(told):
            await task
