"""When a run is to be looked at: at a time, because something happened, or after it was idle.

One loop for all runs, asleep until the next alarm. It decides nothing: it calls `look` for a run
whose time has come or that was woken, and `idle` for one that has waited long enough here.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from ring0 import limits
from ring0.runtime import Runtime


class Alarms:
    """One alarm a run: a later `set` replaces the earlier one. `close` it."""

    def __init__(
        self,
        runtime: Runtime,
        look: Callable[[str, bool], Awaitable[None]],
        idle: Callable[[str], None],
    ) -> None:
        """`look(run, anyway)` must not raise; `anyway`: who woke it knows that there is something
        to do. Two looks at one run never overlap. `idle(run)` is not awaited."""
        self._runtime = runtime
        self._look = look
        self._on_idle = idle
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}
        """The alarm of each run that has one; what else is in the heap is void."""
        self._woken: dict[str, bool] = {}
        """To be looked at now, in this order; True: anyway."""
        self._idle: dict[str, int] = {}
        """Until when, by the monotonic clock: all wait equally long, so they are in order."""
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def set(self, run: str, at_us: int) -> None:
        """Look at it then (microseconds since 1970)."""
        if self._at.get(run) == at_us:
            return
        self._at[run] = at_us
        heapq.heappush(self._heap, (at_us, run))
        if len(self._heap) > 2 * len(self._at) + limits.ALARMS_VOID_MAX:
            self._heap = [(at, one) for one, at in self._at.items()]
            heapq.heapify(self._heap)
        if self._heap[0][1] == run:
            self._poke()

    def drop(self, run: str) -> None:
        """Nothing is to come for it any more."""
        self._at.pop(run, None)
        self._woken.pop(run, None)
        self._idle.pop(run, None)

    def wake(self, run: str, *, anyway: bool = False) -> None:
        """Look at it now."""
        self._woken[run] = self._woken.get(run, False) or anyway
        self._poke()

    def idle(self, run: str, until_us: int) -> None:
        """It began to wait; `until_us` by the monotonic clock."""
        self._idle[run] = until_us
        if len(self._idle) == 1:
            self._poke()

    def busy(self, run: str) -> None:
        """It goes on."""
        self._idle.pop(run, None)

    def at(self, run: str) -> int:
        """When its alarm goes off; 0: it has none, or it is being looked at."""
        return self._at.get(run, 0)

    def woken(self, run: str) -> bool:
        """It is about to be looked at, or is being."""
        return run in self._woken or run in self._looking

    async def close(self) -> None:
        self._closed = True
        tasks = [*self._looking.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    # --- the loop -----------------------------------------------------------------------------

    def _poke(self) -> None:
        self._poked.set()
        if self._task is None and not self._closed:
            self._task = self._runtime.start(self._go(), name="alarms of runs")

    async def _go(self) -> None:
        while True:
            self._poked.clear()
            self._ring()
            self._begin_looks()
            self._end_idleness()
            if not self._poked.is_set():
                await self._rest()

    def _ring(self) -> None:
        now_us = self._runtime.now_us()
        while self._heap and self._heap[0][0] <= now_us:
            at_us, run = heapq.heappop(self._heap)
            if self._at.get(run) == at_us:
                del self._at[run]
                self._woken.setdefault(run, False)

    def _begin_looks(self) -> None:
        for run in list(self._woken):
            if len(self._looking) >= limits.RUNS_LOOKED_AT_ONCE_MAX:
                return
            if run not in self._looking:  # Otherwise once more when that look is over.
                look = self._look_at(run, self._woken.pop(run))
                self._looking[run] = self._runtime.start(look, name=f"look at {run}")
                self._looking[run].add_done_callback(lambda _, run=run: self._looked(run))  # type: ignore[misc]

    async def _look_at(self, run: str, anyway: bool) -> None:
        await self._look(run, anyway)

    def _looked(self, run: str) -> None:
        del self._looking[run]
        if self._woken:
            self._poked.set()

    def _end_idleness(self) -> None:
        now_us = self._runtime.monotonic_us()
        while self._idle:
            run, until_us = next(iter(self._idle.items()))
            if until_us > now_us:
                return
            del self._idle[run]
            self._on_idle(run)

    async def _rest(self) -> None:
        """Until the next alarm, or until something changes."""
        left_us = limits.ALARMS_SLEEP_S_MAX * 1_000_000  # A clock may be set meanwhile.
        if self._heap:
            left_us = min(left_us, self._heap[0][0] - self._runtime.now_us())
        if self._idle:
            until_us = next(iter(self._idle.values()))
            left_us = min(left_us, until_us - self._runtime.monotonic_us())
        timer = self._runtime.start(self._runtime.sleep(max(0, left_us) / 1_000_000), name="timer")
        poked = self._runtime.start(self._poked.wait(), name="poke")
        try:
            await asyncio.wait({timer, poked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            poked.cancel()
