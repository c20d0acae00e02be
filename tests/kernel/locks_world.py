"""A kernel with several embedded runs, whose calls the test makes itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from kernel_world import Doing

from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.tools.registry import Tool
from ring0.types import (
    AgentManifest,
    Budget,
    CallKind,
    Effect,
    Mode,
    Outcome,
    Request,
    Run,
    RunState,
)


class Actor:
    """One run; its calls are counted on the path `0`."""

    def __init__(self, band: Band, run: LiveRun) -> None:
        self.band = band
        self.run = run
        self.counter = 0

    @property
    def id(self) -> str:
        return self.run.id

    async def call(
        self, kind: CallKind, args: Any, name: str = "", counter: int | None = None
    ) -> Outcome:
        if counter is None:
            self.counter += 1
            counter = self.counter
        request = Request(kind=kind, name=name, args=args, path="0", counter=counter)
        return await self.band.kernel.gate.call(self.run.handle, request)

    async def lock(self, resource: str, **args: Any) -> Outcome:
        return await self.call(CallKind.LOCK, {"resource": resource, **args})

    async def free(self, resource: str) -> Outcome:
        return await self.call(CallKind.LOCK, {"resource": resource, "do": "free"})

    async def renew(self, resource: str, lease_s: int) -> Outcome:
        args = {"resource": resource, "do": "renew", "lease_s": lease_s}
        return await self.call(CallKind.LOCK, args)

    async def touch(self, name: str = "touch", **args: Any) -> Outcome:
        return await self.call(CallKind.TOOL, args, name)

    async def send(self, to: str, value: Any) -> Outcome:
        return await self.call(CallKind.SEND, {"run": to, "value": value})

    async def receive(self, timeout_s: float | None = None) -> Outcome:
        args = {"message": True} | ({} if timeout_s is None else {"timeout_s": timeout_s})
        return await self.call(CallKind.WAIT, args)

    def tool(self, *touches: str, name: str = "touch", **more: Any) -> Doing:
        driver = Doing(name, effect=Effect.IDEMPOTENT, touches=touches, **more)
        self.run.tools[name] = Tool(driver)
        return driver

    async def row(self) -> Run:
        await self.band.kernel.store.flush()
        found = await self.band.kernel.store.run(self.id)
        assert found is not None
        return found

    async def until(self, state: RunState, waiting_for: str = "") -> None:
        async with asyncio.timeout(10):
            while True:
                row = await self.row()
                if (row.state, row.waiting_for) == (state, waiting_for):
                    return
                await asyncio.sleep(0.005)

    async def end(self, value: Any = None) -> Run:
        self.band.ends[self.id].set_result(value)
        return await self.band.kernel.runs.wait(self.id)


class Band:
    """Runs by name; each goes on until the test ends it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ends: dict[str, asyncio.Future[Any]] = {}

    async def _agent(self, run: LiveRun) -> Any:
        self.ends[run.id] = asyncio.get_running_loop().create_future()
        return await self.ends[run.id]

    async def start(self, name: str = "clerk", **fields: Any) -> Actor:
        fields = {"budget": Budget(cost_microusd=10_000), **fields}
        manifest = AgentManifest(name=name, agents=("child",), **fields)
        child = AgentManifest(name="child", agents=("child",))
        functions = {f"agent:{one}": self._agent for one in (name, "child")}
        row = await self.kernel.start_embedded(
            manifest, (child,), functions, "go", principal="alice"
        )
        return await self.actor(row.id)

    async def actor(self, run: str) -> Actor:
        async with asyncio.timeout(10):
            while run not in self.kernel.gate.live or run not in self.ends:
                await asyncio.sleep(0.002)
        return Actor(self, self.kernel.gate.live[run])

    async def child_of(self, parent: Actor) -> Actor:
        outcome = await parent.call(CallKind.SPAWN, {"task": "go"}, "child")
        assert outcome.error is None, outcome.error
        return await self.actor(outcome.value["run"])

    async def recover(self, name: str = "clerk") -> list[str]:
        """What an earlier kernel was stopped in; the test makes the same calls again."""
        functions = {f"agent:{one}": self._agent for one in (name, "child")}
        family = Family(manifest=AgentManifest(name=name), mode=Mode.EMBEDDED)
        return await self.kernel.recover(Agent(family, "embedded", functions=functions))


@contextlib.asynccontextmanager
async def band(
    home: Path, runtime: Runtime | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Band]:
    home.mkdir(exist_ok=True)

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    kernel = await open_kernel(home, runtime or Runtime(), environment or {}, embed=embed)
    try:
        yield Band(kernel)
    finally:
        await kernel.close()


def code(outcome: Outcome) -> str:
    return outcome.error["code"] if outcome.error else "ok"
