"""A kernel on which every run that waits is put away at once, and eyes on its rows."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import parking_agents

from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.sdk.embedded import DirectDoor, NotContained, Ring
from ring0.sdk.runner import run_agent
from ring0.types import Approval, ApprovalState, Run, RunState


class Parking:
    """A kernel as a library, in which nothing that waits keeps its process."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ring = Ring(kernel)

    @property
    def runs(self) -> Any:
        return self.kernel.runs

    async def start(self, agent: Any, task: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotContained)
            return (await self.ring.start(agent, task)).id

    async def row(self, run: str) -> Run:
        await self.kernel.store.flush()
        found = await self.kernel.store.run(run)
        assert found is not None
        return found

    async def rows(self, agent: str = "") -> list[Run]:
        await self.kernel.store.flush()
        found = await self.kernel.store.runs(most=100_000)
        return [row for row in found if not agent or row.agent == agent]

    async def away(self, run: str, reason: str = "") -> Run:
        """The run's row once it is nothing but a row."""
        async with asyncio.timeout(10):
            while True:
                row = await self.row(run)
                if run in self.runs.waking.away and not self.runs.is_here(run):
                    assert row.state is RunState.WAITING and row.wake_us > 0
                    if not reason or row.waiting_for == reason:
                        return row
                await asyncio.sleep(0.002)

    async def until(self, run: str, state: RunState, waiting_for: str = "") -> Run:
        async with asyncio.timeout(10):
            while True:
                row = await self.row(run)
                if (row.state, row.waiting_for) == (state, waiting_for):
                    return row
                await asyncio.sleep(0.002)

    async def asked(self, run: str = "", count: int = 1) -> list[Approval]:
        async with asyncio.timeout(10):
            while True:
                found = await self.kernel.store.approvals(states=[ApprovalState.PENDING], run=run)
                if len(found) >= count:
                    return list(found)
                await asyncio.sleep(0.002)

    async def end(self, run: str, most_s: float = 10) -> Any:
        """What the run came to: its value, or its error's words."""
        async with asyncio.timeout(most_s):
            row = await self.runs.wait(run)
        body = msgspec.json.decode(await self.kernel.store.blob(row.result))
        return body["value"] if "value" in body else body["error"]["what"]

    async def quiet(self) -> None:
        """No run is lost: each is at work, in the queue, or has something that will wake it."""
        async with asyncio.timeout(10):
            while stuck := await self.runs.stuck():
                await asyncio.sleep(0.01)
        assert not stuck


@contextlib.asynccontextmanager
async def parking(
    home: Path, *, runtime: Runtime | None = None, park_after_s: float = 0, at_work: int = 0
) -> AsyncIterator[Parking]:
    kernels: list[Kernel] = []

    async def embed(run: LiveRun, function: Any) -> Any:
        door = DirectDoor(kernels[0], run)
        return await run_agent(function, door, await door.describe())

    home.mkdir(exist_ok=True, parents=True)
    if at_work:
        (home / "ring0.toml").write_text(f"[scheduler]\nruns_at_work = {at_work}\n")
    kernel = await open_kernel(home, runtime or Runtime(), {}, embed=embed)
    kernels.append(kernel)
    kernel.runs.park_after_s = park_after_s
    try:
        yield Parking(kernel)
    finally:
        await kernel.close()


def begun(run: str) -> int:
    """How often the agent's function was entered."""
    return parking_agents.begun[run]
