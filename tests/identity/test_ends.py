"""The end of a run is immediate: from its commit on, or from the death of its process on, nobody
is that run any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, begin, world

from ring0.errors import Ring0Error, RunDead
from ring0.gateway import door
from ring0.identity.handles import Handle, Handles
from ring0.kernel.agent.agents import Family
from ring0.kernel.boot import open_kernel
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.types import AgentManifest, Budget, CallKind, CallState, Request, RunState

TRIES = int(os.environ.get("RING0_RACING_TRIES", "100000"))
CALLERS = 50
DEATHS = int(os.environ.get("RING0_DEATHS", "12"))


class Telling(Runtime):
    """Knows at every moment whether the end of the run at hand is on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def reached(self, point: str) -> None:
        super().reached(point)
        if point == "run.ended":
            self.over = True


class Race:
    """Many callers of one run, and what became of each try."""

    def __init__(self, w: World, runtime: Telling) -> None:
        self.w = w
        self.runtime = runtime
        self.late = 0
        """Tries that began after the commit of the end."""
        self.wrong: list[str] = []

    def acts(self, args: dict[str, Any], context: Any) -> dict[str, int]:
        if self.runtime.over:
            self.wrong.append(f"{context.call} was carried out after the end")
        return {}

    async def caller(self, handle: Handle, number: int, late: int) -> None:
        tries = 0
        while late:
            tries += 1
            after = self.runtime.over
            late -= after
            self.late += after
            request = Request(
                kind=CallKind.TOOL, name="act", args={"x": tries}, path=str(number), counter=tries
            )
            try:
                outcome = await self.w.kernel.gate.call(handle, request)
            except RunDead:
                if not after:
                    await asyncio.sleep(0)
                continue
            if outcome.state is CallState.OK and after:
                self.wrong.append(f"{number}/{tries} succeeded after the end")
            elif outcome.state is CallState.OK and self.runtime.over:
                self.wrong.append(f"{number}/{tries} was answered after the end")
            elif outcome.state is not CallState.OK:
                await asyncio.sleep(0)


async def one_race(folder: Path, rng: random.Random, how: str, late: int) -> Race:
    runtime = Telling()
    async with world(folder, runtime=runtime, start=False) as w:
        await begin(w, "the task", Budget(calls=100_000))
        race = Race(w, runtime)
        w.tool(Doing("act", act=race.acts))
        handle, run = w.run.handle, w.run.id
        callers = [
            asyncio.create_task(race.caller(handle, number, late // CALLERS))
            for number in range(CALLERS)
        ]
        await asyncio.sleep(rng.uniform(0, 0.05))
        if how == "done":
            w.end.set_result("done")
            await w.kernel.runs.wait(run)
        elif how == "failed":
            w.end.set_exception(RuntimeError("the agent's own"))
            await w.kernel.runs.wait(run)
        else:
            await w.kernel.kill(how, run if how == "run" else "", by="ann")
        await asyncio.gather(*callers)
        kinds = [type(entry.body) async for entry in w.store.entries(run)]
        assert kinds.count(ev.RunEnded) == 1
        after = kinds[kinds.index(ev.RunEnded) + 1 :]
        assert not after, f"after the end the journal says {after}"
        return race


@pytest.mark.timeout(900)
async def test_of_all_calls_that_race_against_the_end_of_a_run_none_succeeds_after_its_commit(
    tmp_path: Path,
) -> None:
    """The long run: RING0_RACING_TRIES=1000000."""
    seed = int(os.environ.get("RING0_SEED", "7"))
    rng, late, number = random.Random(seed), 0, 0
    while late < TRIES:
        how = ("run", "done", "all", "failed")[number % 4]
        race = await one_race(tmp_path / str(number), rng, how, max(CALLERS, TRIES // 8))
        assert not race.wrong, f"seed {seed}, race {number} ({how}): {race.wrong[:3]}"
        late += race.late
        number += 1
    print(f"{late} tries after the commit of {number} ends: 0 succeeded")


def test_a_handle_is_dead_the_moment_its_process_is_and_a_newer_one_lives_on() -> None:
    handles = Handles(Runtime())
    old = handles.mint("r-1", 1)
    handles.process_died(old)
    with pytest.raises(RunDead):
        handles.check(old)
    old, new = handles.mint("r-1", 2), handles.mint("r-1", 3)
    handles.process_died(old)  # Its death is heard late.
    handles.check(new)
    assert handles.is_live("r-1", 3) and not handles.is_live("r-1", 2)


async def one_death(kernel: Any, folder: Path) -> float:
    """Kills an agent's process; how long its identity outlived it, in ms."""
    manifest = AgentManifest(
        name="sleeper",
        command=("/usr/bin/python3", "-c", "import time; time.sleep(600)"),
        folder=str(folder),
    )
    row = await kernel.start(Family(manifest=manifest), "sleep", principal="alice")
    async with asyncio.timeout(20):
        while not (live := kernel.gate.live.get(row.id)) or not live.watched:
            await asyncio.sleep(0.005)
    handle, heard = live.handle, asyncio.get_running_loop().create_future()
    died = kernel.gate.handles.process_died

    def hear(one: Handle) -> None:
        died(one)
        if one is handle and not heard.done():
            heard.set_result(time.monotonic())

    kernel.gate.handles.process_died = hear
    children = Path(f"/proc/{live.watched}/task/{live.watched}/children").read_text().split()
    kernel.gate.handles.check(handle)
    began = time.monotonic()
    os.kill(int(children[0]), signal.SIGKILL)
    ended = await asyncio.wait_for(heard, 20)
    with pytest.raises(RunDead):
        kernel.gate.handles.check(handle)
    kernel.gate.handles.process_died = died
    row = await kernel.runs.wait(row.id)
    assert row.state is RunState.FAILED
    return (ended - began) * 1_000


async def test_the_death_of_its_process_is_the_end_of_an_identity_at_once(tmp_path: Path) -> None:
    kernel = await open_kernel(tmp_path / "home", Runtime(), {})
    kernel.runs.doors = door.doors(kernel.gate)
    try:
        found = sorted([await one_death(kernel, tmp_path) for _ in range(DEATHS)])
    finally:
        with contextlib.suppress(Ring0Error):
            await kernel.close()
    print(f"{DEATHS} deaths: p50 {found[len(found) // 2]:.2f} ms, longest {found[-1]:.2f} ms")
    assert found[len(found) // 2] < 100, "on a machine that is busy with other things"
