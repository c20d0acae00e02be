"""Kills: on disk before anything else of them, for a run, an agent, a tenant or all; and over only
when every process is dead, whatever the runs were in the middle of.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, world
from undo_crashes import DIED, Dying, in_child
from undo_world import Books, desk

import journals
from ring0 import limits
from ring0.errors import RunDead, SandboxFailed, UndoRefused
from ring0.gateway import door
from ring0.kernel.agent.agents import Family
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store.events import RunEnded
from ring0.types import AgentManifest, CallState, Effect, Run, RunState


async def sleepers(kernel: Kernel, folder: Path, count: int) -> list[Run]:
    """Isolated runs whose process is at work."""
    manifest = AgentManifest(name="sleeper", command=("/bin/sleep", "60"), folder=str(folder))
    rows = [
        await kernel.start(Family(manifest=manifest), f"{number}", principal="alice")
        for number in range(count)
    ]
    async with asyncio.timeout(30):
        while not all(kernel.gate.live[row.id].watched for row in rows):
            await asyncio.sleep(0.01)
    return rows


@pytest.fixture
async def kernel(tmp_path: Path) -> Any:
    home = tmp_path / "home"
    home.mkdir()
    made = await open_kernel(home, Runtime(), {})
    made.runs.doors = door.doors(made.gate)
    yield made
    await made.close()


async def test_a_kill_returns_when_every_process_is_dead(tmp_path: Path, kernel: Kernel) -> None:
    rows = await sleepers(kernel, tmp_path, 8)
    pids = [kernel.gate.live[row.id].watched for row in rows]
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert set(await kernel.kill("agent", "sleeper", by="alice")) == {row.id for row in rows}
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    assert await kernel.store.sandboxes_alive() == []
    assert {(await kernel.store.run(row.id)).state for row in rows} == {RunState.CANCELLED}  # type: ignore[union-attr]


async def test_a_kill_leaves_the_loop_waiting_at_no_descriptor_that_is_closed(
    tmp_path: Path, kernel: Kernel
) -> None:
    """The next descriptor with its number would never be heard of: not the death of a process."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    await sleepers(kernel, tmp_path, 2)
    before = len(selector.get_map())
    await kernel.kill("agent", "sleeper", by="alice")
    for fd in selector.get_map():
        os.fstat(fd)
    async with asyncio.timeout(10):
        while kernel.runs._tasks:
            await asyncio.sleep(0.01)
    assert len(selector.get_map()) < before


async def test_one_process_that_does_not_die_keeps_no_other_alive_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Kernel
) -> None:
    monkeypatch.setattr(limits, "AGENT_STOP_S_MAX", 1)  # At the end of this kernel, too.
    rows = await sleepers(kernel, tmp_path, 6)
    stuck = rows[2]
    pids = {row.id: kernel.gate.live[row.id].watched for row in rows}
    end_all = kernel.sandboxes.end_all

    async def end(run: str = "") -> None:
        if run == stuck.id:
            raise SandboxFailed("It could not be confirmed dead.", todo="Restart the machine.")
        await end_all(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel.sandboxes, "end_all", end)
        with pytest.raises(SandboxFailed) as failed:
            await kernel.kill("all", "", by="alice")
    assert stuck.id in failed.value.what and failed.value.what.startswith("1 of 6 runs")
    alive = [run for run, pid in pids.items() if os.path.exists(f"/proc/{pid}")]
    assert alive == [stuck.id]
    # Nothing of it is claimed to be over, and asked again it ends.
    assert (await kernel.store.run(stuck.id)).state is RunState.RUNNING  # type: ignore[union-attr]
    await kernel.kill("all", "", by="alice")
    assert not os.path.exists(f"/proc/{pids[stuck.id]}")


async def test_a_kill_in_the_middle_of_a_once_effect_leaves_it_unknown_and_says_so(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = w.tool(Doing("pay", effect=Effect.ONCE))
        tool.hold()
        call = w.start("pay", {})
        await tool.begun.wait()
        assert await w.kernel.kill("run", w.run.id, by="alice") == [w.run.id]
        with pytest.raises(RunDead):
            await call
        assert (await w.row()).state is RunState.CANCELLED
        (recorded,) = await w.calls()
        assert recorded.state is CallState.UNKNOWN, "nobody claims that it did not happen"
        assert tool.done == 0


async def test_a_kill_of_a_tenant_ends_its_runs_and_no_others(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        assert await w.kernel.kill("tenant", "another", by="alice") == []
        assert (await w.row()).state is RunState.RUNNING
        assert await w.kernel.kill("tenant", w.run.row.tenant, by="alice") == [w.run.id]
        assert (await w.row()).state is RunState.CANCELLED


async def test_a_row_whose_end_is_being_written_is_not_started_though_anothers_end_is_written(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        names = ("r-000000000001", "r-000000000002")
        for run in names:
            await w.store.append(journals.queued(run))
        rows = [await w.row(run) for run in names]
        append, go = w.store.append, asyncio.Event()

        async def held(write: Write) -> int:
            if write.run == names[1] and any(isinstance(one, RunEnded) for one in write.events):
                await go.wait()
            return int(await append(write))

        w.store.append = held
        ending = asyncio.create_task(w.kernel.runs.ending.end_rows(rows, by="alice"))
        await w.until(RunState.CANCELLED, run=names[0])
        while w.kernel.runs.ending.has_begun(names[0]):
            await asyncio.sleep(0.001)
        with pytest.raises(RunDead) as dead:
            await w.kernel.runs.start(rows[1], w.run.agent)
        assert "being ended" in dead.value.why
        go.set()
        await ending
        assert (await w.row(names[1])).state is RunState.CANCELLED


@pytest.mark.parametrize("scope", ["run", "agent", "tenant", "all"])
def test_a_kernel_that_dies_once_the_kill_is_on_disk_has_killed(tmp_path: Path, scope: str) -> None:
    """The processes come after: whoever opens the folder next finds the runs dead."""

    async def body() -> None:
        runtime = Dying("run.ends")
        async with desk(tmp_path, runtime=runtime) as d:
            runtime.watched = True
            await d.child()
            targets = {"run": d.run.id, "agent": "clerk", "tenant": d.run.row.tenant, "all": ""}
            await d.kernel.kill(scope, targets[scope], by="alice")

    async def after() -> None:
        async with desk(tmp_path, start=False) as d:
            await d.kernel.recover(d.code())
            assert not d.kernel.runs.at_work() and not d.live
            rows = await d.store.runs()
            assert len(rows) == 2 and {row.state for row in rows} == {RunState.CANCELLED}

    assert in_child(body) == DIED
    assert in_child(after) == 0


async def test_a_run_that_is_begun_while_all_are_killed_is_killed_or_begun_after(
    tmp_path: Path,
) -> None:
    """None is left that had begun before the kill was on disk, and none is half ended."""
    async with desk(tmp_path, start=False) as d:
        for wait in range(12):
            code = d.code()
            begun = asyncio.create_task(
                d.kernel.start_embedded(
                    code.family.manifest, code.family.others, code.functions, "t", principal="alice"
                )
            )
            for _ in range(wait):
                await asyncio.sleep(0)
            killed = await d.kernel.kill("all", "", by="alice")
            row = (await asyncio.gather(begun, return_exceptions=True))[0]
            assert isinstance(row, Run | RunDead)
            found = {one.id: one for one in await d.store.runs(states=[RunState.RUNNING])}
            if isinstance(row, Run):
                assert (row.id in killed) != (row.id in found)
            generation = await d.store.kill_generation()
            assert all(one.kill_seen >= generation for one in found.values())
            await d.kernel.kill("all", "", by="alice")


async def test_a_kill_of_an_undo_in_the_middle_leaves_its_step_unknown_and_nobody_goes_past_it(
    tmp_path: Path,
) -> None:
    begun = asyncio.Event()

    async def refund(args: dict[str, Any], call: str, fences: Any) -> Any:
        begun.set()
        await asyncio.sleep(60)

    async with desk(tmp_path, start=False) as d:
        code = d.code()
        own = {**code.functions, "tool:refund": refund}
        row = await d.kernel.start_embedded(
            code.family.manifest, code.family.others, own, "a 1", principal="alice"
        )
        d.run = d.kernel.gate.live[row.id]
        await d.ok("charge", order="a", amount=1)
        undoing = asyncio.create_task(d.undo())
        await begun.wait()
        assert len(await d.kernel.kill("agent", "ring0.undo", by="alice")) == 1
        assert (await undoing).state is RunState.CANCELLED
        with pytest.raises(UndoRefused) as refused:
            await d.undo()
        assert "ring0 settle" in refused.value.why
        assert Books(tmp_path).said() == ["charge a"]
