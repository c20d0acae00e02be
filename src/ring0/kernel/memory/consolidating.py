"""A scope is consolidated by a run of its own, as durable and as bounded as any other.

What it does stands in consolidator.py, what it may do in the gate: it is an agent of the kernel's,
with the scope's tenant, principal and agent, no tools but the three of `duplicates.py`, the lowest
priority and a budget. When: an operator asks, or a run of the agent ends and its manifest says
that it is time (`[memory] consolidate`). How far it came is what the last one returned.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import NotFound, Ring0Error
from ring0.kernel.agent.agents import CONSOLIDATE, Agent, Family
from ring0.kernel.memory import consolidator, duplicates
from ring0.kernel.memory.manager import Memory
from ring0.tools.registry import Tool
from ring0.types import (
    LIVE,
    AgentManifest,
    Budget,
    Frozen,
    Mode,
    Owner,
    Run,
    RunState,
)

if TYPE_CHECKING:
    from ring0.kernel.life.runs import Runs
    from ring0.kernel.live import LiveRun

_DAY_US: Final = 86_400 * 1_000_000


class Task(Frozen, frozen=True, kw_only=True):
    """What such a run is given to do."""

    after: int = -1
    """The number of the last record that was looked at before."""
    model: str = ""
    """Reads what is new and states facts; empty: nobody does."""
    by: str = ""
    """An operator; empty: the manifest said that it is time."""


class Done(Frozen, frozen=True, kw_only=True):
    """What such a run returns."""

    upto: int
    records: int = 0
    """New ones that were looked at."""
    merged: int = 0
    """Records that say what another one says; that one counts from here on."""
    facts: int = 0
    procedures: int = 0
    dropped: int = 0
    """What the model said that could not be taken: without a source, of another form."""
    ended_us: int = 0


def agent(manifest: AgentManifest) -> Agent:
    """Its code is the kernel's own."""
    family = Family(manifest=manifest, mode=Mode.EMBEDDED, kernels=CONSOLIDATE)
    return Agent(family, CONSOLIDATE, functions={f"agent:{manifest.name}": consolidator.run})


def manifest_of(of: AgentManifest) -> AgentManifest:
    """Of its run: the scope's agent in name, its models and no more money than that has."""
    budget = Budget(
        calls=limits.CONSOLIDATE_CALLS,
        tokens=of.budget.tokens,
        cost_microusd=of.budget.cost_microusd,
        wall_s=limits.CONSOLIDATE_WALL_S,
        children=0,
        depth=0,
    )
    return AgentManifest(
        name=of.name,
        models=of.models,
        budget=budget,
        priority=limits.PRIORITY_LAST,
        folder=of.folder,
    )


class Consolidating:
    """Of one kernel."""

    def __init__(self, memory: Memory, runs: Runs) -> None:
        self._memory = memory
        self._store = memory.store
        self._runs = runs
        self._last: dict[Owner, Done] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        runs.own[CONSOLIDATE] = self.carry_out
        runs.after = self.ended
        runs.closing.append(self.close)

    # --- begun ----------------------------------------------------------------------------------

    async def begin(
        self, owner: Owner, manifest: AgentManifest, *, model: str = "", by: str = ""
    ) -> Run:
        """The run; the one that is under way already, where there is one. Raises NotFound where
        nothing is remembered, and what keeps a run from starting."""
        async with self._turn:
            return await self._begin(owner, manifest, model, by)

    async def _begin(self, owner: Owner, manifest: AgentManifest, model: str, by: str) -> Run:
        if (there := await self._under_way(owner)) is not None:
            return there
        records = await self._records(owner)
        if not records:
            raise NotFound(
                f"Nothing is remembered of {owner[2][:80]!r} for {owner[1][:80]!r}.",
                todo="`ring0 memory stats` lists the scopes.",
            )
        last = await self._done(owner)
        task = Task(after=last.upto if last else -1, model=model, by=by)
        return await self._runs.begin(
            agent(manifest_of(manifest)),
            msgspec.json.encode(task).decode(),
            principal=owner[1],
            tenant=owner[0],
        )

    def ended(self, run: LiveRun) -> None:
        """A run has ended here: it may be time."""
        said = run.agent.manifest.memory
        wanted = said.consolidate_after or said.consolidate_daily
        if run.row.parent or run.agent.family.kernels or not wanted:
            return
        task = self._memory.runtime.start(self._look(run), name=f"memory of {run.id}")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, run: LiveRun) -> None:
        """What keeps it from starting now may be gone when the next run ends."""
        row, manifest = run.row, run.agent.manifest
        owner = (row.tenant, row.principal, row.agent)
        with suppress(Ring0Error):
            if await self._is_time(owner, manifest):
                await self.begin(owner, manifest, model=manifest.memory.consolidate_model)

    async def _is_time(self, owner: Owner, manifest: AgentManifest) -> bool:
        said, last = manifest.memory, await self._done(owner)
        since_us = self._store.now_us() - (last.ended_us if last else 0)
        if said.consolidate_daily:
            return since_us >= _DAY_US
        new = await self._store.load_scope(owner, "", last.upto if last else -1)
        return len(new) >= said.consolidate_after

    async def close(self) -> None:
        for task in list(self._looking):
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    # --- carried out ----------------------------------------------------------------------------

    async def carry_out(self, run: LiveRun) -> Any:
        """From its beginning; what is on record already is recalled."""
        task = msgspec.json.decode(await self._store.blob(run.row.task), type=Task)
        for driver in duplicates.drivers(self._memory):
            run.tools[driver.manifest.name] = Tool(driver)
        said = await consolidator.run(run, self._runs.gate, task.after, task.model)
        done = replace(msgspec.convert(said, Done), ended_us=self._store.now_us())
        row = run.row
        self._last[row.tenant, row.principal, row.agent] = done
        return msgspec.structs.asdict(done)

    # --- what was before ------------------------------------------------------------------------

    async def _done(self, owner: Owner) -> Done | None:
        """What the last one returned; None: there was none, or nobody can read it any more. Then it
        begins anew: what is done twice is done once."""
        if owner in self._last:
            return self._last[owner]
        for row in await self._of(owner, (RunState.DONE,)):
            with suppress(Ring0Error, msgspec.MsgspecError):
                said = msgspec.json.decode(await self._store.blob(row.result))
                found = msgspec.convert(said["value"], Done)
                self._last[owner] = found
                if len(self._last) > limits.SCOPES_KEPT_MAX:
                    del self._last[next(iter(self._last))]
                return found
        return None

    async def _under_way(self, owner: Owner) -> Run | None:
        return next(iter(await self._of(owner, tuple(LIVE))), None)

    async def _of(self, owner: Owner, states: tuple[RunState, ...]) -> list[Run]:
        """The newest first, as far back as runs are listed."""
        await self._store.flush()
        rows = await self._store.runs(states=states, most=limits.RUNS_LISTED_MAX)
        return [
            row
            for row in rows
            if row.agent_digest == CONSOLIDATE and (row.tenant, row.principal, row.agent) == owner
        ]

    async def _records(self, owner: Owner) -> int:
        found = await self._store.scopes()
        return next((one.records for one in found if one.owner == owner), 0)
