"""`ring0 bench waiting`: ten thousand runs that wait, and how quickly one of them goes on.

Each is an embedded run that was begun, waits for a person or for a time, and was put away: a row,
and a name in memory. Measured: what one of them weighs (Python's own count, and the process as
Linux sees it), what the kernel does while nothing happens, how long from an answer or a time until
the agent's function is entered again, how long a run stands before it begins where there is room,
and how long it takes to kill them all. The floor beside them: as many asyncio tasks that sleep.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

import uvloop

from bench.rows import Row, row, spread
from ring0 import Context, agent, tool
from ring0.sdk.embedded import Ring, embedded
from ring0.types import ApprovalState, Operator

RUNS = 10_000
WAKES = 200
QUEUED = 400
IDLE_S = 10
AT_ONCE = 200
FLOOR = "as many tasks that sleep"

_entered: dict[str, float] = {}
"""By run: when its function was entered last."""


@tool(effect="once")
async def act(what: str) -> str:
    """What a person has to approve."""
    return what


@agent(tools=[act], budget="100 calls, 10 h")
async def asker(ctx: Context, task: str) -> str:
    _entered[ctx.run] = time.perf_counter()
    return str(await ctx.tool("act", what=task))


@agent(budget="100 calls, 10 h")
async def sleeper(ctx: Context, task: str) -> None:
    _entered[ctx.run] = time.perf_counter()
    await ctx.sleep(float(task))


@agent(budget="10 calls, 10 min")
async def nothing(ctx: Context, task: str) -> None:
    _entered[ctx.run] = time.perf_counter()


def _rss_bytes() -> int:
    with open("/proc/self/statm") as found:
        return int(found.read().split()[1]) * resource.getpagesize()


async def _all_away(ring: Ring, count: int) -> None:
    while len(ring.kernel.runs.waking.away) < count or ring.kernel.runs.at_work():
        await asyncio.sleep(0.01)


async def _begin(ring: Ring, count: int) -> None:
    total = count + len(ring.kernel.runs.waking.away)
    for first in range(0, count, AT_ONCE):
        tasks = (ring.start(sleeper, "30000") for _ in range(min(AT_ONCE, count - first)))
        await asyncio.gather(*tasks)
    await _all_away(ring, total)


async def _weight(ring: Ring) -> list[Row]:
    """Of one more run, when all bounded caches are full: as Linux sees it, then as Python counts
    it (from when all that the caches hold is counted, too)."""
    await _begin(ring, RUNS // 2)
    before = await _quiet(ring)
    await _begin(ring, RUNS // 2)
    grown = await _quiet(ring) - before
    tracemalloc.start()
    await _begin(ring, RUNS // 2)
    await _quiet(ring)
    counted = tracemalloc.get_traced_memory()[0]
    await _begin(ring, RUNS // 5)
    await _quiet(ring)
    held = tracemalloc.get_traced_memory()[0] - counted
    tracemalloc.stop()
    return [
        row("a waiting run, growth of the process", grown / (RUNS // 2), "bytes", RUNS // 2),
        row("a waiting run, memory by tracemalloc", held / (RUNS // 5), "bytes", RUNS // 5),
    ]


async def _quiet(ring: Ring) -> int:
    """The size of the process when nothing is under way."""
    await ring.kernel.store.flush()
    await asyncio.sleep(1)
    _entered.clear()
    gc.collect()
    return _rss_bytes()


async def _floor() -> list[Row]:
    gc.collect()
    before = _rss_bytes()
    tasks = [asyncio.create_task(asyncio.sleep(3_600)) for _ in range(RUNS)]
    await asyncio.sleep(0.1)
    grown = _rss_bytes() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [row("a task that sleeps, growth of the process", grown / RUNS, "bytes", RUNS)]


async def _idle() -> list[Row]:
    used = time.process_time()
    await asyncio.sleep(IDLE_S)
    share = (time.process_time() - used) / IDLE_S
    return [row("idle, of one core", share * 100, "%", 1)]


async def _wakes(ring: Ring) -> list[Row]:
    """From the answer (from the time) to the first line of the agent's function."""
    kernel, answered, timed = ring.kernel, [], []
    for number in range(WAKES):
        run = (await ring.start(asker, str(number))).id
        while kernel.runs.is_here(run):
            await asyncio.sleep(0.002)
        pending = [ApprovalState.PENDING]
        (ask,) = await kernel.store.approvals(run=run, states=pending)
        del _entered[run]
        began = time.perf_counter()
        await kernel.answer(ask.id, yes=True, by=Operator(name="bench"))
        while run not in _entered:
            await asyncio.sleep(0.0005)
        answered.append(_entered[run] - began)
    for _ in range(WAKES // 10):
        run = (await ring.start(sleeper, "1.3")).id
        while kernel.runs.is_here(run):
            await asyncio.sleep(0.002)
        del _entered[run]
        found = await kernel.store.run(run)
        assert found is not None
        due = time.perf_counter() + (found.wake_us - kernel.runtime.now_us()) / 1e6
        while run not in _entered:
            await asyncio.sleep(0.0005)
        timed.append(_entered[run] - due)
    return [*spread("answer to woken", answered), *spread("time to woken", timed)]


async def _starts(ring: Ring) -> list[Row]:
    """From the word to the first line of the agent's function, one after another."""
    times = []
    for _ in range(QUEUED):
        began = time.perf_counter()
        run = await ring.start(nothing, "")
        while run.id not in _entered:
            await asyncio.sleep(0)
        times.append(_entered[run.id] - began)
        await ring.kernel.runs.wait(run.id)
    return spread("start of a run, embedded", times)


async def _kill(ring: Ring) -> list[Row]:
    began = time.perf_counter()
    killed = await ring.kernel.kill("all", "", by="bench")
    took = time.perf_counter() - began
    assert not ring.kernel.runs.waking.away
    return [row("kill all that wait", took, "s", len(killed))]


async def _measure() -> list[Row]:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=os.environ.get("RING0_BENCH_FOLDER")) as folder:
        async with embedded(Path(folder) / "home", {}) as ring:
            ring.kernel.runs.park_after_s = 0
            return [
                *await _starts(ring),
                *await _weight(ring),
                *await _floor(),
                *await _idle(),
                *await _wakes(ring),
                *await _kill(ring),
            ]


def run() -> list[Row]:
    """All rows, in order."""
    return uvloop.run(_measure())
