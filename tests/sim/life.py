"""One kernel of a simulation, from its boot to its end: a stop, a death, or the end of all runs."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from ring0.errors import Ring0Error, StoreFailed, StoreFull
from ring0.kernel import boot
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.sdk.runner import run_agent
from ring0.tools.registry import Tool
from ring0.types import LIVE, AgentManifest, Mode
from sim.checks import SLACK_S
from sim.loop import Deadlock, SimulatedLoop
from sim.outside import SimulatedTool
from sim.people import Operator, Person
from sim.plan import AGENTS, Task, manifest
from sim.programs import UnreliableDoor, carry_out, encoded

if TYPE_CHECKING:
    from sim.world import World

TURNS_MAX = 400_000
"""Of one kernel's loop: a simulation that takes more goes round in circles."""


class SimulatedRuntime(Runtime):
    """Time from the simulated clock, randomness from the seed, no threads."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_us(self) -> int:
        return self._world.clock.wall_us()

    def monotonic_us(self) -> int:
        return self._world.clock.monotonic_us()

    def cpu_us(self) -> int:
        return self._world.clock.monotonic_us()

    def random_bytes(self, count: int) -> bytes:
        return self._world.dice.randbytes(count)

    def reached(self, point: str) -> None:
        self._world.seen(f"point {point}")
        self._world.moment(point)

    async def in_thread(self, function: Any, *args: object) -> Any:
        await self._world.pause("a thread", 0.005)
        return function(*args)


class Life:
    """One kernel, from its boot to its end."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.kernel: Any = None
        self.dead = False
        self.stopping = False
        self.changed = asyncio.Event()
        """Something came on disk since people looked last."""
        self.locks: list[int] = []
        self._moments: Counter[str] = Counter()
        deaths = world.plan.deaths
        self.death = deaths[number] if number < len(deaths) else None
        self._starting: asyncio.Lock | None = None
        self.done = False

    # --- its end ------------------------------------------------------------------------------

    def moment(self, name: str) -> None:
        self._moments[name] += 1
        if name == "on disk":
            self.changed.set()
        if not self.dead and self.death == (name, self._moments[name]):
            self.die(f"moment {name}")

    def die(self, how: str) -> None:
        """kill -9, or the power goes: nothing is written any more, nobody hears anything."""
        if self.dead:
            return
        self.dead = True
        self.world.seen(f"death at {how}")
        self.world.tell(f"death at {how} {self._moments[how.partition(' ')[2]]}")
        assert self.world.disk.writer is not None
        self.world.disk.writer.dead = True
        asyncio.get_running_loop().stop()

    def stop(self) -> None:
        """Asks the kernel to stop as it does for a new version."""
        self.stopping = True
        self.changed.set()

    # --- its course ---------------------------------------------------------------------------

    async def news(self, most_s: float) -> bool:
        """Returns a while after something has happened (True), or when nothing does for long."""
        try:
            await asyncio.wait_for(self.changed.wait(), 30.0)
        except TimeoutError:
            return False
        await self.world.pause("until somebody looks", most_s, least_s=0.05)
        self.changed.clear()
        return True

    def run(self) -> str:
        world = self.world
        world.life, world.life_number = self, self.number
        world.tell("a kernel boots")
        loop = SimulatedLoop(world.clock)
        loop.turns_max = TURNS_MAX
        try:
            return loop.run_until_complete(self._main())
        except RuntimeError:
            if not self.dead:
                raise
            return "died"
        except Deadlock as error:
            world.checks.found("nobody waits for ever", str(error)[:6_000])
            self.dead = True
            return "stuck"
        finally:
            gc.collect()  # Whatever nobody holds any more is found here, the same in every run.
            for said in loop.unheard:
                world.checks.found("no exception goes unheard", said)
            if self.dead:
                loop.drop()
                world.disk.die()
                for lock in self.locks:
                    os.close(lock)
            else:
                loop.close()
            world.disk.writer = world.disk.store = world.disk._reader = None

    async def _main(self) -> str:
        world = self.world
        self.changed = asyncio.Event()
        self._starting = asyncio.Lock()
        if self.death is not None and self.death[0] == "time":
            asyncio.get_running_loop().call_later(self.death[1], self.die, "time")
        for at_s, _ in world.outside.posted:
            asyncio.get_running_loop().call_at(at_s, world.outside.arrive)
        try:
            kernel = self.kernel = await boot.open_kernel(
                world.disk.folder, SimulatedRuntime(world), {}, embed=self._embed
            )
        except (StoreFull, StoreFailed):
            return "not booted"
        kernel.runs.tools = self._tools
        kernel.runs.park_after_s = world.plan.park_after_s
        kernel.runs.beginning.starts._queue._sizes["run"] = world.plan.at_work_max
        try:
            await kernel.recover(self._agent("nobody", ()))
        except Ring0Error as error:
            if not world.disk.failed:
                world.checks.found("every run is recovered", repr(error))
        for run, error in kernel.runs.not_recovered.items():
            world.checks.found("every run is recovered", f"{run}: {error!r}")
        tasks = [asyncio.ensure_future(self._operate()), asyncio.ensure_future(self._answer())]
        tasks += [asyncio.ensure_future(self._submit(task)) for task in world.plan.tasks]
        why = await self._watch(tasks[2:])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if why == "done":
            await asyncio.sleep(1)  # Whoever was told of the last end has done with it.
            world.checks.idle(kernel)
        await kernel.close()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if names := sorted(task.get_name() for task in left):
            world.checks.found(
                "a kernel that stops leaves nothing behind",
                f"{names}\n{asyncio.get_running_loop().stacks()}",
            )
        return why

    async def _watch(self, submitted: list[asyncio.Future[None]]) -> str:
        """Until all has ended, or the kernel is over."""
        world, kernel, looks = self.world, self.kernel, 0
        while True:
            quiet = not await self.news(1.0)
            if self.stopping:
                return "stopped"
            if world.disk.failed:
                world.seen("store failed")
                return "failed"
            live = await kernel.store.runs(states=LIVE, most=10_000)
            if not live and all(one.done() for one in submitted):
                try:
                    for one in submitted:
                        one.result()
                except (StoreFull, StoreFailed):
                    continue  # The disk fails just now.
                return "done"
            looks += 1
            if quiet or looks % 16 == 0:
                await world.checks.moment(kernel)
            now_us = world.clock.wall_us()
            for row in live:
                if now_us > row.deadline_us + SLACK_S * 1_000_000:
                    world.checks.found(
                        "a run ends by its deadline",
                        f"{row.id} is {row.state} {row.waiting_for}\n"
                        + asyncio.get_running_loop().stacks()[:8_000],  # type: ignore[attr-defined]
                    )
                    return "stuck"

    # --- what it is given ---------------------------------------------------------------------

    def _tools(self, agent: Agent) -> list[Tool]:
        return [Tool(SimulatedTool(self.world, one)) for one in agent.manifest.functions]

    def _agent(self, name: str, others: tuple[AgentManifest, ...], **more: Any) -> Agent:
        functions = {f"agent:{one}": carry_out for one in AGENTS}
        one = more.get("manifest") or AgentManifest(name=name)
        family = Family(manifest=one, others=others, mode=Mode.EMBEDDED)
        return Agent(family, "embedded", functions=functions)

    async def _embed(self, run: LiveRun, function: Any) -> Any:
        door = UnreliableDoor(self.world, self.kernel, run)
        info = await door.describe()
        self.world.names[run.id] = msgspec.json.decode(info.task)["name"]
        return await run_agent(function, door, info, SimulatedRuntime(self.world))

    # --- what happens -------------------------------------------------------------------------

    async def _submit(self, task: Task) -> None:
        """Starts a task, unless an earlier kernel has it on record."""
        world, kernel = self.world, self.kernel
        await asyncio.sleep(max(0.0, task.at_s - world.clock.now_s))
        assert self._starting is not None
        async with self._starting:
            await kernel.store.flush()
            if task.name in await self._names():
                return
            functions = {f"agent:{one}": carry_out for one in AGENTS}
            kernel.config.tenant = task.tenant
            others = tuple(manifest(name, task) for name in AGENTS if name != task.agent)
            own = manifest(task.agent, task)
            said = encoded(task.name, task.program)
            try:
                row = await kernel.start_embedded(own, others, functions, said, principal="pat")
                world.names[row.id] = task.name
            except Ring0Error as error:
                world.seen(f"not started: {type(error).__name__}")

    async def _names(self) -> set[str]:
        """Of the tasks that are on record."""
        store = self.kernel.store
        found = set()
        for row in await store.runs(most=10_000):
            if not row.parent:
                found.add(msgspec.json.decode(await store.blob(row.task))["name"])
        return found

    async def _operate(self) -> None:
        world = self.world
        operator = Operator(world, self)
        going: list[asyncio.Future[None]] = []
        try:
            while world.deeds:
                deed = world.deeds[0]
                await asyncio.sleep(max(0.0, deed.at_s - world.clock.now_s))
                world.deeds.remove(deed)
                going.append(asyncio.ensure_future(operator.do(deed)))
            for one in await asyncio.gather(*going, return_exceptions=True):
                if isinstance(one, Exception) and not isinstance(one, Ring0Error):
                    raise one
        finally:
            for one in going:
                one.cancel()

    async def _answer(self) -> None:
        await Person(self.world, self).work()
