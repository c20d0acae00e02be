"""A run's children: spawned, counted, waited for. Their life is as any run's (runs.py)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import limits
from ring0.errors import (
    CallDenied,
    LimitReached,
    Ring0Error,
    RunFailed,
    StoreFailed,
    StoreFull,
)
from ring0.scheduler import refusal
from ring0.store import GuardFailed
from ring0.types import Budget, Run

if TYPE_CHECKING:
    from ring0.kernel.agents import Agent
    from ring0.kernel.runs import Runs


class Children:
    """Carries out `spawn` and `wait` for the runs of one kernel."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._of: dict[str, set[str]] = {}
        """Of each live parent, those that are there or on their way."""

    def forget(self, parent: str) -> None:
        """The parent has ended."""
        self._of.pop(parent, None)

    async def spawn(self, parent: Run, name: str, task: str, call: str) -> str:
        """The child of this call: the same call always has the same child."""
        child = f"r-{hashlib.sha256(call.encode()).hexdigest()[:12]}"
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
            row, agent = await self._queue(parent, name, task, child)
        except Ring0Error:
            children.discard(child)  # It was refused: it takes nobody's place.
            raise
        await self._runs.start(row, agent)
        return child

    async def _queue(self, parent: Run, name: str, task: str, child: str) -> tuple[Run, Agent]:
        await self._runs.store.flush()
        now = await self._runs.store.run(parent.id)
        assert now is not None
        agent = self._runs.agents[parent.id].child(name, _share(now))
        try:
            row = await self._runs.queue(
                agent,
                task,
                principal=parent.principal,
                tenant=parent.tenant,
                parent=parent,
                run=child,
            )
        except GuardFailed as failure:
            raise refusal(parent, failure.detail) from None
        return row, agent

    async def wait_for_child(self, parent: Run, child: str) -> tuple[Run, Any]:
        """A child's row, and its value or error."""
        row = await self._runs.store.run(child)
        if row is None or row.parent != parent.id:
            raise CallDenied(
                f"{child[:40]!r} is no child of this run.",
                why="A run waits for its own children only.",
                todo="Use the id that `spawn` gave.",
            )
        async with self._runs.gate.waiting.state(self._runs.gate.live[parent.id], "child"):
            row = await self._end_of(child)
        body = msgspec.json.decode(await self._runs.store.blob(row.result))
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
                return await self._runs.wait(child)
            except (StoreFull, StoreFailed):
                raise
            except Ring0Error:
                # Interrupted, diverged, not recovered: it has not ended, so the wait has not.
                self._runs.forget_end(child)


def _share(parent: Run) -> Budget:
    """The most that one child may get: half of the calls that are left, and all of the money."""
    return Budget(
        calls=max(1, (parent.budget.calls - parent.calls_used) // 2),
        cost_microusd=max(0, parent.budget.cost_microusd - parent.cost_used_microusd),
        wall_s=parent.budget.wall_s,
    )
