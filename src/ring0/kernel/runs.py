"""A run's life: queued, started, waited for, ended, killed, and recovered after a crash.

Whatever way a run ends, it ends in this order: its handle dies, its calls are stopped (each writes
how it ended), its sandboxes are confirmed dead, its children are cancelled, its asks are revoked,
and only then the end is written.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import (
    CallDenied,
    EffectUnknown,
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
from ring0.kernel.agents import Agent, Family
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.scheduler import refusal
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.tools import registry
from ring0.tools.functions import EmbeddedFunction
from ring0.tools.registry import Tool
from ring0.tools.sandbox import Sandbox
from ring0.types import (
    ENDED,
    LIVE,
    Budget,
    Call,
    CallState,
    Effect,
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
        doors: Doors | None,
        embed: Embed | None,
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.gate = gate
        self.sandboxes = sandboxes
        self.folder = folder
        self.doors = doors
        self.embed = embed
        self.heard: Heard | None = None
        self.models: frozenset[str] = frozenset()
        """Names of the operator's models: every agent may ask for them."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Future[Run]] = {}
        self._agents: dict[str, Agent] = {}
        self._children: dict[str, set[str]] = {}
        """Of each live parent, those that are there or on their way."""
        self._cancelled: dict[str, str] = {}
        """Runs that are being ended from outside, and by whom."""
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
        self._agents[row.id] = agent
        if row.id not in self._ends or self._ends[row.id].done():  # Of an earlier start.
            self._ends[row.id] = asyncio.get_running_loop().create_future()
        self._tasks[row.id] = self.runtime.start(self._live(run), name=f"run {row.id}")
        return run

    def tools(self, agent: Agent) -> list[Tool]:
        """All that the agent's manifest names, with schemas compiled. Raises ManifestInvalid."""
        manifest = agent.manifest
        folder, home = Path(manifest.folder), self.folder.parent
        drivers = list(registry.built_in(manifest.tools, folder, self.runtime, home))
        if agent.family.mode is Mode.ISOLATED and manifest.functions:
            drivers += processes.functions(agent, self.sandboxes, self.runtime)
        elif manifest.functions:
            drivers += [
                EmbeddedFunction(tool, agent.functions[f"tool:{tool.name}"])
                for tool in manifest.functions
            ]
        return [Tool(driver) for driver in drivers]

    # --- living -------------------------------------------------------------------------------

    async def _live(self, run: LiveRun) -> None:
        """Runs the agent, and ends the run by what came of it."""
        output = processes.Output(
            None if self.heard is None else lambda text: self.heard(run.id, text)
        )
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
            self._tell(
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
            self._tell(
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
            self._agents.pop(run.id, None)
            self._children.pop(run.id, None)

    async def _process(self, run: LiveRun, output: processes.Output) -> Any:
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
        self._tell(run, row)
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
        self._tell(run.id, error)

    async def _let_go(self, run: LiveRun) -> None:
        """Stops what runs, and leaves the rows as they are."""
        self.gate.handles.kill(run.id)
        self.gate.live.pop(run.id, None)
        await run.stop_calls()
        await self.sandboxes.end_all(run.id)

    def _tell(self, run: str, end: Run | Exception) -> None:
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

    async def stop(self) -> None:
        """Stops all runs without ending them: a later kernel recovers them."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- children -----------------------------------------------------------------------------

    async def spawn(self, parent: Run, name: str, task: str, call: str) -> str:
        """The child of this call: the same call always has the same child."""
        child = f"r-{hashlib.sha256(call.encode()).hexdigest()[:12]}"
        row = await self.store.run(child)
        if row is not None:
            return child
        # Counted before anything is awaited: of many at once no one too many gets through.
        children = self._children.setdefault(
            parent.id, {one.id for one in await self.store.runs(parent=parent.id)}
        )
        children.add(child)
        if len(children) > limits.RUN_CHILDREN_MAX:
            children.discard(child)
            raise LimitReached(
                f"The run has {limits.RUN_CHILDREN_MAX} children already.",
                why="A tree has a width.",
                todo="Do it in this run.",
            )
        await self.store.flush()
        now = await self.store.run(parent.id)
        assert now is not None
        agent = self._agents[parent.id].child(name, _share(now))
        try:
            row = await self.queue(
                agent,
                task,
                principal=parent.principal,
                tenant=parent.tenant,
                parent=parent,
                run=child,
            )
        except GuardFailed as failure:
            raise refusal(parent, failure.detail) from None
        await self.start(row, agent)
        return child

    async def wait_for_child(self, parent: Run, child: str) -> tuple[Run, Any]:
        """A child's row, and its value or error."""
        row = await self.store.run(child)
        if row is None or row.parent != parent.id:
            raise CallDenied(
                f"{child[:40]!r} is no child of this run.",
                why="A run waits for its own children only.",
                todo="Use the id that `spawn` gave.",
            )
        async with self.gate.waiting.state(self.gate.live[parent.id], "child"):
            row = await self._end_of(child)
        body = msgspec.json.decode(await self.store.blob(row.result))
        if "error" in body:
            error = body["error"]
            return row, RunFailed(
                f"The child {child} {row.state}: {error['what']}",
                why=error["why"],
                todo=error["todo"],
            )
        return row, body["value"]

    async def _end_of(self, child: str) -> Run:
        while True:
            try:
                return await self.wait(child)
            except (StoreFull, StoreFailed):
                raise
            except Ring0Error:
                # Interrupted, diverged, not recovered: it has not ended, so the wait has not.
                self._ends.pop(child, None)

    # --- after a crash ------------------------------------------------------------------------

    async def cut_off(self) -> list[Call]:
        """At boot: marks each `once` call without an outcome as unknown. Returns those."""
        unknown = []
        for row in await self.store.runs(states=LIVE, most=100_000):
            for call in await self.store.calls(row.id):
                if call.state is CallState.INTENDED and call.effect is Effect.ONCE:
                    why = EffectUnknown("the kernel ended between the intent and the outcome").what
                    await self.store.append(
                        Write(
                            run=row.id, durable=True, events=[ev.CallCutOff(call=call.id, why=why)]
                        )
                    )
                    unknown.append(call)
        return unknown

    async def recover(self, functions: Callable[[Family], Agent | None]) -> list[str]:
        """Starts every run again that had not ended. Returns their ids, parents first.

        `functions` finds the code of an embedded agent; without it such a run waits as a row.
        What keeps one run from starting is in `not_recovered`, and keeps back no other; raised is
        it where nothing else was started.
        """
        started = []
        self.not_recovered = {}
        for row in reversed(await self.store.runs(states=LIVE, most=100_000)):
            if row.id in self._tasks:
                continue  # It is at work.
            try:
                family = await agents.family_of(self.store, row.id)
                if row.mode is Mode.EMBEDDED:
                    agent = functions(family)
                    if agent is None:
                        continue
                else:
                    agent = agents.restore(family, row.agent_digest, self.folder)
                await self.start(row, agent)
                started.append(row.id)
            except RunDead:
                continue  # A kill reached it before the crash: now it has ended.
            except (StoreFull, StoreFailed):
                raise
            except Ring0Error as error:
                self.not_recovered[row.id] = error
                self._tell(row.id, error)
        if self.not_recovered and not started:
            raise next(iter(self.not_recovered.values()))
        return started


def _share(parent: Run) -> Budget:
    """The most that one child may get: half of the calls that are left, and all of the money."""
    return Budget(
        calls=max(1, (parent.budget.calls - parent.calls_used) // 2),
        cost_microusd=max(0, parent.budget.cost_microusd - parent.cost_used_microusd),
        wall_s=parent.budget.wall_s,
    )
