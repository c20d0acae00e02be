"""`ring0 bench fairness`: what one tenant, or one run, loses by another that asks for far more.

Two cases on the real kernel with embedded runs: a tenant with 100 times the load beside another,
and a low-priority run that loops and spawns itself beside a high-priority one. Each is measured
alone, beside, and beside with the same slots given out first come, first served. The first case
once more on the bare queue with a simulated clock: no machine's noise in it.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import tempfile
import time
import warnings
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from bench.rows import Row, percentile, row
from ring0 import Context, agent, tool
from ring0.scheduler.admission import Admission
from ring0.scheduler.queue import FairQueue, Ticket
from ring0.sdk.embedded import Ring, embedded
from ring0.types import RunState

CALL_S = 0.1
SLOTS = 16
LOAD = 100
"""How many times the other tenant's load the heavy one has: so many runs that always ask."""
MEASURED = 50
RIVAL = "first come, first served"
BUDGET = "100000 calls, 30 min"
CORE_CALLS = 1_000
CROWDED_S_MAX = 60

_begun: dict[str, float] = {}
"""When each call of who is measured began to be carried out."""


@tool(effect="pure")
async def work(name: str) -> str:
    """Takes from half to one and a half of CALL_S, by the number at the end of its name."""
    _begun[name] = time.perf_counter()
    part = zlib.crc32(name.rpartition(" ")[2].encode()) % 1_000 / 1_000
    await asyncio.sleep(CALL_S * (0.5 + part))
    return name


@agent(tools=[work], budget=BUDGET)
async def light(ctx: Context, task: str) -> list[list[float]]:
    """One call after another, with a pause: how long each waited, and how long it took in all."""
    times = []
    for number in range(MEASURED):
        name = f"{task} {number}"
        asked = time.perf_counter()
        await ctx.tool("work", name=name)
        times.append([_begun.pop(name) - asked, time.perf_counter() - asked])
        await asyncio.sleep(CALL_S * ((number * 7) % 10) / 10)
    return times


@agent(tools=[work], budget=BUDGET)
async def heavy(ctx: Context, task: str) -> None:
    number = 0
    while True:
        number += 1
        await ctx.tool("work", name=f"{task} {number}")


@agent(tools=[work], budget="5000 calls, 30 min, 0 children", priority=9)
async def leaf(ctx: Context, task: str) -> None:
    await _lanes(ctx)


@agent(tools=[work], budget="30000 calls, 30 min, 4 children", priority=9, agents=["leaf"])
async def branch(ctx: Context, task: str) -> None:
    for _ in range(4):
        await ctx.spawn(leaf, ctx.run)
    await _lanes(ctx)


@agent(tools=[work], budget="1000000 calls, 30 min", priority=9, agents=["branch", "leaf"])
async def loops(ctx: Context, task: str) -> None:
    """Spawns all that it may, each of which asks for ten things at a time, for ever."""
    for _ in range(4):
        await ctx.spawn(branch, ctx.run)
    await _lanes(ctx)


async def _lanes(ctx: Context) -> None:
    async def lane(which: int) -> None:
        number = 0
        while True:
            number += 1
            await ctx.tool("work", name=f"{ctx.run} {which} {number}")

    await asyncio.gather(*(lane(which) for which in range(10)))


class Fifo(FairQueue):
    """The same slots, first come, first served."""

    def _next(self, now_us: int) -> Ticket | None:
        for slots in self.resources().values():
            slots.most = slots.size
            if slots.in_use >= slots.size:
                return None
        return min(self.waiting(), key=lambda ticket: ticket.asked_us, default=None)


def run() -> list[Row]:
    """All figures. Takes about two minutes."""
    warnings.simplefilter("ignore")
    return _core() + [found for case in (_tenants, _loop) for found in _on_loop(case)]


def _on_loop(case: Callable[[Path], object]) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found: list[Row] = runner.run(case(Path(folder)))  # type: ignore[arg-type]
        return found


# --- on the real kernel ---------------------------------------------------------------------------


@asynccontextmanager
async def _ring(home: Path, *, fifo: bool = False) -> AsyncIterator[Ring]:
    home.mkdir()
    (home / "ring0.toml").write_text(f"[scheduler]\ncalls_at_once = {SLOTS}\n")
    async with embedded(home, dict(os.environ)) as ring:
        if fifo:
            admission = Admission(ring.kernel.runtime, Fifo(sizes={"call": SLOTS}))
            ring.kernel.admission = ring.kernel.turns._admission = admission
        yield ring


async def _measure(ring: Ring, task: str) -> list[list[float]]:
    ring.kernel.config.tenant = "light"
    return list(await ring.run(light, task))


async def _crowded(ring: Ring, least: int) -> None:
    until = time.monotonic() + CROWDED_S_MAX
    while (queued := ring.kernel.load().queued) < least:
        if time.monotonic() > until:
            raise RuntimeError(f"{queued} calls wait, not {least}: it is not crowded")
        await asyncio.sleep(0.01)


async def _tenants(folder: Path) -> list[Row]:
    times = {}
    async with _ring(folder / "fair") as ring:
        times["alone"] = await _measure(ring, "alone")
        await _beside_many(ring)
        times["beside"] = await _measure(ring, "beside")
        await ring.kernel.kill("agent", "heavy", by="bench")
    async with _ring(folder / "fifo", fifo=True) as ring:
        await _beside_many(ring)
        times[RIVAL] = await _measure(ring, "fifo")
        await ring.kernel.kill("agent", "heavy", by="bench")
    return _told(f"tenant beside {LOAD} x the load", times)


async def _beside_many(ring: Ring) -> None:
    ring.kernel.config.tenant = "heavy"
    for number in range(LOAD):
        await ring.start(heavy, f"heavy {number}")
    await _crowded(ring, LOAD // 2)


async def _loop(folder: Path) -> list[Row]:
    times = {}
    for name in ("beside", RIVAL):
        async with _ring(folder / name.replace(" ", "-"), fifo=name == RIVAL) as ring:
            if name == "beside":
                times["alone"] = await _measure(ring, "alone")
            ring.kernel.config.tenant = "light"  # The same tenant's.
            row_ = await ring.start(loops, "0")
            await _crowded(ring, 4 * SLOTS)
            times[name] = await _measure(ring, name)
            now = await ring.kernel.store.run(row_.id)
            assert now is not None and now.state is RunState.RUNNING, "the loop had ended"
            await ring.kernel.kill("run", row_.id, by="bench")
    return _told("run beside a loop that spawns itself", times)


def _told(what: str, times: dict[str, list[list[float]]]) -> list[Row]:
    rows = []
    alone = percentile([one[1] for one in times["alone"]], 0.95)
    for name, found in times.items():
        rival = RIVAL if name == "beside" else ""
        waits, wholes = ([one[place] for one in found] for place in (0, 1))
        for word, values in (("wait", waits), ("ask to answer", wholes)):
            p95 = percentile(values, 0.95) * 1_000
            rows.append(row(f"kernel, {what}: {name}, p95 {word}", p95, "ms", len(found), rival))
        moved = (percentile(wholes, 0.95) / alone - 1) * 100
        if name != "alone":
            title = f"kernel, {what}: {name}, p95 ask to answer moved by"
            rows.append(row(title, moved, "%", len(found), rival))
    return rows


# --- the bare queue -------------------------------------------------------------------------------


def _core() -> list[Row]:
    alone = _simulate(FairQueue, heavy=0)
    rows = [_core_row("alone", alone)]
    for name, kind in (("beside", FairQueue), (RIVAL, Fifo)):
        found = _simulate(kind, heavy=LOAD)
        rival = RIVAL if name == "beside" else ""
        rows.append(_core_row(name, found, rival))
        moved = (percentile(found, 0.95) / percentile(alone, 0.95) - 1) * 100
        title = f"queue, tenant beside {LOAD} x the load: {name}, p95 ask to answer moved by"
        rows.append(row(title, moved, "%", len(found), rival))
    return rows


def _core_row(name: str, found: Sequence[float], rival: str = "") -> Row:
    title = f"queue, tenant beside {LOAD} x the load: {name}, p95 ask to answer"
    return row(title, percentile(found, 0.95) * 1_000, "ms (simulated)", len(found), rival)


def _simulate(kind: type[FairQueue], heavy: int) -> list[float]:
    """Callers that ask again as soon as they are answered, and one that pauses. Calls take from
    half to one and a half of CALL_S. What its calls took, in seconds."""
    dice = random.Random(7)
    now, events, number = 0, list[tuple[int, int, Ticket | None]](), 0
    found: list[float] = []

    def cost() -> int:
        return int(CALL_S * dice.uniform(0.5, 1.5) * 1_000_000)

    def goes(ticket: Ticket) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (now + cost(), number, ticket))

    queue = kind(sizes={"call": SLOTS}, told=goes)

    def ask(tenant: str, run_: str) -> None:
        made = Ticket(tenant=tenant, root=run_, run=run_, priority=5, slots=("call",))
        if queue.submit(made, now):
            goes(made)

    for one in range(heavy):
        ask("heavy", f"h{one}")
    ask("light", "light")
    while len(found) < CORE_CALLS:
        now, _, ticket = heapq.heappop(events)
        if ticket is None:
            ask("light", "light")
            continue
        queue.release(ticket, now - ticket.granted_us, now)
        if ticket.tenant == "heavy":
            ask("heavy", ticket.run)
        else:
            found.append((now - ticket.asked_us) / 1_000_000)
            number += 1
            heapq.heappush(events, (now + cost(), number, None))
    return found
