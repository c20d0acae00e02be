"""Runs that were stopped from outside: a replay compares them up to there, and ends there too."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from ring0 import Context, agent, tool
from ring0.gateway.playing import play
from ring0.kernel.replaying.exporting import export
from ring0.runtime import Runtime
from ring0.sdk.embedded import embedded

pytestmark = pytest.mark.filterwarnings("ignore::ring0.sdk.embedded.NotContained")
BEGUN: list[bool] = []


@tool(effect="pure")
async def quick(x: int) -> int:
    return x


@tool(effect="pure")
async def stuck() -> None:
    BEGUN.append(True)
    await asyncio.sleep(60)


@agent(name="holder", tools=[quick, stuck])
async def holder(ctx: Context, task: str) -> Any:
    """On its way out it asks for one thing more: to let go of what it holds."""
    await ctx.tool("quick", x=1)
    async with ctx.lock("thing"):
        await ctx.tool("stuck")


@agent(name="both", tools=[quick, stuck])
async def both(ctx: Context, task: str) -> Any:
    """One of its tasks is stuck, while others go on and on."""

    async def on(start: int) -> None:
        for number in range(3):
            await ctx.tool("quick", x=start + number)
        await ctx.sleep(50)

    await asyncio.gather(on(0), on(10), ctx.tool("stuck"))


@pytest.mark.parametrize("which", [holder, both])
async def test_a_replay_of_a_run_that_was_killed_ends_where_its_record_does(
    which: Any, tmp_path: Path
) -> None:
    BEGUN.clear()
    async with embedded(tmp_path, {}) as ring:
        row = await ring.start(which, "go")
        async with asyncio.timeout(10):
            while not BEGUN:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await ring.kernel.kill("run", row.id, by="alice")
        ended = await ring.kernel.runs.wait(row.id)
        assert ended.state == "cancelled"
        await ring.kernel.store.flush()
        done = await export(tmp_path, ring.kernel.store, ring.kernel.runtime, ended)
    began = time.monotonic()
    (found,) = await play(done.data, Runtime(), agent=which)
    assert found.ok and found.cut_off, found.divergence
    assert found.matched >= 2 and time.monotonic() - began < 5, "nobody waits for what never comes"


@tool(effect="once")
async def pay(amount: int) -> int:
    return amount


@agent(name="asker", tools=[quick, pay], budget="20 calls, 1 s")
async def asker(ctx: Context, task: str) -> Any:
    await asyncio.gather(ctx.tool("quick", x=1), ctx.tool("pay", amount=3))


async def test_a_replay_of_a_run_that_waited_for_a_person_until_its_time_was_over_ends_there_too(
    tmp_path: Path,
) -> None:
    async with embedded(tmp_path, {}) as ring:
        row = await ring.start(asker, "go")
        ended = await asyncio.wait_for(ring.kernel.runs.wait(row.id), 20)
        assert ended.state == "failed"
        await ring.kernel.store.flush()
        done = await export(tmp_path, ring.kernel.store, ring.kernel.runtime, ended)
    (found,) = await play(done.data, Runtime(), agent=asker)
    assert found.ok and found.matched == found.calls == 1, found.divergence
