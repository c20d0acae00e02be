"""From a row to a process: runs that are new, woken or recovered are started when it is their turn.

A start belongs to nobody who asked for it: who asked may go away, and the run begins all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ring0.errors import Ring0Error, RunDead, StoreFailed, StoreFull
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent
from ring0.kernel.agent.manifests import SchedulerTable
from ring0.kernel.life.queueing import ALONE, Beside, Queueing
from ring0.kernel.life.starting import Starts
from ring0.types import LIVE, Mode, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.life.runs import Runs


class Next:
    """What is known of a run that waits for its turn, or is being started."""

    __slots__ = ("agent", "known")

    def __init__(self, agent: Agent | None, known: frozenset[str] = frozenset()) -> None:
        self.agent = agent
        """None: it is read from the run's rows when it starts."""
        self.known = known
        """What it can go on with (`reasons`)."""


class Beginning:
    """Starts the runs of one kernel."""

    def __init__(self, runs: Runs, queueing: Queueing, scheduler: SchedulerTable) -> None:
        self._runs = runs
        self._queueing = queueing
        weights = {tenant: one.weight for tenant, one in scheduler.tenants.items()}
        self.starts = Starts(
            runs.runtime, self._granted, at_work_max=scheduler.runs_at_work, weights=weights
        )
        self._next: dict[str, Next] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def has(self, run: str) -> bool:
        """It waits for its turn, or is being started."""
        return run in self._next or run in self._under_way

    async def new(
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
        """Writes a run down, and starts it where it is its turn. Raises Busy, InvalidInput,
        GuardFailed (of its parent), and what keeps it from starting: then it has failed."""
        row, write = await self._queueing.row(
            agent, task, principal=principal, tenant=tenant, parent=parent, run=run, beside=beside
        )
        now = agent.operator or self.starts.new(row)  # A person's own never waits.
        try:
            await self._runs.store.append(write)
        except BaseException:
            self.starts.leave(row.id)
            raise
        self._runs.runtime.reached("run.queued")
        self._runs.gate.spending.queued(row)
        self._next[row.id] = Next(agent)
        await self._now_or_later(row, now or not self.starts.waits(row.id))
        return row

    def woken(self, row: Run, agent: Agent | None, known: frozenset[str]) -> None:
        """A run that began before is to be started again, before all new ones."""
        if self.has(row.id):
            return
        self._next[row.id] = Next(agent, known)
        if self.starts.woken(row):
            self._granted(row.id)
        else:
            self._runs.waking.alarms.set(row.id, row.deadline_us)

    async def recovered(self, row: Run, agent: Agent) -> None:
        """A run that a crash cut off, or left in the queue. Raises what keeps it from starting."""
        self._next[row.id] = Next(agent)
        queued = row.state is RunState.QUEUED
        now = agent.operator
        now = now or (self.starts.new(row, again=True) if queued else self.starts.woken(row))
        await self._now_or_later(row, now)

    def forget(self, run: str) -> None:
        """It has ended."""
        if run not in self._under_way:
            self._next.pop(run, None)

    async def stop(self) -> None:
        """Starts nothing more."""
        self._next.clear()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- when it is its turn ------------------------------------------------------------------

    async def _now_or_later(self, row: Run, now: bool) -> None:
        if not now:
            self._runs.waking.alarms.set(row.id, row.deadline_us)
        elif (task := self._start(row.id)) is not None:
            await asyncio.shield(task)

    def _granted(self, run: str) -> None:
        """Its turn has come. While it is still being written down, `new` sees to it."""
        self._start(run)

    def _start(self, run: str) -> asyncio.Task[None] | None:
        if run in self._next and run not in self._under_way:
            task = self._runs.runtime.start(self._in_turn(run), name=f"start of {run}")
            self._under_way[run] = task
            task.add_done_callback(lambda _: self._over(run))
        return self._under_way.get(run)

    def _over(self, run: str) -> None:
        task = self._under_way.pop(run)
        self._next.pop(run, None)
        if not task.cancelled():
            task.exception()  # Retrieved: where nobody waited for it, `ends` has it.
        if run not in self._runs.at_work():
            self.starts.leave(run)

    async def _in_turn(self, run: str) -> None:
        todo = self._next[run]
        await self._runs.store.flush()
        row = await self._runs.store.run(run)
        if row is None or row.state not in LIVE:
            return
        try:
            agent = todo.agent or await self._agent_of(row)
            await self._runs.start(row, agent, todo.known)
        except RunDead:
            raise
        except (StoreFull, StoreFailed):
            self._runs.waking.again(run)
            raise
        except Ring0Error as error:
            await self._not_started(row, error)
            raise

    async def _not_started(self, row: Run, error: Ring0Error) -> None:
        """One that never began has failed; one that did stays as its row says, for a later try."""
        if row.state is RunState.QUEUED:
            await self._runs.ending.end(row.id, RunState.FAILED, error=error)
        else:
            self._runs.not_recovered[row.id] = error
            self._runs.ends.kept(row.id, error)
            self._runs.waking.again(row.id, row.deadline_us)

    async def _agent_of(self, row: Run) -> Agent:
        family = await agents.family_of(self._runs.store, row.id)
        if row.mode is Mode.ISOLATED:
            return agents.restore(family, row.agent_digest, self._runs.folder)
        away = self._runs.waking.away.get(row.id)
        if away is None or away.functions is None:
            raise RunDead(f"{row.id} is not started.", why="Its code is not here.", todo="Nothing.")
        return Agent(family, row.agent_digest, functions=away.functions)
