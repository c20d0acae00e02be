"""`ring0 bench replay`, `make replays`: run graphs from seeds, recorded, exported and replayed from
their cassettes alone; and then each of some with one thing changed, which has to be found.

The graphs run embedded, so that thousands fit in minutes: the same gate, journal and recall as
isolated ones. No figure here is a promise of speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import replay_graphs as graphs
from bench.rows import Row, row
from ring0.errors import Ring0Error
from ring0.gateway.playing import play
from ring0.kernel.replay import Replayed
from ring0.kernel.replaying.exporting import export
from ring0.runtime import Runtime
from ring0.sdk.embedded import NotContained, Ring, embedded
from ring0.types import LIVE, ApprovalState, Operator, Run

SEEDS, CHANGED, OF_A_KERNEL, AT_ONCE = 10_000, 500, 50, 25
CONFIG = """
[models.default]
provider = "scripted"
script = "model.toml"
"""
SCRIPT = 'answer = "as you say: {said}"\n[[rules]]\nwhen = \'alpha\'\nsay = "alpha it is"\n'


class Seen(msgspec.Struct):
    """What came of some seeds."""

    replayed: int = 0
    runs: int = 0
    calls: int = 0
    size_bytes: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    differ: list[str] = []
    programs: set[bytes] = msgspec.field(default_factory=set)
    located: int = 0
    tried: Counter[str] = msgspec.field(default_factory=Counter)
    lost: list[str] = []

    def add(self, other: Seen) -> None:
        self.replayed += other.replayed
        self.runs += other.runs
        self.calls += other.calls
        self.size_bytes += other.size_bytes
        self.kinds += other.kinds
        self.differ += other.differ
        self.programs |= other.programs
        self.located += other.located
        self.tried += other.tried
        self.lost += other.lost


def batch(given: tuple[int, int, int]) -> Seen:
    """Records and replays the seeds `first` to `last`; `changed` of them changed, too."""
    warnings.simplefilter("ignore", NotContained)
    with tempfile.TemporaryDirectory(prefix="ring0-replays-") as folder:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        # An embedded agent's manifest is nowhere: its model's script lies where the process is.
        with runner, contextlib.chdir(folder):
            return runner.run(_batch(Path(folder), *given))


async def _batch(home: Path, first: int, last: int, changed: int) -> Seen:
    (home / "ring0.toml").write_text(CONFIG)
    (home / "model.toml").write_text(SCRIPT)
    seen, taken = Seen(), []
    # A replay that ends at a difference leaves tasks of its agent behind: that is no news here.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with embedded(home, {}) as ring:
        answering = asyncio.ensure_future(_answer(ring))
        places = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int) -> tuple[int, str, Run]:
            task = msgspec.json.encode(graphs.program(seed)).decode()
            async with places:
                row = await ring.start(graphs.graph, task)
                return seed, task, await ring.kernel.runs.wait(row.id)

        ended = await asyncio.gather(*(one(seed) for seed in range(first, last)))
        while left := await _going_on(ring):  # Those that nobody waited for.
            await asyncio.gather(*map(ring.kernel.runs.wait, left))
        answering.cancel()
        store = ring.kernel.store
        await store.flush()
        for seed, task, row in ended:
            done = await export(home, store, ring.kernel.runtime, row)
            for run in await store.runs(root=row.id):
                seen.kinds.update(f"{call.kind} {call.state}" for call in await store.calls(run.id))
            taken.append((seed, task, done.data))
    for seed, task, data in taken:
        await _again(seen, seed, task, data)
        if sum(seen.tried.values()) < changed:
            await _changed(seen, seed, task, data)
    return seen


async def _going_on(ring: Ring) -> list[str]:
    await ring.kernel.store.flush()
    return [row.id for row in await ring.kernel.store.runs(most=10_000) if not row.ended_us]


async def _answer(ring: Ring) -> None:
    """Somebody who says yes to most of what is asked, and no to the rest."""
    while True:
        for one in await ring.kernel.store.approvals(states=[ApprovalState.PENDING]):
            yes = one.id[-1] not in "abc"
            with contextlib.suppress(Ring0Error):  # Its run has ended meanwhile.
                await ring.kernel.answer(one.id, yes=yes, by=Operator(name="bench"))
        for left in await ring.kernel.store.runs(states=LIVE, most=10_000):
            if left.paused_by:  # Several noes in a row: somebody has to let it go on.
                with contextlib.suppress(Ring0Error):
                    await ring.kernel.resume(left.id, by="bench")
        await asyncio.sleep(0.005)


async def _played(data: bytes) -> list[Replayed]:
    return await play(data, Runtime(), agent=graphs.graph)


async def _again(seen: Seen, seed: int, task: str, data: bytes) -> None:
    found = await _played(data)
    seen.replayed += 1
    seen.runs += len(found)
    seen.calls += sum(one.matched for one in found)
    seen.size_bytes += len(data)
    seen.programs.add(task.encode())
    seen.differ += [f"seed {seed}: {one.run}: {one.divergence}" for one in found if not one.ok]


async def _changed(seen: Seen, seed: int, task: str, data: bytes) -> None:
    """One thing is changed in the agent; the replay has to say at which call that was."""
    dice = random.Random(f"change {seed}")
    steps = msgspec.json.decode(task)
    found = graphs.places(steps)
    if not found:
        return
    how = graphs.HOWS[seed % len(graphs.HOWS)]
    graphs.CHANGES[task] = how, dice.choice(found)
    try:
        first, *_ = await _played(data)
    finally:
        where = graphs.CHANGES.pop(task)
    at = "" if how == "result" else graphs.CHANGED_AT.pop(first.run, "never reached")
    seen.tried[how] += 1
    if not first.ok and (first.at == at or (how == "result" and "result" in first.divergence)):
        seen.located += 1
    else:
        seen.lost.append(f"seed {seed}: {where} at {at}: told {first.at!r}: {first.divergence}")


def measure(seeds: int, changed: int, jobs: int, first: int = 0) -> tuple[Seen, float]:
    """All of it, shared out to so many processes; and how long it took."""
    began = time.monotonic()
    starts = range(first, first + seeds, OF_A_KERNEL)
    each = -(-changed // len(starts))
    work = [(at, min(at + OF_A_KERNEL, first + seeds), each) for at in starts]
    seen = Seen()
    if jobs == 1:
        for one in work:
            seen.add(batch(one))
    else:
        with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
            for part in pool.imap_unordered(batch, work):
                seen.add(part)
                sys.stderr.writelines(f"\n{one}\n" for one in part.differ + part.lost)
                told = (
                    f"{seen.replayed} of {seeds}: {len(seen.differ)} differ, {len(seen.lost)} lost"
                )
                sys.stderr.write(f"\r{told}" if sys.stderr.isatty() else f"{told}\n")
    return seen, time.monotonic() - began


def run(seeds: int = SEEDS, changed: int = CHANGED, jobs: int = 2) -> list[Row]:
    seen, took_s = measure(seeds, changed, jobs)
    total = sum(seen.tried.values())
    rows = [
        row("run graphs replayed from their cassettes", seen.replayed, "", seen.replayed),
        row("of them different", len(seen.programs), "", seen.replayed),
        row("runs in them, children too", seen.runs, "", seen.runs),
        row("calls recalled", seen.calls, "", seen.calls),
        row("runs that came out otherwise by a byte", len(seen.differ), "", seen.runs),
        row("changes located at the very call", seen.located, f"of {total}", total),
        row("cassettes", seen.size_bytes / seen.replayed, "bytes each", seen.replayed),
        row("all of it", took_s, "s", seen.replayed),
    ]
    lines = [f" {count:9}  {name}" for name, count in sorted(seen.kinds.items())]
    lines += [f" changed: {name} {count}" for name, count in sorted(seen.tried.items())]
    lines += [f" DIFFERS {one}" for one in seen.differ[:20]]
    lines += [f" NOT LOCATED {one}" for one in seen.lost[:20]]
    return rows + [row(line, 0, "", 0) for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--changed", type=int, default=CHANGED)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    rows: list[Any] = run(given.seeds, given.changed, given.jobs)
    for one in rows:
        told = one["name"] if one["name"].startswith(" ") else ""
        print(told or f"{one['name']:45} {one['value']:>14,} {one['unit']}")
    by_name = {one["name"]: one for one in rows}
    located = by_name["changes located at the very call"]
    whole = located["value"] == located["n"]
    return int(by_name["runs that came out otherwise by a byte"]["value"] > 0 or not whole)


if __name__ == "__main__":
    sys.exit(main())
