"""`ring0 bench gate`: the governed call, embedded and isolated, beside the floor: raw SQLite.

A governed call is one tool call through all ten steps: named, validated, judged by Cedar, written
as an intent, carried out, recorded. `durable`: a `once` effect, whose intent and outcome are both
on disk (fsync) before the next step. `pure`: both ride the next group commit.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import apsw
import msgspec
import uvloop

from bench.rows import Row, row, spread
from ring0 import Context, agent, tool
from ring0.gateway.door import doors
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.sdk.embedded import Ring, embedded
from ring0.tools.sandbox import Sandbox
from ring0.types import AgentManifest

RUNS, CALLS, CONCURRENCY = 200, 20, 50
SINGLE = 400
EVENT = b"x" * 700
"""About the size of a call's event."""
POLICY = '@id("b") permit (principal, action in Action::"tool", resource == Tool::"write_nothing");'
FLOOR = "raw SQLite, group commit"


@tool(effect="once")
async def write_nothing(number: int) -> int:
    """An effect that costs nothing, so that what is measured is ring0."""
    return number


@tool(effect="pure")
async def read_nothing(number: int) -> int:
    """A reading that costs nothing."""
    return number


@agent(tools=[write_nothing], budget="1000 calls, 10 min")
async def writer(ctx: Context, task: str) -> None:
    for number in range(CALLS):
        await ctx.tool("write_nothing", number=int(task) * CALLS + number)


@agent(tools=[write_nothing, read_nothing], budget="10000 calls, 10 min")
async def single(ctx: Context, task: str) -> dict[str, list[float]]:
    """Times each of its calls, after a few that warm up."""
    times: dict[str, list[float]] = {"write_nothing": [], "read_nothing": []}
    for name, taken in times.items():
        for number in range(int(task)):
            begun = time.perf_counter()
            await ctx.tool(name, number=number)
            taken.append(time.perf_counter() - begun)
        del taken[:20]
    return times


def run() -> list[Row]:
    """All figures. Takes about half a minute."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "ring0.toml").write_text('policy = ["bench.cedar"]\n')
        (home / "bench.cedar").write_text(POLICY)
        floor, floor_rows = _floor(Path(folder))
        return floor_rows + _on_loop(_embedded(home, floor)) + _on_loop(_isolated(home))


def _on_loop(rows: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    """On the loop that `ring0` itself runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(rows)


def _floor(folder: Path) -> tuple[float, list[Row]]:
    """Two events a call, as a call writes them, with nothing around: batches, then one by one."""
    db = apsw.Connection(str(folder / "floor.db"))
    db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB)")
    calls = RUNS * CALLS
    begun = time.perf_counter()
    for _ in range(2 * calls // CONCURRENCY):
        db.execute("BEGIN IMMEDIATE")
        for _ in range(CONCURRENCY):
            db.execute("INSERT INTO event (body) VALUES (?)", (EVENT,))
        db.execute("COMMIT")
    rate = calls / (time.perf_counter() - begun)
    times = []
    for _ in range(SINGLE):
        begun = time.perf_counter()
        for _ in range(2):
            db.execute("INSERT INTO event (body) VALUES (?)", (EVENT,))
        times.append(time.perf_counter() - begun)
    db.close()
    name = f"floor: {FLOOR} of {CONCURRENCY}, 2 events a call"
    return rate, [row(name, rate, "calls/s", calls), *spread("floor: 2 commits", times)]


async def _embedded(home: Path, floor: float) -> list[Row]:
    async with embedded(home, dict(os.environ)) as ring:
        begun = time.perf_counter()
        cpu = time.process_time()
        await _crowd(ring)
        taken = time.perf_counter() - begun
        cpu = time.process_time() - cpu
        times = await ring.run(single, str(SINGLE))
    calls = RUNS * CALLS
    rate = calls / taken
    name = f"embedded, durable: {RUNS} runs x {CALLS} calls, {CONCURRENCY} at once"
    return [
        row(name, rate, "calls/s", calls, FLOOR),
        row("embedded, durable: share of the floor", rate / floor, "ratio", calls, FLOOR),
        row("embedded, durable: CPU of a call", cpu / calls * 1e6, "us", calls),
        *spread("embedded, durable: one call", times["write_nothing"], "2 commits"),
        *spread("embedded, pure: one call", times["read_nothing"]),
    ]


async def _crowd(ring: Ring) -> None:
    turn = asyncio.Semaphore(CONCURRENCY)

    async def one(number: int) -> None:
        async with turn:
            await ring.run(writer, str(number))

    await asyncio.gather(*(one(number) for number in range(RUNS)))


async def _isolated(home: Path) -> list[Row]:
    """The same call from a sandboxed process: through its door, by HTTP on a unix socket."""
    kernels: list[Kernel] = []

    async def open_doors(run: LiveRun, sandbox: Sandbox) -> object:
        return await doors(kernels[0].gate)(run, sandbox)

    kernel = await open_kernel(home, Runtime(), dict(os.environ), doors=open_doors)  # type: ignore[arg-type]
    kernels.append(kernel)
    try:
        (home.parent / "isolated.py").write_text(ISOLATED)
        manifest = AgentManifest(name="", entry="isolated.py:isolated", folder=str(home.parent))
        begun = time.perf_counter()
        family = await kernel.describe(manifest)
        row_ = await kernel.start(family, str(SINGLE), principal="bench")
        ended = await kernel.runs.wait(row_.id)
        taken = time.perf_counter() - begun
        body = msgspec.json.decode(await kernel.store.blob(ended.result))
        times = body["value"]
    finally:
        await kernel.close()
    return [
        *spread("isolated, pure: one call (now)", times["now"]),
        *spread("isolated: file written, recorded", times["write"]),
        row("isolated: whole run, described, started, ended", taken, "s", 1),
    ]


ISOLATED = """
import time
from ring0 import Context, agent

@agent(builtins={"files": {"use": "files"}}, budget="10000 calls, 10 min")
async def isolated(ctx: Context, task: str):
    times = {"now": [], "write": []}
    for number in range(int(task)):
        begun = time.perf_counter()
        await ctx.now()
        times["now"].append(time.perf_counter() - begun)
    for number in range(int(task) // 4):
        begun = time.perf_counter()
        await ctx.tool("files.write", path=f"f{number}", text="x")
        times["write"].append(time.perf_counter() - begun)
    return times
"""
