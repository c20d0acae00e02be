"""A run's life: begun, started, carried on, put away and woken, stopped.

How a run is written down is queueing.py; whose turn it is, starting.py; when one that waits as a
row goes on, waking.py; how one ends, ending.py. Here is what those have in common: the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import (
    LimitReached,
    Ring0Error,
    RunDead,
)
from ring0.kernel.agent import agents, processes
from ring0.kernel.agent.agents import Agent
from ring0.kernel.agent.manifests import SchedulerTable
from ring0.kernel.gate import Gate
from ring0.kernel.life import reasons
from ring0.kernel.life.beginning import Beginning
from ring0.kernel.life.carrying import Carrying
from ring0.kernel.life.children import Children
from ring0.kernel.life.ending import Ending, Ends
from ring0.kernel.life.freezing import Freezing
from ring0.kernel.life.granting import Granting
from ring0.kernel.life.queueing import ALONE, Beside, Queueing
from ring0.kernel.life.waking import Waking
from ring0.kernel.live import LiveRun, Stop
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.tools import registry
from ring0.tools.driver import CallContext
from ring0.tools.functions import EmbeddedFunction
from ring0.tools.registry import Means, Tool
from ring0.tools.sandbox import Sandbox
from ring0.types import ENDED, LIVE, Integrity, Label, Mode, Run, RunState

_AT_ONCE = limits.RUNS_LOOKED_AT_ONCE_MAX


class OpenDoor(Protocol):
    """A door that can be shut."""

    async def close(self) -> None: ...


Doors = Callable[[LiveRun, Sandbox], Awaitable[OpenDoor]]
"""Serves a run's listeners. Given by whoever boots the kernel: the gateway lies above it."""
Embed = Callable[[LiveRun, Callable[..., Any]], Awaitable[Any]]
"""Runs an agent function in this process. Given likewise: the SDK lies above the kernel."""
Heard = Callable[[str, str], None]
"""(run, text): what an agent's process prints, as it comes."""


class Runs:
    """Starts runs and sees them to their end."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        gate: Gate,
        sandboxes: Sandboxes,
        folder: Path,
        means: Means,
        doors: Doors | None,
        embed: Embed | None,
        scheduler: SchedulerTable = SchedulerTable(),  # noqa: B008  (frozen)
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.gate = gate
        self.sandboxes = sandboxes
        self.folder = folder
        self.means = means
        self.doors = doors
        self.embed = embed
        self.heard: Heard | None = None
        self.own: dict[str, Callable[[LiveRun], Awaitable[Any]]] = {}
        """What carries out each of the kernel's own agents (`Family.kernels`)."""
        self.after: Callable[[LiveRun], None] | None = None
        """Is told of each run whose process has come to its end here."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self.seen: Callable[[Run], None] | None = None
        """Is told of each run that was started, or has ended."""
        self.models: frozenset[str] = frozenset()
        """Names of the operator's models: every agent may ask for them."""
        self.environment: dict[str, str] = {}
        """What every isolated agent's process gets beside its own."""
        self.granting: Granting | None = None
        """Who knows what principals may ask for. None: nobody narrows them."""
        self.park_after_s: float = limits.PARK_AFTER_S
        self.not_recovered: dict[str, Ring0Error] = {}
        """Runs that could not be started again, and why; until they are."""
        self.ends = Ends(store)
        self.children = Children(self)
        queueing = Queueing(store, runtime, gate.secrets, folder)
        self.beginning = Beginning(self, queueing, scheduler)
        self.carrying = Carrying(self)
        self.waking = Waking(self)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """What carries each run on whose process stands here."""
        self.ending = Ending(
            gate, sandboxes, self.ends, self._tasks.get, self._has_ended, self._show
        )
        self.freezing = Freezing(runtime, lambda: list(self.gate.live.values()), self.stop_frozen)
        self._resident: set[str] = set()
        """Runs that wait, with a process that can't be put away."""

    # --- beginning ----------------------------------------------------------------------------

    async def begin(
        self,
        agent: Agent,
        task: str,
        *,
        principal: str,
        tenant: str,
        parent: Run | None = None,
        run: str = "",
        beside: Beside = ALONE,
    ) -> Run:
        """Writes a new run down and starts it when its turn comes. Raises Busy, InvalidInput,
        GuardFailed (of its parent, of what is written `beside` it), and what keeps it from starting
        where its turn is now."""
        return await self.beginning.new(
            agent, task, principal=principal, tenant=tenant, parent=parent, run=run, beside=beside
        )

    async def start(self, row: Run, agent: Agent, known: frozenset[str] = frozenset()) -> None:
        """Starts a run under a new epoch: one that is queued, was put away, or was cut off.

        Raises RunDead where it has ended or a kill reached it: then it has ended.
        """
        assert row.state in LIVE and row.id not in self._tasks
        tools = self.tools(agent)  # Before anything is written: what can't start stays as it is.
        self._check_not_ending(row.id)
        epoch = row.epoch + 1
        try:
            await self.store.append(
                Write(
                    run=row.id,
                    durable=True,
                    guards=[
                        base.RunLive(run=row.id, epoch=row.epoch),
                        base.NotKilled(run=row.id),
                    ],
                    events=[ev.RunMoved(state=RunState.RUNNING, epoch=epoch)],
                )
            )
        except GuardFailed as failure:
            dead = RunDead(f"{row.id} is not started.", why=failure.detail, todo="Start a new run.")
            await self.ending.end(row.id, RunState.CANCELLED, error=dead, by="a kill")
            raise dead from None
        self.runtime.reached("run.started")
        live = await self._live_run(row, epoch, agent, tools)
        now = await self.store.run(row.id)
        # From here to the end nothing is awaited: an end that begins later finds it at work.
        if now is None or now.state in ENDED or self.ending.has_begun(row.id):
            self.gate.handles.kill(row.id)
            await live.stop_calls()  # So that it leaves its tree.
            self._check_not_ending(row.id, ended=True)
        assert now is not None
        live.row = replace(now, state=RunState.RUNNING, waiting_for="", wake_us=0, epoch=epoch)
        live.paused_by = now.paused_by
        self.waking.away.pop(row.id, None)
        self.waking.alarms.set(row.id, now.deadline_us)
        self.gate.live[row.id] = live
        self.ends.goes_on(row.id)
        self.not_recovered.pop(row.id, None)
        self._tasks[row.id] = self.runtime.start(
            self.carrying.live(live, known), name=f"run {row.id}"
        )
        if self.seen is not None:
            self.seen(live.row)

    def _check_not_ending(self, run: str, *, ended: bool = False) -> None:
        """Raises RunDead."""
        if ended or self.ending.has_begun(run):
            raise RunDead(f"{run} is not started.", why="It is being ended.", todo="Nothing.")

    async def _live_run(self, row: Run, epoch: int, agent: Agent, tools: list[Tool]) -> LiveRun:
        run = LiveRun(
            replace(row, state=RunState.RUNNING, waiting_for="", epoch=epoch),
            await self.store.run_key(row.id),
            agent,
            tools,
            self.gate.handles.mint(row.id, epoch),
            self.store,
            records=await self.store.calls(row.id),
            approvals=await self.store.approvals(run=row.id),
        )
        if self.granting is not None:
            run.narrowed = self.granting.of(row, operator=agent.operator)
        run.models |= self.models
        run.on_change = self._changed
        await self.gate.trees.join(run)
        task = (await self.store.blob(row.task)).decode()
        # The label that the task came with: the run's own may have fallen since.
        began = await agents.queued(self.store, row.id)
        label = began.run.label
        if row.parent:  # A child's task is a run's word, not a principal's.
            label = label.join(Label(integrity=Integrity.UNTRUSTED, sources=(row.parent,)))
        run.seen.begin(row.started_us)
        run.seen.add("task", label, task)
        return run

    def tools(self, agent: Agent) -> list[Tool]:
        """All that the agent's manifest names, with schemas compiled. Raises ManifestInvalid."""
        manifest = agent.manifest
        means = self.means.of(manifest.name)
        drivers = list(registry.built_in(manifest.tools, Path(manifest.folder), means))
        if agent.family.mode is Mode.ISOLATED and manifest.functions:
            drivers += processes.functions(agent, self.sandboxes, self.means)
        elif manifest.functions:
            drivers += [
                EmbeddedFunction(tool, agent.functions[f"tool:{tool.name}"])
                for tool in manifest.functions
            ]
        return [Tool(driver) for driver in drivers]

    # --- waiting ------------------------------------------------------------------------------

    def _changed(self, run: LiveRun) -> None:
        """It begins to wait with all that it has under way, or goes on."""
        if run.id not in self._tasks or run.stopped.done():
            return
        if not run.waiting:
            self._resident.discard(run.id)
            self.waking.alarms.busy(run.id)
            if not run.agent.operator:
                self.beginning.starts.goes_on(run.row)
            return
        if run.pathless:
            self._resident.add(run.id)
        else:
            until_us = self.runtime.monotonic_us() + int(self.park_after_s * 1_000_000)
            self.waking.alarms.idle(run.id, until_us)
        self.beginning.starts.leave(run.id)

    def check_room(self, run: LiveRun) -> None:
        """Raises LimitReached where one more process would wait that can't be put away."""
        most = limits.RUNS_RESIDENT_WAITING_MAX
        if run.strict or not run.pathless or run.id in self._resident or len(self._resident) < most:
            return
        raise LimitReached(
            f"{most} processes wait already that can't be put away.",
            why="A process that gives no task paths can't be started again, so it stays.",
            todo="Use the SDK, or answer what the others wait for (`ring0 ps`, `ring0 approvals`).",
        )

    def put_away(self, run: str) -> None:
        """It has waited for long enough. Nothing is awaited between the look and the stop: whoever
        would have woken one of its calls from here on finds the row."""
        live = self.gate.live.get(run)
        if live is not None and live.may_be_put_away() and not self.ending.has_begun(run):
            self.gate.handles.kill(run)
            live.stop(Stop.AWAY)

    async def sleep(self, context: CallContext, until_us: int) -> None:
        """The call `sleep`. A short one is no waiting."""
        left_us = until_us - self.runtime.now_us()
        if left_us < limits.TIMER_WRITTEN_S_MIN * 1_000_000:
            await self.runtime.sleep(max(0, left_us) / 1_000_000)
            return
        async with self.gate.waiting.state(self.gate.live[context.run.id], "timer", until_us):
            await self.runtime.sleep(left_us / 1_000_000)

    # --- stopping -----------------------------------------------------------------------------

    def stop_over(self, run: str) -> bool:
        """Its deadline has come: stops its process, if it has one here."""
        live = self.gate.live.get(run)
        if live is not None and run in self._tasks:
            live.stop(Stop.OVER)
        return run in self._tasks

    def stop_frozen(self, run: str) -> None:
        """Its process stands still: it is killed, and the run goes on by replay."""
        live = self.gate.live.get(run)
        if live is not None and not live.stopped.done():
            self.gate.handles.kill(run)
            live.stop(Stop.FROZEN)

    async def cancel(self, run: str, *, by: str) -> None:
        """Ends a run from outside, with all beneath it."""
        await self.ending.cancel(run, by=by)

    async def end_all(self, runs: list[str], *, by: str) -> None:
        """Ends these and all beneath them: first what is at work, then what are only rows."""
        for begin in range(0, len(here := [run for run in runs if self.is_here(run)]), _AT_ONCE):
            batch = here[begin : begin + _AT_ONCE]
            await asyncio.gather(*(self.ending.cancel(run, by=by) for run in batch))
        await self.store.flush()
        left = await self.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
        doomed = set(runs)
        rows = []
        for row in sorted(left, key=lambda row: row.depth):
            if row.id in doomed or row.parent in doomed:
                doomed.add(row.id)
                rows.append(row)
        for row in reversed(rows):  # Those at work beneath a row: they end before it does.
            if self.is_here(row.id):
                await self.ending.cancel(row.id, by=by)
        await self.ending.end_rows([row for row in rows if not self.is_here(row.id)], by=by)
        await self.store.flush()
        for row in rows:  # What was started, or stopped waiting, in the meantime.
            now = await self.store.run(row.id)
            if now is not None and now.state in LIVE:
                await self.ending.cancel(row.id, by=by)

    def _has_ended(self, row: Run) -> None:
        self.carrying.forget(row.id)
        self.not_recovered.pop(row.id, None)
        self.beginning.forget(row.id)
        if row.id not in self._tasks:
            self.beginning.starts.leave(row.id)
        self.waking.drop(row.id)
        if row.parent:
            self.waking.wake(row.parent)

    def _show(self, row: Run) -> None:
        if self.seen is not None:
            self.seen(row)

    def go_on(self, row: Run, known: frozenset[str]) -> None:
        """A run that is put away is started again."""
        if not self.is_here(row.id):
            self.runtime.reached("run.woken")
            self.beginning.woken(row, None, known)

    def wake(self, run: str, *, anyway: bool = False) -> None:
        """Something happened for this run: if it was put away here, it goes on where it can."""
        self.waking.wake(run, anyway=anyway)

    async def wait(self, run: str) -> Run:
        """The run's row once it has ended. Raises what keeps it from ending here."""
        return await self.ends.of(run)

    def left(self, run: str) -> None:
        """Nothing carries it on here any more."""
        self._tasks.pop(run, None)
        self._resident.discard(run)

    def at_work(self) -> frozenset[str]:
        """Runs whose process goes on here."""
        return frozenset(self._tasks)

    def is_here(self, run: str) -> bool:
        """It is carried on here, or is about to be: it is more than a row."""
        return run in self._tasks or self.beginning.has(run)

    async def stuck(self) -> dict[str, str]:
        """Runs that have not ended, and that nobody and nothing will ever carry on: none, ever,
        of those that this kernel has begun or taken on. For tests and the simulator."""
        return await reasons.stuck(self)

    async def stop(self) -> None:
        """Stops all runs without ending them: a later kernel recovers them."""
        for close in self.closing:
            await close()
        await self.waking.alarms.close()
        await self.freezing.close()
        await self.beginning.stop()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
