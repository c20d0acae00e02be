"""A run's process, from its start to whatever comes of it: an end, mostly.

Or it is put away because it waits, started again because it stood still, kept because the kernel
stops. Which of these is decided elsewhere, and told by `LiveRun.stopped`; here it is done.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import Interrupted, LimitReached, Ring0Error, RunFailed, StoreFailed, StoreFull
from ring0.kernel import values
from ring0.kernel.agent import processes
from ring0.kernel.agent.printed import Output
from ring0.kernel.life import cutting
from ring0.kernel.live import LiveRun, Stop
from ring0.scheduler.budgets import check_deadline
from ring0.tools.sandbox import Sandbox
from ring0.types import ENDED, Mode, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.life.runs import OpenDoor, Runs


class Carrying:
    """Carries on the runs of one kernel whose process stands here."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._frozen: dict[str, int] = {}
        """How often each was started again because its process stood still."""

    def forget(self, run: str) -> None:
        """It has ended."""
        self._frozen.pop(run, None)

    async def live(self, run: LiveRun, known: frozenset[str]) -> None:
        """Runs the agent, and does what came of it: an end, mostly."""
        output = Output(lambda text: self._hear(run.id, text))
        away: Run | None = None
        again: Run | None = None
        try:
            value, error = await self._outcome(run, output)
            if run.diverged is not None:
                await self._let_go(run)
                why = values.why(run.diverged.why)
                await self._runs.gate.waiting.move(run, RunState.WAITING, "diverged", note=why)
                self._runs.ends.kept(run.id, run.diverged)
            elif run.stopped.done() and run.stopped.result() is Stop.AWAY:
                away = await self._away(run)
            elif run.stopped.done() and run.stopped.result() is Stop.FROZEN:
                again = await self._thaw(run)
            elif isinstance(error, StoreFull | StoreFailed):
                raise error
            else:
                state = RunState.FAILED if error else RunState.DONE
                await self._runs.ending.end(run.id, state, value, error, output=output.as_blob())
                if self._runs.after is not None:
                    self._runs.after(run)
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(run))
            what = f"{run.id} was interrupted and is kept."
            self._runs.ends.kept(run.id, Interrupted(what, todo="`ring0 recover` goes on with it."))
        except Exception as fault:
            # The journal can't be written: the run stays as its rows say, and nothing runs on.
            await self._let_go(run)
            self._runs.ends.kept(run.id, fault if isinstance(fault, Ring0Error) else _ours(fault))
        finally:
            self._left(run)
            if away is not None and away.state is RunState.WAITING:
                functions = run.agent.functions if run.row.mode is Mode.EMBEDDED else None
                self._runs.waking.take_on(away, functions, known)
            elif again is not None and not self._runs.ending.has_begun(run.id):
                self._runs.beginning.woken(again, run.agent, known)

    def _left(self, run: LiveRun) -> None:
        """Nothing carries the run on here any more; it has ended, or it is a row."""
        self._runs.left(run.id)
        self._runs.children.forget(run.id)
        self._runs.waking.alarms.busy(run.id)
        self._runs.beginning.starts.leave(run.id)

    async def _outcome(self, run: LiveRun, output: Output) -> tuple[Any, Ring0Error | None]:
        """What the agent came to, or (None, …) where the kernel stopped it."""
        process = self._runs.runtime.start(self._process(run, output), name=f"process of {run.id}")
        process.add_done_callback(_heard)  # Where it was stopped, what it says counts nothing.
        run.process = process
        try:
            await asyncio.wait({process, run.stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not process.done():
                self._runs.gate.handles.kill(run.id)
                process.cancel()
                with suppress(TimeoutError):
                    await self._runs.runtime.wait_for(
                        asyncio.wait({process}), limits.AGENT_STOP_S_MAX
                    )
        if run.stopped.done():
            if run.stopped.result() is not Stop.OVER:
                return None, None
            try:
                check_deadline(run.row, max(self._runs.runtime.now_us(), run.row.deadline_us))
            except LimitReached as over:
                return None, over
        try:
            return process.result(), None
        except Ring0Error as failure:
            return None, failure
        except (Exception, asyncio.CancelledError) as fault:
            return None, _ours(fault)

    def _hear(self, run: str, text: str) -> None:
        if self._runs.heard is not None:
            self._runs.heard(run, text)

    async def _process(self, run: LiveRun, output: Output) -> Any:
        """The agent's result; what it prints goes into `output`. Raises its error."""
        if run.agent.family.kernels:
            return await self._runs.own[run.agent.family.kernels](run)
        if run.row.mode is Mode.EMBEDDED:
            assert self._runs.embed is not None, "no SDK was given to embed with"
            function = run.agent.functions[f"agent:{run.agent.manifest.name}"]
            return await self._runs.embed(run, function)
        assert self._runs.doors is not None, "no gateway was given to open doors with"
        doors: list[OpenDoor] = []

        async def open_door(sandbox: Sandbox) -> None:
            doors.append(await self._runs.doors(run, sandbox))  # type: ignore[misc]

        task = await self._runs.store.blob(run.row.task)
        spec = processes.agent_spec(run.agent, self._runs.sandboxes, task)
        if self._runs.environment:
            spec = replace(spec, env={**spec.env, **self._runs.environment})
        sandbox = await self._runs.sandboxes.start(run.id, spec, "agent", open_door)
        run.watched = sandbox.identity.pid
        dying = self._runs.runtime.start(self._dies_with(run, sandbox), name=f"end of {run.id}")
        self._runs.freezing.watch()
        reading = self._runs.runtime.start(output.read(sandbox), name=f"output of {run.id}")
        try:
            sandbox.stdin.close()
            return await processes.outcome(run, sandbox, output, reading)
        finally:
            self._runs.gate.handles.kill(run.id)
            for door in doors:
                await door.close()
            await self._runs.sandboxes.end(sandbox)
            reading.cancel()
            dying.cancel()

    async def _dies_with(self, run: LiveRun, sandbox: Sandbox) -> None:
        """The moment its process is dead, nobody is this run any more: what it printed may still be
        read, and what it said in the end may still be written."""
        await sandbox.dead()
        self._runs.gate.handles.process_died(run.handle)

    async def _let_go(self, run: LiveRun) -> None:
        """Stops what runs, and leaves the rows as they are."""
        self._runs.gate.handles.kill(run.id)
        if self._runs.gate.live.get(run.id) is run:
            del self._runs.gate.live[run.id]
        await run.stop_calls()
        await run.close_tools()
        await self._runs.sandboxes.end_all(run.id)

    async def _away(self, run: LiveRun) -> Run | None:
        """The run's row, once all else of it is gone; None where it has ended."""
        reason = "pause" if run.waits["pause"] else next(iter(run.waits), "")
        wake_us = min([run.row.deadline_us, *run.alarms])
        await self._let_go(run)
        await self._runs.gate.waiting.move(run, RunState.WAITING, reason, wake_us=max(1, wake_us))
        await self._runs.store.flush()
        self._runs.runtime.reached("run.put-away")
        return await self._runs.store.run(run.id)

    async def _thaw(self, run: LiveRun) -> Run | None:
        """The run's row where it is to be started again."""
        await self._let_go(run)
        times = self._frozen[run.id] = self._frozen.get(run.id, 0) + 1
        await self._runs.store.flush()
        if (row := await self._runs.store.run(run.id)) is None or row.state in ENDED:
            return None
        if times <= limits.FROZEN_RESTARTS_MAX:
            await cutting.cut_off(self._runs.store, row)
            return row
        error = RunFailed(
            f"The agent's process was stopped by a signal {times} times.",
            why=f"It stood still for {limits.FROZEN_S} s each time, and was started again.",
            todo="Find out who stops it; then start a new run.",
        )
        await self._runs.ending.end(run.id, RunState.FAILED, error=error)
        return None


def _ours(fault: BaseException) -> RunFailed:
    return RunFailed(
        f"ring0 failed to run the agent: {type(fault).__name__}: {fault}",
        why="A fault of ring0.",
        todo="Report it, with `ring0 show`; `ring0 recover` goes on with what has not ended.",
    )


def _heard(process: asyncio.Task[Any]) -> None:
    """Its exception was looked at, whoever else does."""
    if not process.cancelled():
        process.exception()
