"""Isolated runs that wait or stand still: their process goes, the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ring0 import limits
from ring0.gateway import door
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.life import freezing
from ring0.runtime import Runtime
from ring0.types import AgentManifest, ApprovalState, Operator, RunState

AGENT = """
import asyncio
from ring0 import Context, agent, tool

@tool(effect="once")
def act(what: str) -> str:
    return "did " + what

@agent(name="asker", tools=[act])
async def asker(ctx: Context, task: str) -> list:
    first = await ctx.random()
    return [first, await ctx.random(), await ctx.tool("act", what=task)]

@agent(name="busy")
async def busy(ctx: Context, task: str) -> float:
    number = await ctx.random()
    for _ in range(int(task)):
        await ctx.now()
        await asyncio.sleep(0.02)
    return number
"""
PROGRAM = """
import json, os, socket
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["RING0_DOOR"])
body = json.dumps({"kind": "sleep", "args": {"seconds": 3}}).encode()
head = "POST /v1/call HTTP/1.1\\r\\nHost: r\\r\\nContent-Length: "
line.sendall(f"{head}{len(body)}\\r\\n\\r\\n".encode() + body)
print(line.recv(65536).split(b"\\r\\n", 1)[0].decode())
"""


@contextlib.asynccontextmanager
async def kernel_at(folder: Path, park_after_s: float) -> AsyncIterator[Kernel]:
    folder.mkdir(exist_ok=True)
    (folder / "agent.py").write_text(AGENT)
    (folder / "program.py").write_text(PROGRAM)
    kernel = await open_kernel(folder / "home", Runtime(), {})
    kernel.runs.doors = door.doors(kernel.gate)
    kernel.runs.park_after_s = park_after_s
    try:
        yield kernel
    finally:
        await kernel.close()


async def start(kernel: Kernel, folder: Path, name: str, task: str) -> str:
    manifest = AgentManifest(name="", entry=f"agent.py:{name}", folder=str(folder))
    family = await kernel.describe(manifest)
    return (await kernel.start(family, task, principal="alice")).id


async def value(kernel: Kernel, run: str) -> object:
    async with asyncio.timeout(40):
        row = await kernel.runs.wait(run)
    body = msgspec.json.decode(await kernel.store.blob(row.result))
    return body["value"] if "value" in body else body["error"]["what"]


async def test_an_isolated_run_that_waits_has_no_process_and_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    async with kernel_at(tmp_path / "a", 0) as kernel:
        run = await start(kernel, tmp_path / "a", "asker", "x")
        async with asyncio.timeout(20):
            while run not in kernel.runs.waking.away:
                await asyncio.sleep(0.01)
        assert not await kernel.store.sandboxes_alive() and not kernel.runs.at_work()
        pending = [ApprovalState.PENDING]
        (ask,) = await kernel.store.approvals(run=run, states=pending)
        await kernel.answer(ask.id, yes=True, by=Operator(name="alice"))
        ended = await value(kernel, run)
        assert isinstance(ended, list) and ended[2] == "did x"
        row = await kernel.store.run(run)
        assert row is not None and row.epoch == 3, "begun, begun again, ended"
        assert await kernel.runs.stuck() == {}


async def test_a_process_without_task_paths_stays_while_it_waits(tmp_path: Path) -> None:
    async with kernel_at(tmp_path / "a", 0) as kernel:
        manifest = AgentManifest(
            name="program",
            command=("/usr/bin/python3", "program.py"),
            code=("program.py",),
            folder=str(tmp_path / "a"),
        )
        from ring0.kernel.agent.agents import Family

        run = (await kernel.start(Family(manifest=manifest), "go", principal="alice")).id
        async with asyncio.timeout(20):
            while (row := await kernel.store.run(run)) and row.waiting_for != "timer":
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert run in kernel.runs.at_work() and kernel.runs.beginning.starts.at_work == 0
        assert await value(kernel, run) == "HTTP/1.1 200 OK"


async def test_too_many_processes_that_can_not_be_put_away_may_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RUNS_RESIDENT_WAITING_MAX", 0)
    async with kernel_at(tmp_path / "a", 0) as kernel:
        manifest = AgentManifest(
            name="program",
            command=("/usr/bin/python3", "program.py"),
            code=("program.py",),
            folder=str(tmp_path / "a"),
        )
        from ring0.kernel.agent.agents import Family

        run = (await kernel.start(Family(manifest=manifest), "go", principal="alice")).id
        assert await value(kernel, run) == "HTTP/1.1 429 Too Many Requests"


def agents_process(kernel: Kernel, run: str) -> int:
    init = kernel.gate.live[run].watched
    return freezing._children(init)[0] if freezing._children(init) else init


async def test_a_process_that_stands_still_is_killed_and_its_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FROZEN_S", 0.3)
    monkeypatch.setattr(limits, "FROZEN_LOOK_S", 0.05)
    async with kernel_at(tmp_path / "a", 1_000) as kernel:
        run = await start(kernel, tmp_path / "a", "busy", "60")
        async with asyncio.timeout(20):
            while len(await kernel.store.calls(run)) < 5:
                await asyncio.sleep(0.01)
        first = agents_process(kernel, run)
        os.kill(first, signal.SIGSTOP)
        assert isinstance(await value(kernel, run), float)
        row = await kernel.store.run(run)
        assert row is not None and row.state is RunState.DONE and row.epoch == 3
        assert not Path(f"/proc/{first}").exists()


async def test_a_process_that_is_stopped_again_and_again_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FROZEN_S", 0.1)
    monkeypatch.setattr(limits, "FROZEN_LOOK_S", 0.05)
    monkeypatch.setattr(limits, "FROZEN_RESTARTS_MAX", 1)
    async with kernel_at(tmp_path / "a", 1_000) as kernel:
        run = await start(kernel, tmp_path / "a", "busy", "100000")

        async def stop() -> None:
            while True:
                live = kernel.gate.live.get(run)
                if live is not None and live.watched and len(await kernel.store.calls(run)) > 2:
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(agents_process(kernel, run), signal.SIGSTOP)
                await asyncio.sleep(0.05)

        stopping = asyncio.create_task(stop())
        try:
            assert "stopped by a signal 2 times" in str(await value(kernel, run))
        finally:
            stopping.cancel()
