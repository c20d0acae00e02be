"""Pause and resume: a run waits from its next call on, and others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import parking_agents as agents
import pytest
from kernel_world import JumpingRuntime
from parking_world import begun, parking

from ring0.errors import InvalidInput, NotFound
from ring0.types import Operator, RunState


async def test_a_paused_run_makes_no_further_call_and_others_go_on(tmp_path: Path) -> None:
    async with parking(tmp_path, park_after_s=1_000) as p:
        run = await p.start(agents.chatty, "")
        other = await p.start(agents.counter, "50")
        assert await p.kernel.pause(run, by="alice", note="to look at it") == [run]
        row = await p.until(run, RunState.WAITING, "pause")
        assert row.paused_by == "alice"
        made = len(await p.kernel.store.calls(run))
        assert await p.end(other) == 50
        await asyncio.sleep(0.1)
        assert len(await p.kernel.store.calls(run)) == made
        assert await p.kernel.resume(run, by="bob") == [run]
        await p.until(run, RunState.RUNNING)
        await asyncio.sleep(0.1)
        await p.kernel.store.flush()
        assert len(await p.kernel.store.calls(run)) > made


async def test_a_paused_run_is_put_away_and_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.counter, "100000")
        await p.until(run, RunState.RUNNING)
        await p.kernel.pause(run, by="alice")
        await p.away(run, "pause")
        assert begun(run) == 1
        await p.kernel.resume(run, by="alice")
        async with asyncio.timeout(5):
            while begun(run) < 2:
                await asyncio.sleep(0.002)
        assert (await p.row(run)).waiting_for == ""
        await p.quiet()


async def test_a_pause_survives_a_restart_of_the_kernel(tmp_path: Path) -> None:
    async with parking(tmp_path, park_after_s=1_000) as p:
        run = await p.start(agents.chatty, "")
        await p.kernel.pause(run, by="alice")
        await p.until(run, RunState.WAITING, "pause")
        made = len(await p.kernel.store.calls(run))
    async with parking(tmp_path) as p:
        assert await p.ring.resume(agents.chatty) == [run]
        await p.away(run, "pause")
        assert len(await p.kernel.store.calls(run)) == made
        await p.kernel.resume(run, by="alice")
        await p.until(run, RunState.RUNNING)


async def test_a_pause_survives_a_restart_that_finds_the_run_put_away(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        run = await p.start(agents.sleeper, "100")
        await p.away(run)
        await p.kernel.pause(run, by="alice")
    async with parking(tmp_path, runtime=runtime) as p:
        await p.ring.resume(agents.sleeper)
        runtime.jump(200)
        await asyncio.sleep(0.1)
        assert begun(run) == 1, "its time has come, and it is paused"
        await p.kernel.resume(run, by="alice")
        assert await p.end(run) == "True"


async def test_an_answer_does_not_start_a_paused_run(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.asker, "paused")
        await p.away(run)
        await p.kernel.pause(run, by="alice")
        (ask,) = await p.asked(run)
        await p.kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        await asyncio.sleep(0.1)
        assert begun(run) == 1 and agents.acted["paused"] == 0
        await p.quiet()
        await p.kernel.resume(run, by="alice")
        assert await p.end(run) == "did paused"


async def test_a_kill_and_a_deadline_reach_a_paused_run(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        killed = await p.start(agents.asker, "a")
        late = await p.start(agents.asker, "b")
        for run in (killed, late):
            await p.away(run)
            await p.kernel.pause(run, by="alice")
        await p.kernel.kill("run", killed, by="bob")
        row = await p.row(killed)
        assert (row.state, row.paused_by) == (RunState.CANCELLED, "")
        runtime.jump(100_000)
        assert "are over" in await p.end(late)


async def test_children_of_a_paused_run_go_on_unless_the_tree_is_paused(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with parking(tmp_path, runtime=runtime) as p:
        alone = await p.start(agents.top, "100 alone")
        await p.away(alone)
        (leaf,) = await p.rows("leaf")
        await p.away(leaf.id)
        assert await p.kernel.pause(alone, by="alice") == [alone]
        runtime.jump(101)
        assert await p.end(leaf.id) == "alone"
        await asyncio.sleep(0.05)
        assert (await p.row(alone)).state is RunState.WAITING
        await p.kernel.resume(alone, by="alice")
        assert await p.end(alone) == "alone"

        whole = await p.start(agents.top, "100 whole")
        await p.away(whole)
        (middle,) = [row for row in await p.rows("middle") if row.root == whole]
        (leaf,) = [row for row in await p.rows("leaf") if row.root == whole]
        await p.away(leaf.id)
        assert set(await p.kernel.pause(whole, by="alice", tree=True)) == {
            whole,
            middle.id,
            leaf.id,
        }
        runtime.jump(101)
        await asyncio.sleep(0.1)
        assert (await p.row(leaf.id)).state is RunState.WAITING
        await p.kernel.resume(whole, by="alice", tree=True)
        assert await p.end(whole) == "whole"


async def test_what_can_not_be_paused_or_resumed_says_why(tmp_path: Path) -> None:
    async with parking(tmp_path) as p:
        run = await p.start(agents.counter, "1")
        await p.end(run)
        with pytest.raises(InvalidInput, match="ended already"):
            await p.kernel.pause(run, by="alice")
        with pytest.raises(NotFound):
            await p.kernel.pause("r-none", by="alice")
        run = await p.start(agents.asker, "c")
        with pytest.raises(InvalidInput, match="not paused"):
            await p.kernel.resume(run, by="alice")
        await p.kernel.pause(run, by="alice")
        with pytest.raises(InvalidInput, match="paused already"):
            await p.kernel.pause(run, by="bob")


async def test_a_pause_at_any_moment_of_a_start_is_not_lost(tmp_path: Path) -> None:
    async with parking(tmp_path, park_after_s=1_000) as p:
        for steps in range(0, 60, 2):
            before = {row.id for row in await p.rows()}
            starting = asyncio.ensure_future(p.start(agents.counter, "100000"))
            async with asyncio.timeout(5):
                while not (new := {row.id for row in await p.rows()} - before):
                    await asyncio.sleep(0)
            (run,) = new
            for _ in range(steps):
                await asyncio.sleep(0)
            await p.kernel.pause(run, by="alice")
            await starting
            await p.until(run, RunState.WAITING, "pause")
            await p.kernel.kill("run", run, by="alice")
