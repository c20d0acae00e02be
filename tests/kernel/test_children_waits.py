"""Waiting for many children, racing them, cancelling one: the same on every replay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import parking_agents as agents
import pytest
from kernel_world import JumpingRuntime
from parking_world import begun, parking

from ring0.types import ENDED, CallKind, RunState

AT_ONCE = pytest.mark.parametrize("park_after_s", [0, 1_000])


@AT_ONCE
async def test_gather_gives_the_results_in_the_order_asked(
    tmp_path: Path, park_after_s: float
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime, park_after_s=park_after_s) as p:
        run = await p.start(agents.many, "gather;300 slow;0 quick;200 middling")
        await p.until(run, RunState.WAITING, "child")
        runtime.jump(250)
        await asyncio.sleep(0.1)
        assert (await p.row(run)).state is RunState.WAITING
        runtime.jump(100)
        assert await p.end(run) == ["slow", "quick", "middling"]
        assert begun(run) == (1 if park_after_s else 2), "woken once, when all had ended"
        await p.quiet()


async def test_gather_raises_the_error_of_a_child_or_returns_it(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.many, "gather;0 a;0 fail;0 c")
        assert "as it was told" in await p.end(run)
        run = await p.start(agents.many, "errors;0 a;0 fail;0 c")
        first, second, third = await p.end(run)
        assert (first, third) == ("a", "c") and "as it was told" in second


@AT_ONCE
async def test_a_race_is_won_by_the_first_and_the_others_have_ended_when_it_is_over(
    tmp_path: Path, park_after_s: float
) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime, park_after_s=park_after_s) as p:
        run = await p.start(agents.many, "race;900 slow;100 quick;500 middling")
        await p.until(run, RunState.WAITING, "child")
        runtime.jump(101)
        assert await p.end(run) == "quick"
        states = [row.state for row in await p.rows("leaf")]
        assert sorted(states) == ["cancelled", "cancelled", "done"]
        await p.quiet()


async def test_who_waits_for_any_child_gets_the_first_and_the_others_go_on(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.many, "any;900 slow;100 quick")
        await p.away(run)
        runtime.jump(101)
        assert await p.end(run) == [1, "quick"]


async def test_a_cancelled_child_has_ended_when_the_cancel_returns(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.many, "cancel;900 first;0 second")
        await p.end(run)
        rows = {row.id: row for row in await p.rows("leaf")}
        first = next(row for row in rows.values() if row.state is RunState.CANCELLED)
        assert begun(first.id) <= 1
        waits = [one for one in await p.kernel.store.calls(run) if one.kind is CallKind.WAIT]
        assert len(waits) == 1 and waits[0].ended_us >= first.ended_us


async def test_the_winner_of_a_race_is_the_same_after_a_crash(tmp_path: Path) -> None:
    """The kernel stops at any point of the race: whoever ended first has won."""
    for steps in range(0, 80, 8):
        home, runtime = tmp_path / str(steps), JumpingRuntime()
        async with parking(home, runtime=runtime) as p:
            run = await p.start(agents.many, "race;900 slow;100 quick;100.5 near")
            await p.until(run, RunState.WAITING, "child")
            runtime.jump(200)
            for _ in range(steps):
                await asyncio.sleep(0)
        async with parking(home, runtime=runtime) as p:
            await p.ring.resume(agents.many)
            await p.ring.resume(agents.leaf)
            winner = await p.end(run)
            rows = [row for row in await p.rows("leaf") if row.state is RunState.DONE]
            first = min(rows, key=lambda row: row.ended_us)
            assert winner == ("quick" if "quick" in str(await p.end(first.id)) else "near")
            assert all(row.state in ENDED for row in await p.rows())
            await p.quiet()


async def test_a_cancel_at_any_moment_of_a_spawn_ends_parent_and_child(tmp_path: Path) -> None:
    """While the child is written down, queued, started, put away."""
    for at_work in (1, 8):
        async with parking(tmp_path / str(at_work), at_work=at_work) as p:
            for steps in range(0, 150, 5):
                run = await p.start(agents.top, "1000 x")
                for _ in range(steps):
                    await asyncio.sleep(0)
                await p.kernel.kill("run", run, by="alice")
                rows = [row for row in await p.rows() if row.root == run]
                assert all(row.state is RunState.CANCELLED for row in rows), (steps, rows)
            assert p.runs.beginning.starts.at_work == 0 and not p.runs.at_work()
            await p.quiet()


async def test_a_deadline_reaches_every_run_beneath(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.top, "100000 x")
        row = await p.away(run)
        (leaf,) = await p.rows("leaf")
        assert (await p.away(leaf.id)).deadline_us <= row.deadline_us
        runtime.jump(4_000)
        await p.end(run)
        async with asyncio.timeout(5):
            while any(row.state not in ENDED for row in await p.rows()):
                await asyncio.sleep(0.01)
        assert all(begun(row.id) == 1 for row in await p.rows())
