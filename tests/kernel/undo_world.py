"""What the tests of undo share: an agent with tools of every way back, and the world that it
changes: a workspace, a database, and a bank and a post office whose books are files outside ring0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from kernel_world import database, rows

from ring0.kernel.agent.agents import Agent, Family, embedded
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.types import (
    AgentManifest,
    ApprovalState,
    CallKind,
    Effect,
    Mode,
    Operator,
    Outcome,
    Request,
    Run,
    ToolManifest,
)

POLICY = """
@id("tests") @reason("Of this test.")
permit (principal, action in Action::"tool", resource);
"""
TASK = "order 1 2 3 4 5 6 7 8 9 10 20 30; a b c d; Ann Bob Cy; customer closed"


def function(
    name: str, effect: Effect = Effect.ONCE, reversal: str = "irreversible", **arguments: str
) -> ToolManifest:
    """A `@tool` function; an argument whose type ends in `?` is optional."""
    return ToolManifest(
        name=name,
        description=f"{name} of the test's world",
        effect=effect,
        reversal=reversal,
        schema={
            "type": "object",
            "properties": {key: {"type": kind.rstrip("?")} for key, kind in arguments.items()},
            "required": [key for key, kind in arguments.items() if not kind.endswith("?")],
            "additionalProperties": False,
        },
    )


FUNCTIONS = (
    function("charge", reversal="compensable:refund", order="string", amount="integer"),
    function("refund", order="string", amount="integer"),
    function("book", Effect.IDEMPOTENT, "compensable:unbook", seat="string"),
    function("unbook", Effect.IDEMPOTENT, seat="string", booking="string", note="string?"),
    function("mail", to="string"),
)


class Books:
    """What was really done, line by line, whatever the kernel knows of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "books.jsonl"

    def write(self, what: str, call: str, **said: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"what": what, "call": call, **said}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def said(self) -> list[str]:
        """`charge o-1`, in order."""
        return [f"{line['what']} {line.get('order', line.get('seat'))}" for line in self.lines()]


def functions(books: Books, act: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """`act` is told of each effect just before and just after it: a test may fail it there."""

    def of(name: str) -> Any:
        async def call(args: dict[str, Any], call_id: str, fences: Any) -> Any:
            act(f"{name} begins")
            books.write(name, call_id, **args)
            act(f"{name} done")
            return {"booking": f"B-{call_id}"} if name == "book" else {"ok": True}

        return call

    return {f"tool:{one.name}": of(one.name) for one in FUNCTIONS}


class Desk:
    """A kernel with one run (and children) whose calls the test makes itself."""

    def __init__(self, kernel: Kernel, folder: Path, act: Callable[[str], None]) -> None:
        self.kernel = kernel
        self.folder = folder
        self.books = Books(folder)
        self.act = act
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.run: LiveRun = None  # type: ignore[assignment]
        self.live: dict[str, LiveRun] = {}
        self._counter = 0

    @property
    def store(self) -> Any:
        return self.kernel.store

    def manifest(self, name: str = "clerk", **more: Any) -> AgentManifest:
        tools = {
            "crm": {"use": "sql", "database": str(self.folder / "crm.db")},
            "files": {"use": "files"},
        }
        fields = {"tools": tools, "functions": FUNCTIONS, "agents": ("helper",), **more}
        return AgentManifest(name=name, **fields)

    def code(self, **more: Any) -> Agent:
        async def agent(run: LiveRun) -> Any:
            self.live[run.id] = run
            return await asyncio.shield(self.end)

        own = functions(self.books, self.act) | {"agent:clerk": agent, "agent:helper": agent}
        family = Family(
            manifest=self.manifest(**more), others=(self.manifest("helper"),), mode=Mode.EMBEDDED
        )
        return embedded(family, own)

    async def begin(self, **more: Any) -> LiveRun:
        code = self.code(**more)
        row = await self.kernel.start_embedded(
            code.family.manifest, code.family.others, code.functions, TASK, principal="alice"
        )
        self.run = self.kernel.gate.live[row.id]
        return self.run

    async def child(self) -> LiveRun:
        """A child of the run, at work."""
        told = await self.call("helper", {"task": "order 1"}, kind=CallKind.SPAWN)
        assert told.error is None, told.error
        async with asyncio.timeout(5):
            while told.value["run"] not in self.live:
                await asyncio.sleep(0.005)
        return self.live[told.value["run"]]

    async def call(
        self,
        name: str,
        args: Any = None,
        *,
        kind: CallKind = CallKind.TOOL,
        run: LiveRun | None = None,
    ) -> Outcome:
        self._counter += 1
        request = Request(kind=kind, name=name, args=args, path="0", counter=self._counter)
        calling = asyncio.create_task(self.kernel.gate.call((run or self.run).handle, request))
        while not (await asyncio.wait({calling}, timeout=0.05))[0]:
            # Whatever is asked, as what a child says is, is approved here.
            for one in await self.store.approvals(states=[ApprovalState.PENDING]):
                await self.kernel.answer(one.id, yes=True, by=Operator(name="alice"))
        return await calling

    async def ok(self, name: str, run: LiveRun | None = None, **args: Any) -> str:
        """The id of a call that must succeed."""
        outcome = await self.call(name, args, run=run)
        assert outcome.error is None, outcome.error
        return f"{(run or self.run).id}/0/{self._counter}"

    async def execute(self, statement: str, *parameters: Any, run: LiveRun | None = None) -> str:
        return await self.ok("crm.execute", run, statement=statement, parameters=list(parameters))

    async def finish(self) -> None:
        if not self.end.done():
            self.end.set_result("done")
        await self.kernel.runs.wait(self.run.id)

    async def undo(self, run: str = "", **more: Any) -> Run:
        return await self.kernel.undo(run or self.run.id, by="alice", **more)

    async def steps(self, undone: Run) -> list[Any]:
        await self.store.flush()
        return list(await self.store.calls(undone.id))

    def customers(self) -> list[Any]:
        return rows(self.folder / "crm.db")


@contextlib.asynccontextmanager
async def desk(
    folder: Path,
    *,
    runtime: Runtime | None = None,
    act: Callable[[str], None] = lambda _: None,
    policy: str = "",
    start: bool = True,
    **more: Any,
) -> AsyncIterator[Desk]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "own.cedar").write_text(POLICY + policy)
    (home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    if not (folder / "crm.db").exists():
        database(folder)

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    kernel = await open_kernel(home, runtime or Runtime(), dict(os.environ), embed=embed)
    here = Desk(kernel, folder, act)
    try:
        if start:
            await here.begin(**more)
        yield here
    finally:
        if not here.end.done():
            here.end.cancel()
        await kernel.close()
