"""Crashes of a kernel at named points, and what a start of another one makes of a run: for
`approvals_machine.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kernel_world import JumpingRuntime, World

from ring0.kernel.asks import newest
from ring0.kernel.live import LiveRun
from ring0.store import Write, base
from ring0.store import events as ev
from ring0.types import CallState, Effect

POINTS = (
    "call.judged",
    "approval.asked",
    "approval.answered",
    "call.admitted",
    "approval.consumed",
    "effect.begins",
    "effect.over",
    "call.ends",
)


class Crash(BaseException):
    """The kernel is gone."""


class Points(JumpingRuntime):
    """Crashes at a point, once, and says where each call stood when it was admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_at = ""
        self.crashed = 0
        self.admitted: Any = None

    def reached(self, point: str) -> None:
        if point not in POINTS:
            return
        task = asyncio.current_task()
        if point == "call.admitted" and self.admitted is not None and task is not None:
            self.admitted(task.get_name())
        if point == self.crash_at:
            self.crash_at = ""
            self.crashed += 1
            raise Crash(point)


async def started_again(w: World, tasks: list[asyncio.Task[Any]]) -> None:
    """The process of the kernel is gone: what is not on record is not there."""
    run = w.run
    in_flight = list(run._in_flight.values())
    for task in (*in_flight, *tasks):
        task.cancel()
    await asyncio.gather(*in_flight, *tasks, return_exceptions=True)
    await w.store.flush()
    row = await w.store.run(run.id)
    for call in await w.store.calls(run.id):
        if call.state is CallState.INTENDED and call.effect is Effect.ONCE:
            await _cut_off(w, run, call.id)
    run.row = row
    run.records = {call.id: call for call in await w.store.calls(run.id)}
    run.approvals = newest(await w.store.approvals(run=run.id))
    run.paused_by = row.paused_by
    run.waits.clear()
    run.alarms.clear()
    w.kernel.waiting._waiters.clear()
    standings = w.kernel.waiting.standings
    standings._known.clear()
    await standings.load()


async def _cut_off(w: World, run: LiveRun, call: str) -> None:
    event = ev.CallCutOff(call=call, why="the kernel ended")
    guard = base.CallOpen(call=call)
    await w.store.append(Write(run=run.id, durable=True, events=[event], guards=[guard]))


def is_crash(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and isinstance(task.exception(), Crash)
