"""What the kernel's tests share: a kernel with one embedded run whose calls the test makes itself,
tools that can be held, broken and counted, a clock that jumps, and a small database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import msgspec

from ring0.kernel.agent import profiles
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.store.base import Write
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.registry import Tool
from ring0.types import (
    AgentManifest,
    Approval,
    ApprovalState,
    Budget,
    CallKind,
    Confidentiality,
    Effect,
    Integrity,
    Label,
    Outcome,
    Request,
    Run,
    RunState,
    ToolManifest,
)

OPEN = {"type": "object", "properties": {"x": {}, "text": {"type": "string"}}}
"""A schema that takes anything as `x` and a `text`."""


class JumpingRuntime(Runtime):
    """The real clock and an offset that a test moves; who sleeps wakes when its time has come."""

    def __init__(self) -> None:
        self.offset_us = 0
        self._moved = asyncio.Event()

    def now_us(self) -> int:
        return super().now_us() + self.offset_us

    def jump(self, seconds: float) -> None:
        self.offset_us += int(seconds * 1_000_000)
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        until = self.now_us() + int(seconds * 1_000_000)
        while (left := until - self.now_us()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), left / 1_000_000)


class Doing:
    """A driver that a test controls: what it says it would do, and what it then does."""

    def __init__(
        self,
        name: str,
        *,
        effect: Effect = Effect.PURE,
        act: Callable[[dict[str, Any], CallContext], Any] | None = None,
        label: Label | None = None,
        output: Integrity = Integrity.TRUSTED_FIELD,
        schema: dict[str, Any] = OPEN,
        critical: tuple[str, ...] = (),
        **prepared: Any,
    ) -> None:
        self.manifest = ToolManifest(
            name=name,
            description="a test's",
            schema=schema,
            effect=effect,
            output=output,
            critical=critical,
        )
        self.prepared = prepared
        self.label = label or Label(integrity=Integrity.USER)
        self.act = act
        self.preparing: Callable[[], Any] | None = None
        self.done = 0
        self.args: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None
        """When set: an execution begins, then waits for it."""
        self.begun = asyncio.Event()

    def hold(self) -> asyncio.Event:
        self.gate = asyncio.Event()
        self.begun.clear()
        return self.gate

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        if self.preparing is not None:
            await self.preparing()
        fields = {"own": True, **self.prepared}
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"), **fields)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.done += 1
        self.args.append(args)
        value: Any = {"done": self.done}
        if self.act is not None:
            value = self.act(args, context)
            value = await value if asyncio.iscoroutine(value) else value
        return value if isinstance(value, Result) else Result(value=value, label=self.label)


class World:
    """A kernel with one run at work; its calls are made by the test."""

    def __init__(self, kernel: Kernel, home: Path) -> None:
        self.kernel = kernel
        self.home = home
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """What the run's agent returns (or raises) when the test says so."""
        self.run: LiveRun = None  # type: ignore[assignment]
        self._counter = 0

    @property
    def store(self) -> Any:
        return self.kernel.store

    def tool(self, driver: Any) -> Any:
        self.run.tools[driver.manifest.name] = Tool(driver)
        return driver

    async def call(
        self,
        name: str,
        args: Any = None,
        *,
        kind: CallKind = CallKind.TOOL,
        path: str = "0",
        counter: int | None = None,
    ) -> Outcome:
        if counter is None:
            self._counter += 1
            counter = self._counter
        request = Request(kind=kind, name=name, args=args, path=path, counter=counter)
        return await self.kernel.gate.call(self.run.handle, request)

    async def kind(self, kind: CallKind, args: Any = None, **more: Any) -> Outcome:
        return await self.call("", args, kind=kind, **more)

    def start(self, *given: Any, **more: Any) -> asyncio.Task[Outcome]:
        return asyncio.create_task(self.call(*given, **more))

    async def pending(self, most_s: float = 5) -> Approval:
        """The one ask that waits, once there is one."""
        return (await self.all_pending(1, most_s))[0]

    async def all_pending(self, count: int, most_s: float = 5) -> list[Approval]:
        async with asyncio.timeout(most_s):
            while True:
                found = await self.store.approvals(states=[ApprovalState.PENDING])
                if len(found) >= count:
                    return list(found)
                await asyncio.sleep(0.005)

    async def row(self, run: str = "") -> Run:
        await self.store.flush()
        found = await self.store.run(run or self.run.id)
        assert found is not None
        return found

    async def until(self, state: RunState, waiting_for: str = "", run: str = "") -> Run:
        async with asyncio.timeout(10):
            while True:
                row = await self.row(run)
                if row.state is state and row.waiting_for == waiting_for:
                    return row
                await asyncio.sleep(0.005)

    async def recorded(self, call: str) -> Any:
        await self.store.flush()
        found = await self.store.call(call)
        assert found is not None, f"{call} is not on record"
        return found

    async def calls(self) -> list[Any]:
        await self.store.flush()
        return list(await self.store.calls(self.run.id))

    async def evidence(self, call: Any) -> Any:
        return msgspec.json.decode(await self.store.blob(call.decision))

    async def shown(self, approval: Approval) -> Any:
        return msgspec.json.decode(await self.store.blob(approval.shown))

    async def forget(self) -> None:
        """Waits until all is in the file, WAL included."""
        await self.store.append(Write(run="kernel", events=[], durable=True))

    def on_disk(self) -> bytes:
        """Every byte of the data folder."""
        return b"\0".join(
            path.read_bytes() for path in sorted(self.home.rglob("*")) if path.is_file()
        )


@contextlib.asynccontextmanager
async def world(
    home: Path,
    *,
    runtime: Runtime | None = None,
    environment: Mapping[str, str] | None = None,
    task: str = "the task",
    budget: Budget = Budget(),  # noqa: B008  (frozen)
    policy: str = "",
    profile: str = "",
    start: bool = True,
    manifest: AgentManifest | None = None,
    secrets: bool = False,
    principal: str = "alice",
    **fields: Any,
) -> AsyncIterator[World]:
    """`secrets`: its run may use them, though ring0 keeps them from embedded runs. The test that
    makes its calls stands for an agent in a sandbox."""
    with contextlib.ExitStack() as stack:
        if secrets:
            stack.enter_context(mock.patch.object(profiles, "_secret_of", return_value=""))
        async with _world(
            home, runtime, environment, task, budget, (policy, profile), start, manifest, principal,
            fields,
        ) as here:  # fmt: skip
            yield here


@contextlib.asynccontextmanager
async def _world(
    home: Path,
    runtime: Runtime | None,
    environment: Mapping[str, str] | None,
    task: str,
    budget: Budget,
    policies: tuple[str, str],
    start: bool,
    manifest: AgentManifest | None,
    principal: str,
    fields: dict[str, Any],
) -> AsyncIterator[World]:
    home.mkdir(exist_ok=True)
    policy, profile = policies
    said = f'profile = "{profile}"\n' if profile else ""
    if policy:
        (home / "own.cedar").write_text(policy)
        said += 'policy = ["own.cedar"]\n'
    if said:
        (home / "ring0.toml").write_text(said)
    made: list[World] = []

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        return await function(run)

    kernel = await open_kernel(home, runtime or Runtime(), environment or {}, embed=embed)
    made.append(World(kernel, home))
    here = made[0]
    try:
        if start:
            await begin(here, task, budget, manifest, principal, **fields)
        yield here
    finally:
        if not here.end.done():
            here.end.cancel()
        await kernel.close()


async def begin(
    here: World,
    task: str,
    budget: Budget,
    manifest: AgentManifest | None = None,
    principal: str = "alice",
    **fields: Any,
) -> None:
    async def agent(run: LiveRun) -> Any:
        return await here.end

    manifest = manifest or AgentManifest(name="clerk", budget=budget, **fields)
    row = await here.kernel.start_embedded(
        manifest, (), {f"agent:{manifest.name}": agent}, task, principal=principal
    )
    here.run = here.kernel.gate.live[row.id]


def database(folder: Path) -> Path:
    """Customers, and orders that hang on them by a cascade."""
    path = folder / "crm.db"
    made = apsw.Connection(str(path))
    made.execute(
        """
        PRAGMA foreign_keys = ON;
        CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT);
        CREATE TABLE purchase (id INTEGER PRIMARY KEY, what TEXT,
            customer INTEGER NOT NULL REFERENCES customer ON DELETE CASCADE);
        INSERT INTO customer VALUES (1, 'Ann', 'open'), (2, 'Bob', 'open'), (3, 'Cy', 'open');
        INSERT INTO purchase (what, customer) VALUES ('tea', 1), ('pot', 1), ('cup', 2);
        """
    )
    made.close()
    return path


def rows(path: Path, statement: str = "SELECT * FROM customer ORDER BY id") -> list[Any]:
    found = apsw.Connection(str(path))
    try:
        return list(found.execute(statement))
    finally:
        found.close()


PRIVATE = Label(integrity=Integrity.USER, confidentiality=Confidentiality.PRIVATE)
UNTRUSTED = Label(integrity=Integrity.UNTRUSTED)
