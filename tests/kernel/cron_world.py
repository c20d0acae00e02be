"""Crons on a clock that jumps: real store, real rows and guards, runs that are written down and
ended by the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ring0.guardrails import Secrets
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.life.firing import Firing
from ring0.kernel.life.orders import Orders, Told
from ring0.kernel.life.queueing import Queueing
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore, open_store
from ring0.types import AgentManifest, Budget, Cron, Run, RunState, Schedule
from simulated import Simulated

MINUTE = Schedule(every_s=60)


class Crons:
    """Orders and their loop, over one store; `crash` takes both away and comes back."""

    def __init__(self, folder: Path, runtime: Any = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.runtime: Any = runtime or Simulated()
        self.said: list[str] = []
        self.begins: list[str] = []
        self.fails: Callable[[], Exception | None] = lambda: None
        """What keeps the next run from starting, before it is on record."""
        self.fails_after: Callable[[], BaseException | None] = lambda: None
        """The same, after."""
        (folder / "clerk.py").write_text("print('first')\n")
        self._open()

    def _open(self) -> None:
        self.store: SqliteStore = open_store(self.home, self.runtime, write=True)
        secrets = Secrets({"KEY": "hunter2-hunter2"})
        snapshots = self.home / "snapshots"
        self.queueing = Queueing(self.store, self.runtime, secrets, snapshots)
        self.orders = Orders(self.store, secrets, snapshots, self._begin, self._check)
        self.firing = Firing(self.orders, self.store, self.runtime, self._say)

    async def crash(self) -> None:
        """Another kernel on what is on disk."""
        await self.store.close()
        self._open()

    def _say(self, what: str, run: str) -> None:
        self.said.append(f"{what} {run}".strip())

    async def _check(self, agent: Agent) -> None:
        assert agent.code is not None

    async def _begin(self, agent: Agent, task: str, **more: Any) -> Run:
        if (error := self.fails()) is not None:
            raise error
        row, write = await self.queueing.row(agent, task, **more)
        await self.store.append(write)
        self.begins.append(row.id)
        if (stop := self.fails_after()) is not None:
            raise stop
        return row

    def family(self, name: str = "clerk") -> Family:
        manifest = AgentManifest(
            name=name,
            command=("python", "clerk.py"),
            code=("clerk.py",),
            folder=str(self.folder),
            budget=Budget(calls=10),
        )
        return Family(manifest=manifest)

    async def set(self, name: str = "often", schedule: Schedule = MINUTE, **more: Any) -> Cron:
        told = Told(name=name, task=more.pop("task", "do it"), anew=more.pop("anew", False))
        family = self.family(more.pop("agent", "clerk"))
        fields = {"principal": "ann", "tenant": "acme", **more}
        return await self.orders.set_cron(family, told, schedule, **fields)

    async def cron(self, name: str = "often") -> Cron:
        return await self.orders.cron(name)

    async def passes(self, seconds: float) -> list[Run]:
        """The clock moves, the loop looks once. What it started by that."""
        before = len(self.begins)
        self.runtime.advance(seconds)
        await self.firing.look()
        return [await self.row(run) for run in self.begins[before:]]

    async def row(self, run: str) -> Run:
        found = await self.store.run(run)
        assert found is not None
        return found

    async def end(self, run: str, state: RunState = RunState.DONE) -> None:
        result = address(await self.store.run_key(run), b"{}")
        await self.store.append(
            Write(
                run=run,
                blobs={result: b"{}"},
                durable=True,
                events=[ev.RunEnded(state=state, result=result, epoch=1)],
            )
        )

    async def events(self, kind: type) -> list[Any]:
        return [e.body async for e in self.store.entries() if isinstance(e.body, kind)]


@contextlib.asynccontextmanager
async def crons(folder: Path, runtime: Any = None) -> AsyncIterator[Crons]:
    w = Crons(folder, runtime)
    try:
        yield w
    finally:
        await w.store.close()


__all__ = ["MINUTE", "Crons", "crons", "replace"]
