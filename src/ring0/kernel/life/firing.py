"""Fires crons: asleep until the next moment of any, then a run for each that has come.

Nothing is kept here that is not a row: what has had its run, what was left out and why, is asked of
the store each time. One such loop goes on in a kernel that is at work as a daemon, and in no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ring0 import limits
from ring0.errors import Busy, Ring0Error, StoreFailed, StoreFull
from ring0.kernel.life.orders import Orders
from ring0.runtime import Runtime
from ring0.scheduler.timetable import Decision, Timetable, decide
from ring0.store import GuardFailed, Store
from ring0.types import Cron

_LOOK_US = limits.CRON_LOOK_S_MAX * 1_000_000


class Firing:
    """The loop. `begin` it, `close` it; `look` is one pass of it."""

    def __init__(
        self, orders: Orders, store: Store, runtime: Runtime, say: Callable[[str, str], None]
    ) -> None:
        """`say(what, run)`: a line for whoever operates the daemon."""
        self._orders = orders
        self._store = store
        self._runtime = runtime
        self._say = say
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._orders.changed = self.poke
        self._task = self._runtime.start(self._go(), name="crons")

    def poke(self) -> None:
        """Orders have changed, or a run has ended that a cron may wait for."""
        self._poked.set()

    async def close(self) -> None:
        """What it was about to start is on record whole, or not at all."""
        self._orders.changed = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go(self) -> None:
        while True:
            self._poked.clear()
            next_us = await self._look_or_later()
            left_s = max(0, next_us - self._store.now_us()) / 1_000_000
            try:
                await self._runtime.wait_for(self._poked.wait(), left_s)
            except TimeoutError:
                pass

    async def _look_or_later(self) -> int:
        """A look that fails as a whole ends nothing: without this loop no cron ever fired again."""
        try:
            return await self.look()
        except Exception as fault:
            self._say(f"crons can't be looked at: {type(fault).__name__}: {fault}", "")
            return self._store.now_us() + _LOOK_US

    async def look(self) -> int:
        """Deals with every moment that has come; when to look again."""
        crons = [cron for cron in await self._store.crons() if not cron.paused_by]
        at_once = limits.CRONS_STARTED_AT_ONCE_MAX
        next_us = self._store.now_us() + _LOOK_US
        for begin in range(0, len(crons), at_once):
            batch = crons[begin : begin + at_once]
            for found in await asyncio.gather(*(self._see_to(cron) for cron in batch)):
                next_us = min(next_us, found or next_us)
        return next_us

    async def _see_to(self, cron: Cron) -> int:
        """Deals with what has come of one; when to look at it again, 0: when poked. One that can't
        be dealt with keeps back no other."""
        later_us = self._store.now_us() + _LOOK_US
        try:
            return await self._deal(cron)
        except Busy as error:
            self._told(cron, error)
            return self._store.now_us() + error.after_s * 1_000_000
        except Ring0Error as error:
            self._told(cron, error)
        except GuardFailed:
            return 0  # It was paused, taken away or given anew: that has poked us.
        except Exception as fault:
            self._say(f"cron {cron.name}: a fault of ring0: {type(fault).__name__}: {fault}", "")
        return later_us

    async def _deal(self, cron: Cron) -> int:
        timetable = Timetable(cron.schedule, cron.set_us)
        while True:
            now_us = self._store.now_us()
            last = await self._store.run(cron.last_run) if cron.last_run else None
            decision = decide(cron, timetable, now_us, last)
            if decision.waits:
                return 0
            if decision.due_us:
                await self._fire(cron, decision)
            elif decision.skip_us:
                await self._skip(cron, decision.skip_us, decision.skipped, decision.why)
            else:
                return timetable.next_us(max(cron.done_us, now_us))
            found = [row for row in await self._store.crons() if row.name == cron.name]
            if not found or found[0].paused_by or found[0].done_us <= cron.done_us:
                return 0
            cron = found[0]

    async def _fire(self, cron: Cron, decision: Decision) -> None:
        """A run for the moment; or, where that can't be started, a word on record why not. Raises
        Busy, StoreFull, StoreFailed: then it is tried again."""
        due_us = decision.due_us
        try:
            run = await self._orders.fire(cron, due_us, decision.skipped)
            self._say(f"cron {cron.name} has started it", run.id)
        except (Busy, StoreFull, StoreFailed):
            raise
        except GuardFailed as failure:
            if not await self._stands_open(cron, due_us):
                raise
            await self._skip(cron, due_us, decision.skipped + 1, failure.detail)
        except Ring0Error as error:
            if await self._stands_open(cron, due_us):
                await self._skip(cron, due_us, decision.skipped + 1, error.what)
            else:  # Its run is on record, and says the same.
                self._told(cron, error)

    async def _stands_open(self, cron: Cron, due_us: int) -> bool:
        """Nothing is on record yet of that moment."""
        return any(
            row.name == cron.name
            and row.version == cron.version
            and not row.paused_by
            and row.done_us < due_us
            for row in await self._store.crons()
        )

    async def _skip(self, cron: Cron, through_us: int, moments: int, why: str) -> None:
        await self._orders.skip(cron, through_us, moments, why)
        count = "a moment" if moments <= 1 else f"{moments} moments"
        self._say(f"cron {cron.name}: {count} left out: {why}", "")

    def _told(self, cron: Cron, error: Ring0Error) -> None:
        self._say(f"cron {cron.name} started nothing: {error.what} {error.why}".strip(), "")
