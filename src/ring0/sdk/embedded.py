"""ring0 as a library: `@agent` functions run in your process, through the same gate.

An embedded agent is not contained: it can do whatever your process can. Use it in tests and
notebooks; in production let `ring0 run` put the agent into a sandbox.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ring0.errors import AgentInvalid, RunFailed
from ring0.identity import operator_name
from ring0.kernel import values
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.boot import open_kernel
from ring0.kernel.gate import Gate
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.sdk.declare import agent_of, tool_of
from ring0.sdk.door import Given, RunInfo, error_of
from ring0.sdk.load import with_ways_back
from ring0.sdk.runner import run_agent
from ring0.sdk.toolside import run_tool
from ring0.types import AgentManifest, Label, Mode, Request, Run


class NotContained(UserWarning):
    """An embedded agent shares its process with the kernel."""


class HasGate(Protocol):
    """A kernel at work, or what a replay has in its place."""

    @property
    def gate(self) -> Gate: ...


class DirectDoor:
    """The gate, without a process border between."""

    def __init__(self, kernel: HasGate, run: LiveRun) -> None:
        self._gate = kernel.gate
        self._run = run

    async def call(self, request: Request) -> tuple[Any, Label]:
        values.check(request.args, what="The call")
        outcome = await self._gate.call(self._run.handle, request)
        if outcome.error is not None:
            raise error_of(outcome.error, outcome.notice, outcome.mark)
        return Given.of(outcome.value, outcome.label, outcome.notice, outcome.mark)

    async def describe(self) -> RunInfo:
        run = self._run
        tools, models, agents = run.named()
        return RunInfo(
            run=run.id,
            agent=run.row.agent,
            task=(await self._gate.store.blob(run.row.task)).decode(),
            tools=tuple(tools),
            models=tuple(models),
            agents=tuple(agents),
        )

    async def finish(self, *, value: Any = None, error: dict[str, str] | None = None) -> None:
        """An embedded agent ends by returning."""


class Ring:
    """A kernel in this process. Open it with `embedded`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._principal = operator_name(os.getuid())

    async def start(self, agent: Callable[..., Any], task: str) -> Run:
        """Starts an `@agent` function on a task; `wait` has its end."""
        warnings.warn(
            "not contained: an embedded agent shares its process with the kernel",
            NotContained,
            stacklevel=2,
        )
        manifest, others, functions = _declared(agent)
        return await self.kernel.start_embedded(
            manifest, others, functions, task, principal=self._principal
        )

    async def run(self, agent: Callable[..., Any], task: str) -> Any:
        """The agent's result. Raises RunFailed, or what the kernel refused."""
        row = await self.start(agent, task)
        return await self.result(row.id)

    async def resume(self, agent: Callable[..., Any]) -> list[str]:
        """Goes on with this agent's runs that a crash stopped. Returns their ids."""
        return await self.kernel.recover(code_of(agent))

    async def undo(self, agent: Callable[..., Any], run: str, *, call: str = "") -> Run:
        """Takes back what a run of this agent did, or one call of it: the run of the undo, once it
        has ended or waits for a person. Raises NotFound, UndoRefused."""
        return await self.kernel.undo(run, by=self._principal, only=call, code=code_of(agent))

    async def result(self, run: str) -> Any:
        """What a run came to, once it has ended."""
        row = await self.kernel.runs.wait(run)
        body = msgspec.json.decode(await self.kernel.store.blob(row.result))
        if "error" in body:
            error = body["error"]
            raise RunFailed(error["what"], why=error["why"], todo=error["todo"])
        return body["value"]


@asynccontextmanager
async def embedded(
    home: str | Path, environment: dict[str, str] | None = None
) -> AsyncIterator[Ring]:
    """A kernel on the data folder `home`, for as long as the block lasts."""

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        door = DirectDoor(kernel, run)
        return await run_agent(function, door, await door.describe())

    given = dict(os.environ) if environment is None else environment
    kernel = await open_kernel(Path(home), Runtime(), given, embed=embed)
    kernel.anchoring.begin()
    kernel.memory.begin()
    try:
        yield Ring(kernel)
    finally:
        await kernel.close()


def code_of(agent: Callable[..., Any]) -> Agent:
    """An `@agent` function of this program as the code of its runs. Raises AgentInvalid."""
    manifest, others, functions = _declared(agent)
    family = Family(manifest=manifest, others=others, mode=Mode.EMBEDDED)
    return Agent(family, "embedded", functions=functions)


def _declared(agent: Callable[..., Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The agent's manifest, those of its family, and what runs each of their functions."""
    declared = agent_of(agent)
    if declared is None:
        raise AgentInvalid(
            f"{getattr(agent, '__name__', agent)!r} is not an agent.",
            why="It has no @agent.",
            todo="Decorate it.",
        )
    functions: dict[str, Any] = {}
    module = vars(__import__("sys").modules[agent.__module__])
    there = {found.manifest.name: found for one in module.values() if (found := tool_of(one))}
    family = {declared.manifest.name: (declared, agent)}
    for value in module.values():
        other = agent_of(value)
        if other is not None and other.manifest.name in declared.manifest.agents:
            family[other.manifest.name] = (other, value)
    manifests: dict[str, AgentManifest] = {}
    for name, (one, function) in family.items():
        functions[f"agent:{name}"] = function
        tools = with_ways_back(one.tools, there)
        for tool in tools:
            functions[f"tool:{tool.manifest.name}"] = _caller(tool)
        granted = tuple(tool.manifest for tool in tools)
        manifests[name] = msgspec.structs.replace(one.manifest, functions=granted)
    own = manifests.pop(declared.manifest.name)
    return own, tuple(manifests.values()), functions


def _caller(tool: Any) -> Callable[[dict[str, Any], str, dict[str, int]], Any]:
    async def call(args: dict[str, Any], call_id: str, fences: dict[str, int]) -> Any:
        return await run_tool(tool, args, call_id, fences, Runtime())

    return call
