"""One seed, from its first kernel to its last, and then the checks: `simulate(seed)`.

Nothing in it waits: it takes as long as its work.
"""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ring0.store.sqlite.store import SqliteStore
from ring0.store.sqlite.tables import decode
from sim.checks import Checks
from sim.disk import Disk, scratch
from sim.instead import instead
from sim.life import Life
from sim.loop import Clock, SimulatedLoop
from sim.outside import Outside
from sim.plan import POLICY, Plan, Planner

LIVES_MAX = 40
TWIN_EVERY = 3
"""So often a seed is run a second time, in a calm world."""


@dataclass
class Report:
    """What came of a seed."""

    seed: int
    violations: list[str]
    seen: Counter[str]
    events: int = 0
    lives: int = 0
    seconds: float = 0.0
    """Of simulated time."""
    root: str = ""
    """Of the Merkle tree: equal journals have equal roots."""
    results: dict[str, Any] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)


class World:
    """All of one seed that outlives a kernel."""

    def __init__(self, plan: Plan, folder: Path, *, tracing: bool = False) -> None:
        self.seed = plan.seed
        self.plan = plan
        self.clock = Clock()
        self.dice = random.Random(f"world {plan.seed}")
        self.disk = Disk(folder, random.Random(f"disk {plan.seed}"))
        self.disk.watch(self.moment)
        self.outside = Outside(self)
        self.checks = Checks(self)
        self.coverage: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        """By run: the name that its task gives it, the same whatever its id."""
        self.jumped_s = -1_000.0
        """When the wall clock was set last."""
        self.life: Life | None = None
        self.life_number = 0
        self.trace: list[str] | None = [] if tracing else None
        self.deeds = sorted(plan.deeds, key=lambda deed: deed.at_s)

    def seen(self, what: str) -> None:
        self.coverage[what] += 1

    def tell(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.clock.now_s:12.6f} life {self.life_number}: {text}")

    def name_of(self, call: str) -> str:
        run, _, rest = call.partition("/")
        return f"{self.names.get(run, run)} {rest}"

    def price(self, run: str) -> int:
        """Of a token that goes in, micro-US-dollars."""
        root = self.names[run].partition(".")[0]
        return 0 if any(task.plain for task in self.plan.tasks if task.name == root) else 1

    async def pause(self, what: str, most_s: float, *, least_s: float = 0.0) -> None:
        """Something takes a while."""
        await asyncio.sleep(least_s + self.dice.random() ** 2 * most_s)

    def moment(self, name: str) -> None:
        """A point at which a kernel may die."""
        if self.life is not None:
            self.life.moment(name)

    def on_disk(self, table: str, key: str) -> Any:
        """A row as it stands on disk."""
        assert self.disk._reader is not None
        found = self.disk._reader.execute(
            f"SELECT row FROM {table} WHERE key = ?", (key,)
        ).fetchall()
        return decode(table, found[0][0]) if found else None

    def locks_on(self, tenant: str, resource: str) -> list[Any]:
        """As they stand on disk."""
        assert self.disk._reader is not None
        statement = "SELECT row FROM lock WHERE tenant = ? AND resource = ?"
        rows = self.disk._reader.execute(statement, (tenant, resource)).fetchall()
        return [decode("lock", row) for (row,) in rows]

    def latest_us(self) -> int:
        """The journal's time."""
        assert self.disk.writer is not None
        return self.disk.writer.latest_us()

    def unknown(self) -> list[str]:
        """Calls of which nobody knows."""
        assert self.disk._reader is not None
        rows = self.disk._reader.execute(
            "SELECT key FROM call WHERE state = 'unknown' ORDER BY key"
        )
        return [key for (key,) in rows.fetchall()]


def simulate(seed: int, *, tracing: bool = False, twin: bool = True) -> Report:
    """All of one seed. `twin`: its plain tasks are held against the same in a calm world."""
    plan = Planner(seed).plan()
    report = _simulate(plan, tracing)
    plain = {task.name for task in plan.tasks if task.plain}
    scarce = "caps" in plan.config or any(deed.what.startswith("kill") for deed in plan.deeds)
    if twin and plain and not plan.calm and not scarce and seed % TWIN_EVERY == 0:
        _compare(report, _simulate(Planner(seed).calm(), False), plain)
    return report


def _compare(report: Report, calm: Report, plain: set[str]) -> None:
    """Faults change when a plain run ends, or that it does not: never what it comes to."""
    report.violations += [f"calm: {one}" for one in calm.violations]
    for name, (state, body) in report.results.items():
        if name.partition(".")[0] not in plain or state != "done":
            continue
        report.seen["run held against its calm twin"] += 1
        if (other := calm.results.get(name)) is None or other[0] != "done":
            continue  # There it had no time.
        if other[1] != body:
            what = f"{name}: {body} and not {other[1]}"
            report.violations.append(f"faults do not change what a plain run comes to: {what}")


def _simulate(plan: Plan, tracing: bool) -> Report:
    sys.unraisablehook, heard = _unheard, sys.unraisablehook
    collects = gc.isenabled()
    gc.disable()
    folder = Path(tempfile.mkdtemp(prefix="ring0-sim-", dir=scratch()))
    try:
        world = World(plan, folder, tracing=tracing)
        (folder / "sim.cedar").write_text(POLICY)
        (folder / "ring0.toml").write_text('policy = ["sim.cedar"]\n' + plan.config)
        with instead(world):
            return _live(world)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        sys.unraisablehook = heard
        if collects:
            gc.enable()


def _unheard(what: Any) -> None:
    """A coroutine of a dead process that would have awaited something, had it lived."""


def _live(world: World) -> Report:
    lives = 0
    while lives < LIVES_MAX:
        how = Life(world, lives).run()
        lives += 1
        world.seen(f"a kernel ended: {how}")
        world.tell(f"the kernel's end: {how}")
        if how in ("done", "stuck"):
            break
        world.clock.now_s += world.dice.random() ** 2 * 20  # Until somebody starts it again.
        world.outside.arrive()
    else:
        world.checks.found("it comes to an end", f"{lives} kernels")
    world.clock.now_s += 60
    world.outside.arrive()
    report = Report(world.seed, world.checks.violations, world.coverage, lives=lives)
    loop = SimulatedLoop(world.clock)
    try:
        loop.run_until_complete(_judge(world, report))
    finally:
        loop.close()
    report.seconds = world.clock.now_s
    report.trace = world.trace or []
    return report


async def _judge(world: World, report: Report) -> None:
    store: SqliteStore = world.disk.reopen()
    await world.checks.final(store)
    head = await store.head()
    report.events, report.root = head.size, head.root
    for row in await store.runs(most=10_000):
        if row.result:
            body = msgspec.json.decode(await store.blob(row.result))
            report.results[world.names.get(row.id, row.id)] = [str(row.state), body]
    await store.close()
