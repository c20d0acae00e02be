"""`ring0 bench loops`: 500 loops and 500 runs that only look like loops, through the whole gate.

Which loops were stopped by their fifth round, which runs were stopped without reason (by name),
what the watch costs a call, and what a run that is refused without end costs another.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import uvloop

from bench.loop_cases import legitimate, looping
from bench.loop_cases.servers import shop
from bench.rows import Row, percentile, row, spread
from ring0 import Context, agent, tool
from ring0.errors import RunFailed
from ring0.runtime import Runtime
from ring0.scheduler.loops import Lane, Watch
from ring0.scheduler.trees import Tree
from ring0.sdk.embedded import Ring, embedded
from ring0.types import CallKind, Request

CASES, CONCURRENCY = 500, 20
STOPPED_BY = 5
POLICY = """
@id("b") permit (principal, action in Action::"tool", resource == Tool::"crm.execute");
@id("c") permit (principal, action in Action::"tool", resource);
"""
RUN_S_MAX = 120
"""For one case: a run that waits for a person, or for ever, must not hold up the others."""


@tool(effect="pure")
def served(number: int) -> int:
    return number


@agent(tools=[served], budget="5000 calls, 10 min")
async def victim(ctx: Context, task: str) -> list[float]:
    """Times each of its calls."""
    times = []
    for number in range(int(task)):
        begun = time.perf_counter()
        await ctx.tool("served", number=number)
        times.append(time.perf_counter() - begun)
    return times[20:]


def run() -> list[Row]:
    """All figures. Takes about a minute."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as made:
        home = Path(made) / "home"
        home.mkdir()
        (home / "ring0.toml").write_text('policy = ["bench.cedar"]\n')
        (home / "bench.cedar").write_text(POLICY)
        try:
            _database(legitimate.DATABASE)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_all(home))
        finally:
            for left in legitimate.DATABASE.parent.glob(f"{legitimate.DATABASE.name}*"):
                left.unlink()


def _database(path: Path) -> None:
    made = apsw.Connection(str(path))
    columns = "id INTEGER PRIMARY KEY, name TEXT, amount INTEGER DEFAULT 0"
    made.execute(f"CREATE TABLE account ({columns})")
    made.close()


async def _all(home: Path) -> list[Row]:
    async with shop() as server, embedded(home, dict(os.environ)) as ring:
        legitimate.http.url = server.url
        found = await _loops(ring)
        found += await _legitimate(ring)
        await legitimate.http.close()
        found += _cost()
        found += await _refused(ring, home)
    return found


async def _many(cases: list[str], one: Callable[[str], Any]) -> dict[str, Any]:
    turn = asyncio.Semaphore(CONCURRENCY)

    async def go(case: str) -> Any:
        async with turn, asyncio.timeout(RUN_S_MAX):
            return await one(case)

    return dict(zip(cases, await asyncio.gather(*(go(case) for case in cases)), strict=True))


async def _loops(ring: Ring) -> list[Row]:
    kinds = [loop.__name__ for loop, share in looping.SHARES.items() for _ in range(share * 5)]
    cases = [f"{kind}/{seed}" for seed, kind in enumerate(kinds)]
    assert len(cases) == CASES
    rounds = await _many(cases, lambda case: ring.run(looping.looper, case))
    by_fifth = sum(0 < number <= STOPPED_BY for number in rounds.values())
    rows = [
        row("loops stopped by their fifth round", 100 * by_fifth / CASES, "%", CASES),
        row("loops stopped at all", 100 * sum(map(bool, rounds.values())) / CASES, "%", CASES),
    ]
    missed = Counter[str]()
    for case, number in rounds.items():
        if not 0 < number <= STOPPED_BY:
            missed[f"{_name(case)}, stopped in round {number or 'none'}"] += 1
    rows += [row(f"  missed: {name}", count, "loops", count) for name, count in missed.items()]
    for loop in looping.BEYOND:
        number = await ring.run(looping.looper, f"{loop.__name__}/0")
        rows.append(row(f"  beyond these: {loop.__name__}, stopped in round", number, "", 1))
    return rows


def _name(case: str) -> str:
    """The kind, and of a noisy one the noise: the same dice as in the run."""
    kind, _, seed = case.partition("/")
    if kind != "noisy_cycle":
        return kind
    return f"{kind} with {looping.noise_of(random.Random(seed))}"


async def _legitimate(ring: Ring) -> list[Row]:
    kinds = list(legitimate.KINDS)
    cases = [f"{kinds[seed % len(kinds)]}/{seed}" for seed in range(CASES)]

    async def one(case: str) -> str:
        try:
            await ring.run(legitimate.worker, case)
        except RunFailed as error:
            return str(error)
        return ""

    errors = await _many(cases, one)
    failed = {case: error for case, error in errors.items() if error}
    rows = await ring.kernel.store.runs(most=10_000)
    calls = sum(one.calls_used for one in rows if one.agent in ("worker", "reader"))
    told = 0
    for read in rows:
        if read.agent in ("worker", "reader"):
            told += any(call.notice for call in await ring.kernel.store.calls(read.id))
    return [
        row("legitimate runs stopped", len(failed), "runs", CASES),
        row("legitimate runs told, and not stopped", told - len(failed), "runs", CASES),
        row("calls of the legitimate runs", calls, "calls", CASES),
        *(row(f"  stopped: {case}: {error[:100]}", 1, "run", 1) for case, error in failed.items()),
    ]


def _cost() -> list[Row]:
    """Of counting and of two digests; and also of looking through an answer for noise."""
    answer = (
        b'{"checked_at":"2026-03-01T10:00:00Z","rows":[[1,"Ann"],[2,"Bob"]],"status":"pending"}'
    )
    asked = b'["tool","crm.query",{"statement":"SELECT * FROM customer WHERE id = ?"}]'
    times: dict[str, list[float]] = {"new request": [], "request that comes again": []}
    for name, taken in times.items():
        watch = Watch(Tree(b"k" * 32, Runtime()), "r")
        for number in range(40 if name != "new request" else 4_000):
            canonical = asked if name != "new request" else asked + b"%d" % number
            begun = time.perf_counter()
            watch.ended(watch.ask(canonical, Lane.ACT, "0", "crm.query", polls=True), answer)
            taken.append(time.perf_counter() - begun)
    return [
        row(f"the watch of one call: {name}, p50", percentile(taken, 0.5) * 1e6, "us", len(taken))
        for name, taken in times.items()
    ]


async def _refused(ring: Ring, home: Path) -> list[Row]:
    """A run that asks for what it may not, 100,000 times, as quickly as it can, beside another."""
    alone = await ring.run(victim, "600")
    size = _size(home)
    tried = Counter[str]()
    attack = asyncio.ensure_future(_attack(ring, tried))
    beside = await ring.run(victim, "600")
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
    grown = _size(home) - size
    return [
        *spread("a call, alone", alone),
        *spread("a call, beside a run that is refused without end", beside, "alone"),
        row("  p95 alone", percentile(alone, 0.95) * 1e3, "ms", len(alone)),
        row("  p95 beside it", percentile(beside, 0.95) * 1e3, "ms", len(beside), "alone"),
        row("  refused meanwhile", tried["refused"], "calls", 1),
        row("  the journal grew by (both runs)", grown / 1024, "KiB", 1),
    ]


async def _attack(ring: Ring, tried: Counter[str]) -> None:
    async def attacker(run: Any) -> None:
        numbers = iter(range(100_000))

        async def one_after_another() -> None:
            for number in numbers:
                asked = Request(kind=CallKind.TOOL, name="drop", path="0", counter=number)
                await ring.kernel.gate.call(run.handle, asked)
                tried["refused"] += 1

        await asyncio.gather(*(one_after_another() for _ in range(100)))

    row_ = await ring.start(idle, "go")
    await attacker(ring.kernel.gate.live[row_.id])


@agent(budget="10 calls, 10 min")
async def idle(ctx: Context, task: str) -> None:
    await ctx.sleep(600)


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("*") if path.is_file())


if __name__ == "__main__":
    for one in run():
        print(f"{one['name']:<70} {one['value']:>12} {one['unit']}", file=sys.stdout)
