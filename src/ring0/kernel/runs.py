"""A run's life: queued, started, waited for, ended, killed.

Whatever way a run ends, it ends in this order: its handle dies, its calls are stopped (each writes
how it ended), its sandboxes are confirmed dead, its children are cancelled, its asks are revoked,
and only then the end is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import (
    CallDenied,
    Interrupted,
    InvalidInput,
    LimitReached,
    NotFound,
    Ring0Error,
    RunDead,
    RunFailed,
    StoreFailed,
    StoreFull,
)
from ring0.kernel import agents, inputs, processes, values
from ring0.kernel.agents import Agent
from ring0.kernel.children import Children
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.printed import Output
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.tools import registry
from ring0.tools.functions import EmbeddedFunction
from ring0.tools.registry import Means, Tool
from ring0.tools.sandbox import Sandbox
from ring0.types import (
    ENDED,
    LIVE,
    CallState,
    Integrity,
    Label,
    Mode,
    Run,
    RunState,
)


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
        self.models: frozenset[str] = frozenset()
        """Names of the operator's models: every agent may ask for them."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Future[Run]] = {}
        self.agents: dict[str, Agent] = {}
        self._cancelled: dict[str, str] = {}
        """Runs that are being ended from outside, and by whom."""
        self.children = Children(self)
        self.not_recovered: dict[str, Ring0Error] = {}
        """Runs that the last `recover` could not start, and why."""

    # --- beginning ----------------------------------------------------------------------------

    async def queue(
        self,
        agent: Agent,
        task: str,
        *,
        principal: str,
        tenant: str,
        parent: Run | None = None,
        run: str = "",
    ) -> Run:
        """Writes the run's row, with its task, its manifest and its copied files."""
        values.check(task, what="The task")
        encoded = self.gate.secrets.redact_text(task).encode()
        if len(encoded) > limits.TASK_SIZE_BYTES_MAX:
            raise InvalidInput(
                f"The task has {len(encoded)} bytes.",
                why=f"At most {limits.TASK_SIZE_BYTES_MAX} are taken.",
                todo="Put what is long into files of the workspace.",
            )
        run = run or self.runtime.new_id("r")
        key = self.runtime.random_bytes(32)
        budget = agent.manifest.budget
        now_us = self.runtime.now_us()
        label = parent.label if parent else Label(integrity=Integrity.USER, sources=("task",))
        ends_us = now_us + budget.wall_s * 1_000_000
        family = msgspec.json.encode(agent.family)
        blobs = {address(key, encoded): encoded, address(key, family): family}
        files = () if parent else inputs.copied(agent.manifest, key, blobs, self.folder)
        row = Run(
            id=run,
            state=RunState.QUEUED,
            parent=parent.id if parent else "",
            root=parent.root if parent else run,
            depth=parent.depth + 1 if parent else 0,
            agent=agent.manifest.name,
            agent_digest=agent.digest,
            mode=agent.family.mode,
            tenant=tenant,
            principal=principal,
            task=address(key, encoded),
            label=label,
            budget=budget,
            kill_seen=await self.store.kill_generation(),
            started_us=now_us,
            deadline_us=min(ends_us, parent.deadline_us) if parent else ends_us,
        )
        guards: list[base.Guard] = []
        if parent is not None:
            guards = [
                base.RunLive(run=parent.id, epoch=parent.epoch),
                base.NotKilled(run=parent.id),
                base.Room(run=parent.id, calls=budget.calls, reserve_microusd=budget.cost_microusd),
            ]
        await self.store.append(
            Write(
                run=run,
                key=key,
                blobs=blobs,
                guards=guards,
                durable=True,
                events=[
                    ev.RunQueued(
                        run=row, manifest=address(key, family), files=files, remembered=row.task
                    )
                ],
            )
        )
        return row

    async def start(self, row: Run, agent: Agent) -> LiveRun:
        """Starts a queued run, or one that a crash stopped, under a new epoch.

        Raises RunDead where a kill reached it meanwhile: then it has ended.
        """
        assert row.state in LIVE
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
            await self.end(row.id, RunState.CANCELLED, error=dead, by="a kill")
            raise dead from None
        row = replace(row, state=RunState.RUNNING, waiting_for="", epoch=epoch)
        run = LiveRun(
            row,
            await self.store.run_key(row.id),
            agent,
            self.tools(agent),
            self.gate.handles.mint(row.id, epoch),
            self.store,
            records=await self.store.calls(row.id),
            approvals=await self.store.approvals(run=row.id),
        )
        run.models |= self.models
        task = (await self.store.blob(row.task)).decode()
        # The label that the task came with: the run's own may have fallen since.
        began = await agents.queued(self.store, row.id)
        label = began.run.label
        if row.parent:  # A child's task is a run's word, not a principal's.
            label = label.join(Label(integrity=Integrity.UNTRUSTED, sources=(row.parent,)))
        run.seen.add("task", label, task)
        self.gate.live[row.id] = run
        self.agents[row.id] = agent
        if row.id not in self._ends or self._ends[row.id].done():  # Of an earlier start.
            self._ends[row.id] = asyncio.get_running_loop().create_future()
        self._tasks[row.id] = self.runtime.start(self._live(run), name=f"run {row.id}")
        return run

    def tools(self, agent: Agent) -> list[Tool]:
        """All that the agent's manifest names, with schemas compiled. Raises ManifestInvalid."""
        manifest = agent.manifest
        drivers = list(registry.built_in(manifest.tools, Path(manifest.folder), self.means))
        if agent.family.mode is Mode.ISOLATED and manifest.functions:
            drivers += processes.functions(agent, self.sandboxes, self.means)
        elif manifest.functions:
            drivers += [
                EmbeddedFunction(tool, agent.functions[f"tool:{tool.name}"])
                for tool in manifest.functions
            ]
        return [Tool(driver) for driver in drivers]

    # --- living -------------------------------------------------------------------------------

    async def _live(self, run: LiveRun) -> None:
        """Runs the agent, and ends the run by what came of it."""
        output = Output(lambda text: self._hear(run.id, text))
        try:
            left_s = (run.row.deadline_us - self.runtime.now_us()) / 1_000_000
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    value = await self._process(run, output)
                error: Ring0Error | None = None
            except TimeoutError:
                value, error = (
                    None,
                    LimitReached(
                        f"The run's {run.row.budget.wall_s} s are over.",
                        why="Every run has a deadline.",
                        todo="Raise `wall_s` in the agent's budget.",
                    ),
                )
            except Ring0Error as failure:
                value, error = None, failure
            except Exception as fault:
                value, error = (
                    None,
                    RunFailed(
                        f"ring0 failed to run the agent: {type(fault).__name__}: {fault}",
                        why="A fault of ring0.",
                        todo="Report it, with `ring0 show`.",
                    ),
                )
            if run.diverged is not None:
                await self._park(run, run.diverged)
            elif isinstance(error, StoreFull | StoreFailed):
                raise error
            else:
                state = RunState.FAILED if error else RunState.DONE
                await self.end(run.row.id, state, value, error, output=output.as_blob())
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(run))
            self.tell(
                run.id,
                Interrupted(
                    f"{run.id} was interrupted and is kept.",
                    todo="`ring0 recover` goes on with it.",
                ),
            )
        except Exception as fault:
            # The journal can't be written: the run stays as its rows say, and nothing runs on.
            await self._let_go(run)
            known = isinstance(fault, Ring0Error)
            self.tell(
                run.id,
                fault
                if known
                else RunFailed(
                    f"ring0 failed to end {run.id}: {type(fault).__name__}: {fault}",
                    why="A fault of ring0.",
                    todo="Report it; `ring0 recover` goes on with the run.",
                ),
            )
        finally:
            self._tasks.pop(run.id, None)
            self.agents.pop(run.id, None)
            self.children.forget(run.id)

    def _hear(self, run: str, text: str) -> None:
        if self.heard is not None:
            self.heard(run, text)

    async def _process(self, run: LiveRun, output: Output) -> Any:
        """The agent's result; what it prints goes into `output`. Raises its error."""
        if run.row.mode is Mode.EMBEDDED:
            assert self.embed is not None, "no SDK was given to embed with"
            function = run.agent.functions[f"agent:{run.agent.manifest.name}"]
            return await self.embed(run, function)
        assert self.doors is not None, "no gateway was given to open doors with"
        doors: list[OpenDoor] = []

        async def open_door(sandbox: Sandbox) -> None:
            doors.append(await self.doors(run, sandbox))  # type: ignore[misc]

        spec = processes.agent_spec(run.agent, self.sandboxes)
        sandbox = await self.sandboxes.start(run.id, spec, "agent", open_door)
        reading = self.runtime.start(output.read(sandbox), name=f"output of {run.id}")
        try:
            sandbox.stdin.close()
            return await processes.outcome(run, sandbox, output, reading)
        finally:
            self.gate.handles.kill(run.id)
            for door in doors:
                await door.close()
            await self.sandboxes.end(sandbox)
            reading.cancel()

    # --- ending -------------------------------------------------------------------------------

    async def end(
        self,
        run: str,
        state: RunState,
        value: Any = None,
        error: Ring0Error | None = None,
        *,
        by: str = "",
        output: bytes = b"",
    ) -> Run:
        """Ends a run and all beneath it. Ending an ended run is nothing."""
        self.gate.handles.kill(run)
        if (who := self._cancelled.get(run)) is not None:  # However it went, it was cancelled.
            state, value, by = RunState.CANCELLED, None, who
            error = CallDenied(f"{run} was cancelled.", why=f"By {by}.", todo="Start a new run.")
        live = self.gate.live.pop(run, None)
        if live is not None:
            await live.stop_calls()
            await live.close_tools()
            unknown = any(call.state is CallState.UNKNOWN for call in live.records.values())
            if unknown and state is not RunState.CANCELLED:
                state = RunState.UNKNOWN  # It left an effect behind that nobody knows of.
        await self.sandboxes.end_all(run)
        await self.store.flush()  # What its last calls began to write (a child, an ask) is there.
        while children := await self.store.runs(parent=run, states=LIVE):
            for child in children:
                await self.cancel(child.id, by=by or "its parent ended")
            await self.store.flush()
        await self.gate.waiting.revoke(run, by or "kernel")
        await self.store.flush()
        row = await self.store.run(run)
        assert row is not None
        if row.state not in ENDED:
            row = await self._write_end(row, state, value, error, by, output)
        self.tell(run, row)
        return row

    async def _write_end(
        self,
        row: Run,
        state: RunState,
        value: Any,
        error: Ring0Error | None,
        by: str,
        output: bytes,
    ) -> Run:
        secrets = self.gate.secrets
        body: dict[str, Any] = {"value": secrets.redact(value)[0]}
        if error is not None:
            body = {"error": secrets.redact(error.as_dict())[0]}
        key = await self.store.run_key(row.id)
        stored = values.canonical(body)
        printed = secrets.redact_text(output.decode()).encode()
        blobs = {address(key, stored): stored, address(key, printed): printed}
        try:
            await self.store.append(
                Write(
                    run=row.id,
                    blobs=blobs,
                    durable=True,
                    guards=[base.RunLive(run=row.id, epoch=row.epoch)],
                    events=[
                        ev.RunEnded(
                            state=state,
                            result=address(key, stored),
                            epoch=row.epoch + 1,
                            output=address(key, printed) if printed else "",
                            by=by,
                        )
                    ],
                )
            )
        except GuardFailed:
            await self.store.flush()  # Somebody else ended it first: its write is on its way.
        found = await self.store.run(row.id)
        assert found is not None
        return found

    async def cancel(self, run: str, *, by: str) -> None:
        """Ends a run from outside: its process is stopped first, its end says who asked."""
        task = self._tasks.get(run)
        self._cancelled[run] = by
        await self.end(run, RunState.CANCELLED, by=by)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _park(self, run: LiveRun, error: Ring0Error) -> None:
        """A diverged recovery waits as a row for a human; it never goes live by itself."""
        await self._let_go(run)
        await self.gate.waiting.move(run, RunState.WAITING, "diverged", note=error.why[:500])
        self.tell(run.id, error)

    async def _let_go(self, run: LiveRun) -> None:
        """Stops what runs, and leaves the rows as they are."""
        self.gate.handles.kill(run.id)
        self.gate.live.pop(run.id, None)
        await run.stop_calls()
        await run.close_tools()
        await self.sandboxes.end_all(run.id)

    def tell(self, run: str, end: Run | Exception) -> None:
        future = self._ends.setdefault(run, asyncio.get_running_loop().create_future())
        if future.done():
            return
        if isinstance(end, Exception):
            future.set_exception(end)
            future.exception()
        else:
            future.set_result(end)

    async def wait(self, run: str) -> Run:
        """The run's row once it has ended. Raises what keeps it from ending here."""
        row = await self.store.run(run)
        if row is None:
            raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
        if row.state in ENDED:
            return row
        future = self._ends.setdefault(run, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    def forget_end(self, run: str) -> None:
        """What kept it from ending is no end: it is waited for anew."""
        self._ends.pop(run, None)

    def at_work(self) -> frozenset[str]:
        """Runs whose process goes on here."""
        return frozenset(self._tasks)

    async def stop(self) -> None:
        """Stops all runs without ending them: a later kernel recovers them."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
