"""Agents' processes that somebody stopped with a signal: found, so that their runs can go on.

A process that stands still holds its run for ever: it makes no call and never ends. What waits in
a call, or computes, is not meant: only what Linux says is stopped, for FROZEN_S on end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime

_STOPPED: Final = frozenset("Tt")
"""By a signal; by a tracer."""


class Freezing:
    """Looks now and then at the processes of runs that have one."""

    def __init__(
        self,
        runtime: Runtime,
        live: Callable[[], Iterable[LiveRun]],
        frozen: Callable[[str], None],
        is_stopped: Callable[[int], bool] | None = None,
    ) -> None:
        """`frozen`: told of each run whose process has stood still for too long."""
        self._runtime = runtime
        self._live = live
        self._frozen = frozen
        self._is_stopped = is_stopped or stopped
        self._since_us: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """There is a process to look at."""
        if self._task is None or self._task.done():
            self._task = self._runtime.start(self._go(), name="watch over processes")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go(self) -> None:
        while watched := [run for run in self._live() if run.watched]:
            self._look(watched)
            await self._runtime.sleep(limits.FROZEN_LOOK_S)

    def _look(self, watched: list[LiveRun]) -> None:
        now_us = self._runtime.monotonic_us()
        still = {run.id for run in watched if self._is_stopped(run.watched)}
        self._since_us = {run: self._since_us.get(run, now_us) for run in sorted(still)}
        for run, since_us in list(self._since_us.items()):
            if now_us - since_us >= limits.FROZEN_S * 1_000_000:
                del self._since_us[run]
                self._frozen(run)


def stopped(pid: int) -> bool:
    """Is this process stopped, or the first that it began? (A sandbox's own first process begins
    the agent's.) One that is gone is not."""
    return any(_state(one) in _STOPPED for one in (pid, *_children(pid)[:1]))


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2 :][:1]


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
