"""A run's children: spawned, counted, waited for, ended. Their life is as any run's (runs.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import limits
from ring0.errors import (
    CallDenied,
    LimitReached,
    Ring0Error,
    RunDead,
    RunFailed,
    StoreFailed,
    StoreFull,
)
from ring0.identity import narrowing
from ring0.kernel.life.queueing import Beside
from ring0.scheduler.budgets import refusal
from ring0.store import GuardFailed, child_of
from ring0.tools.driver import CallContext, Result
from ring0.types import ENDED, LIVE, Budget, Integrity, Label, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.life.runs import Runs


class Children:
    """Carries out `spawn` and `wait` for the runs of one kernel."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._of: dict[str, set[str]] = {}
        """Of each live parent, those that are there or on their way."""

    def forget(self, parent: str) -> None:
        """The parent has ended, or was put away."""
        self._of.pop(parent, None)

    async def spawn(
        self, parent: Run, name: str, task: str, call: str, only: Sequence[str] | None = None
    ) -> str:
        """The child of this call: the same call always has the same child. `only`: its task's
        grant, beneath all that its parent holds."""
        child = child_of(call)
        row = await self._runs.store.run(child)
        if row is not None:
            return child
        # Counted before anything is awaited: of many at once no one too many gets through.
        children = self._of.setdefault(
            parent.id, {one.id for one in await self._runs.store.runs(parent=parent.id)}
        )
        children.add(child)
        if len(children) > limits.RUN_CHILDREN_MAX:
            children.discard(child)
            raise LimitReached(
                f"The run has {limits.RUN_CHILDREN_MAX} children already.",
                why="A tree has a width.",
                todo="Do it in this run.",
            )
        try:
            await self._begin(parent, name, task, child, only)
        except Ring0Error:
            children.discard(child)  # It was refused: it takes nobody's place.
            raise
        self._runs.runtime.reached("child.spawned")
        return child

    async def _begin(
        self, parent: Run, name: str, task: str, child: str, only: Sequence[str] | None
    ) -> None:
        grant = None if only is None else narrowing.for_task(only)
        await self._runs.store.flush()
        now = await self._runs.store.run(parent.id)
        live = self._runs.gate.live.get(parent.id)
        if now is None or live is None:
            raise RunDead(f"{parent.id} goes on no more.", todo="Start a new run.")
        agent = live.agent.child(name, _left(now))
        try:
            await self._runs.begin(
                agent,
                task,
                principal=parent.principal,
                tenant=parent.tenant,
                parent=parent,
                run=child,
                beside=Beside(only=grant),
            )
        except GuardFailed as failure:
            raise refusal(parent, failure.detail) from None

    # --- waiting for them -----------------------------------------------------------------------

    async def wait(self, context: CallContext, args: dict[str, Any]) -> Result:
        """What became of children. Several are told as a list in the order asked; the first of
        several is the one whose end stands earliest, the same whenever it is asked."""
        parent = context.run.id
        named = [args["run"]] if "run" in args else list(args["runs"])
        rows = [await self._child(parent, one) for one in named]
        if args.get("cancel") and not args.get("first"):
            await self._cancel(rows, parent)
        any_of = bool(args.get("first"))
        rows = await self._ended(parent, named, any_of=any_of)
        if "run" in args:
            return await self._one(rows[0])
        if any_of:
            ended = [row for row in rows if row.state in ENDED]
            order = {run: place for place, run in enumerate(named)}
            first = min(ended, key=lambda row: (row.ended_us, order[row.id]))
            if args.get("cancel"):
                others = [row for row in rows if row.id != first.id]
                await self._cancel(others, parent)
            rows = [first]
        told = [await self._told(row) for row in rows]
        label = Label(integrity=Integrity.SYSTEM)
        for row in rows:
            label = label.join(_label(row))
        return Result(value=told, label=label)

    async def _child(self, parent: str, child: str) -> Run:
        row = await self._runs.store.run(child)
        if row is None or row.parent != parent:
            raise CallDenied(
                f"{child[:40]!r} is no child of this run.",
                why="A run waits for its own children only.",
                todo="Use the id that `spawn` gave.",
            )
        return row

    async def _cancel(self, rows: Sequence[Run], by: str) -> None:
        """Returns when each has ended, with all beneath it."""
        live = [row.id for row in rows if row.state in LIVE]
        await asyncio.gather(*(self._runs.cancel(run, by=by) for run in live))

    async def _ended(self, parent: str, children: list[str], *, any_of: bool) -> list[Run]:
        """Their rows, once all (or one) of them have ended."""
        rows = [await self._child(parent, one) for one in children]
        if _enough(rows, any_of):
            return rows
        gate = self._runs.gate
        waiting = {
            one: self._runs.runtime.start(self._end_of(one), name=f"{parent} waits for {one}")
            for one in children
        }
        when = asyncio.FIRST_COMPLETED if any_of else asyncio.ALL_COMPLETED
        try:
            with gate.turns.waits_for(parent, children, any_of):
                async with gate.waiting.state(gate.live[parent], "child"):
                    done, _ = await asyncio.wait(waiting.values(), return_when=when)
            for task in done:
                task.result()  # Raised is only what keeps the journal from being read.
        finally:
            for task in waiting.values():
                task.cancel()
        return [await self._child(parent, one) for one in children]

    async def _end_of(self, child: str) -> Run:
        while True:
            try:
                return await self._runs.wait(child)
            except (StoreFull, StoreFailed):
                raise
            except Ring0Error:
                # Interrupted, diverged, not recovered: it has not ended, so the wait has not.
                self._runs.ends.goes_on(child)

    # --- what is told of them -------------------------------------------------------------------

    async def _body(self, row: Run) -> dict[str, Any]:
        body = msgspec.json.decode(await self._runs.store.blob(row.result))
        if "error" in body:
            error = body["error"]
            if row.state is RunState.CANCELLED:
                error["what"] = f"The child {row.id} was cancelled."  # Its own words say no more.
            else:
                error["what"] = f"The child {row.id} {row.state}: {error['what']}"
        assert isinstance(body, dict)
        return body

    async def _one(self, row: Run) -> Result:
        body = await self._body(row)
        if "error" in body:
            error = body["error"]
            failed = RunFailed(error["what"], why=error["why"], todo=error["todo"])
            failed.confidentiality = str(row.label.confidentiality)
            raise failed
        return Result(value=body["value"], label=_label(row))

    async def _told(self, row: Run) -> dict[str, Any]:
        return {"run": row.id, "state": str(row.state), **await self._body(row)}


def _enough(rows: Sequence[Run], any_of: bool) -> bool:
    ended = [row.state in ENDED for row in rows]
    return any(ended) if any_of else all(ended)


def _label(row: Run) -> Label:
    """What a child came to is as untrusted as the child became."""
    return Label(
        integrity=row.label.integrity,
        confidentiality=row.label.confidentiality,
        sources=(f"run {row.id}",),
    )


def _left(parent: Run) -> Budget:
    """The most that one child may get. Its parent keeps some calls: to wait for it is one."""
    budget = parent.budget
    calls = budget.calls - parent.calls_used
    return Budget(
        calls=max(1, calls - calls // limits.CHILD_SHARE),
        tokens=max(0, budget.tokens - parent.tokens_used),
        cost_microusd=max(0, budget.cost_microusd - parent.cost_used_microusd),
        wall_s=budget.wall_s,
        children=max(0, budget.children - parent.children_used - 1),
        depth=max(0, budget.depth - 1),
    )
