"""`ring0 bench kill`: how long until every process of hundreds of runs at work is confirmed dead.

Embedded runs, each in the middle of an effect that acts once; isolated ones, each a process in a
sandbox of its own. A kill is on disk before anything of it is begun, and returns when all have an
end on record. The floor beside them: as many processes, killed and waited for.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import warnings
from pathlib import Path

import uvloop

from bench.rows import Row, row, spread
from ring0 import Context, agent, tool
from ring0.gateway import door
from ring0.kernel.agent.agents import Family
from ring0.kernel.kernel import Kernel
from ring0.sdk.embedded import Ring, embedded
from ring0.types import AgentManifest, RunState

RUNS = 200
ROUNDS = 30
"""Of embedded runs, each of RUNS."""
ROUNDS_ISOLATED = 10
FLOOR = "as many processes, SIGKILL and wait"
POLICY = '@id("b") @reason("Of a benchmark.") permit (principal, action, resource);'

_begun: list[str] = []


@tool(effect="once")
async def work(what: str) -> str:
    """Takes longer than the benchmark."""
    _begun.append(what)
    await asyncio.sleep(3_600)
    return what


@agent(tools=[work], budget="10 calls, 1 h")
async def worker(ctx: Context, task: str) -> str:
    return str(await ctx.tool("work", what=task))


async def _kill(kernel: Kernel) -> float:
    began = time.perf_counter()
    killed = await kernel.kill("all", "", by="bench")
    took = time.perf_counter() - began
    assert len(killed) == RUNS, f"{len(killed)} of {RUNS} were killed"
    assert not kernel.runs.at_work(), "one is at work still"
    return took


async def _embedded(ring: Ring) -> list[Row]:
    together, alone = [], []
    for round_ in range(ROUNDS):
        _begun.clear()
        rows = [await ring.start(worker, f"{round_}/{number}") for number in range(RUNS)]
        while len(_begun) < RUNS:
            await asyncio.sleep(0.01)
        if round_:
            together.append(await _kill(ring.kernel))
            continue
        for run in rows:  # The first round: one after the other, while all the others work.
            began = time.perf_counter()
            await ring.kernel.kill("run", run.id, by="bench")
            alone.append(time.perf_counter() - began)
    return [
        *spread(f"kill of one of {RUNS}, embedded", alone),
        *spread(f"kill of {RUNS} in the middle of an effect, embedded", together),
    ]


async def _isolated(ring: Ring, folder: Path) -> list[Row]:
    kernel = ring.kernel
    kernel.runs.doors = door.doors(kernel.gate)
    manifest = AgentManifest(name="sleeper", command=("/bin/sleep", "3600"), folder=str(folder))
    took = []
    for _ in range(ROUNDS_ISOLATED):
        rows = [
            await kernel.start(Family(manifest=manifest), str(number), principal="bench")
            for number in range(RUNS)
        ]
        while not all(kernel.gate.live[run.id].watched for run in rows):
            await asyncio.sleep(0.05)
        pids = [kernel.gate.live[run.id].watched for run in rows]
        took.append(await _kill(kernel))
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], "one is alive still"
        ended = await kernel.store.runs(states=[RunState.CANCELLED], most=RUNS)
        assert len(ended) == RUNS
    return spread(f"kill of {RUNS}, isolated", took, FLOOR)


async def _floor() -> list[Row]:
    took = []
    for _ in range(ROUNDS_ISOLATED):
        processes = [
            await asyncio.create_subprocess_exec("/bin/sleep", "3600") for _ in range(RUNS)
        ]
        began = time.perf_counter()
        for process in processes:
            process.kill()
        await asyncio.gather(*(process.wait() for process in processes))
        took.append(time.perf_counter() - began)
    return spread(FLOOR, took)


async def _measure() -> list[Row]:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=os.environ.get("RING0_BENCH_FOLDER")) as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir(mode=0o700)
        (home / "own.cedar").write_text(POLICY)
        # A call of each at once: slots for all of them.
        (home / "ring0.toml").write_text(
            f'policy = ["own.cedar"]\n[scheduler]\nruns_at_work = {RUNS + 50}\n'
            f"calls_at_once = {RUNS + 50}\n"
        )
        async with embedded(home, {}) as ring:
            rows = await _embedded(ring)
            rows += await _isolated(ring, folder)
        return [*rows, *await _floor(), row("runs at work", RUNS, "runs", 1)]


def run() -> list[Row]:
    """All rows, in order."""
    return uvloop.run(_measure())
