"""Which runs may have lost calls in a crash, by what the journal says at the next start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import journals
from ring0.kernel.life import lost
from ring0.runtime import Runtime
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.store.sqlite import open_store
from ring0.types import Budget, RunState

STARTED = ev.SandboxStarted(sandbox="s-1", pid=1, start_ticks=1, boot_id="b", purpose="agent")


async def at_work(store: Store) -> list[str]:
    await store.flush()
    return [row.id for row in await lost.at_work(store)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], []),
        ([STARTED], ["r-1"]),
        ([STARTED, ev.SandboxEnded(sandbox="s-1")], []),
        (
            [STARTED, ev.RunMoved(state=RunState.WAITING, waiting_for="timer")],
            ["r-1"],
        ),
        (
            [
                STARTED,
                ev.RunMoved(state=RunState.WAITING, waiting_for="timer"),
                ev.SandboxEnded(sandbox="s-1"),
            ],
            [],
        ),
        (
            [ev.SandboxStarted(sandbox="s-2", pid=1, start_ticks=1, boot_id="b", purpose="f")],
            [],
        ),
    ],
    ids=["no process", "at work", "its process ended", "waits here", "put away", "a tool's"],
)
async def test_an_isolated_run_may_have_lost_calls_where_its_process_was_not_ended(
    tmp_path: Path, events: list[ev.AnyEvent], expected: list[str]
) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    try:
        await store.append(journals.queued("r-1", budget=Budget(calls=160)))
        await store.append(journals.moved("r-1", epoch=1))
        for event in events:
            await store.append(Write(run="r-1", events=[event]))
        assert await at_work(store) == expected
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("state", "ended", "expected"),
    [
        (RunState.RUNNING, False, ["r-1"]),
        (RunState.RUNNING, True, []),
        (RunState.WAITING, False, []),
    ],
    ids=["at work", "stopped in order", "put away"],
)
async def test_a_run_whose_sandbox_was_made_ahead_is_at_work_before_the_disk_says_that_it_is_its(
    tmp_path: Path, state: RunState, ended: bool, expected: list[str]
) -> None:
    """Who claimed a parked one is written a little later, and until then its calls ride."""
    store = open_store(tmp_path, Runtime(), write=True)
    try:
        parked = msgspec.structs.replace(STARTED, purpose="parked")
        await store.append(Write(run=ev.KERNEL, events=[parked]))
        await store.append(journals.queued("r-1", budget=Budget(calls=160)))
        await store.append(journals.moved("r-1", epoch=1))
        if state is not RunState.RUNNING:
            await store.append(journals.moved("r-1", state, why="timer"))
        if ended:
            await store.append(Write(run=ev.KERNEL, events=[ev.SandboxEnded(sandbox="s-1")]))
        assert await at_work(store) == expected
    finally:
        await store.close()


async def test_no_more_counts_as_lost_than_is_left_and_a_small_budget_loses_nothing(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    try:
        for run, calls in (("r-1", 160), ("r-2", 20)):
            await store.append(journals.queued(run, budget=Budget(calls=calls)))
            await store.append(journals.moved(run, epoch=1))
        await store.flush()
        parent, child = await store.run("r-1"), Budget(calls=155, children=0, depth=2)
        await store.append(journals.queued("r-3", parent=parent, budget=child))
        await store.flush()
        rows = [await store.run(run) for run in ("r-1", "r-2")]
        await lost.count(store, [row for row in rows if row is not None])
        await store.flush()
        used = [row.calls_used for run in ("r-1", "r-2") if (row := await store.run(run))]
        assert used == [160, 0]
    finally:
        await store.close()


async def test_a_run_that_meets_many_crashes_loses_no_more_calls_than_in_one(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path, Runtime(), write=True)
    try:
        await store.append(journals.queued("r-1", budget=Budget(calls=160)))
        await store.append(journals.moved("r-1", epoch=1))
        used = []
        for _ in range(20):
            await store.flush()
            row = await store.run("r-1")
            assert row is not None
            used.append(row.calls_used)
            await lost.count(store, [row])
        assert used[0] == 0 < used[1] < 160
        assert set(used[1:]) == {used[1]}
    finally:
        await store.close()
