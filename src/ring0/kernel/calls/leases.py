"""The locks of all runs: the table in memory, the rows that it is a cache of, and waiting for one.

A lock is granted here, then written, and only then told to anybody; it is let go in the journal
first, and only then granted to who is next. A lease ends by itself; nothing here makes one longer.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from ring0 import limits
from ring0.errors import LimitReached
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.scheduler.locks import Ask, AskState, Held, Key, LockTable
from ring0.store import Store, Write, WriteImpossible, base
from ring0.store import events as ev
from ring0.types import ENDED, Lock

US = 1_000_000


class Leases:
    """Grants, writes and ends locks. `load` it before runs start."""

    def __init__(self, store: Store, runtime: Runtime, waiting: Waiting) -> None:
        self._store = store
        self._runtime = runtime
        self._waiting = waiting
        self.table = LockTable()
        self._fence = 0
        self._ending: dict[tuple[Key, str], asyncio.Task[None]] = {}
        """Locks whose end is being written."""

    async def load(self) -> None:
        """What the rows say; the locks of runs that have ended are freed."""
        await self._store.flush()
        self._fence = await self._store.newest_fence()
        for lock in await self._store.locks():
            self._found(lock)
            run = await self._store.run(lock.run)
            if run is None or run.state in ENDED:
                await self.end((lock.tenant, lock.resource), lock.run, "ended")

    def _found(self, lock: Lock) -> None:
        left_us = max(0, lock.expires_us - self.now_us())
        self.table.hold(lock, self._runtime.monotonic_us() + left_us)

    async def reconcile(self, run: str) -> None:
        """What a call that was stopped left undone here: the rows are right."""
        await self._store.flush()
        rows = {(row.tenant, row.resource): row for row in await self._store.locks(run=run)}
        for lock in self.table.of(run):
            if (key := (lock.tenant, lock.resource)) not in rows:
                self.table.drop(key, run)
        for key, row in rows.items():
            if self.table.held(key, run) is None:
                self._found(row)

    def now_us(self) -> int:
        """The time that leases go by: a clock that is set back revives none."""
        return self._store.now_us()

    def left_us(self, held: Held | None) -> int:
        """What is left of a lease; 0 too where there is none."""
        return 0 if held is None else held.left_us(self.now_us(), self._runtime.monotonic_us())

    # --- waiting ------------------------------------------------------------------------------

    async def granted(self, run: LiveRun, ask: Ask, until_us: int) -> bool:
        """Returns once it is granted; whether that took any waiting. Its run waits as a row, unless
        the wait is short. Raises Deadlock, LimitReached."""
        await self._end_what_is_over(ask)
        if self.table.ask(ask):
            return False
        try:
            quiet_us = self._runtime.now_us() + limits.LOCK_WAIT_QUIET_MS * 1_000
            if not await self._comes(ask, min(until_us, quiet_us)):
                async with self._waiting.state(run, "lock"):
                    if not await self._comes(ask, until_us):
                        raise self._too_long(ask)
        except BaseException:
            self.table.leave(ask)
            if ask.state is AskState.GRANTED and not ask.claims:
                self.table.not_taken(ask)
            raise
        return True

    async def _comes(self, ask: Ask, until_us: int) -> bool:
        """Whether it is granted before `until_us`. Ends the leases that are over meanwhile."""
        while ask.state is AskState.QUEUED:
            await self._end_what_is_over(ask)
            left_us = until_us - self._runtime.now_us()
            if ask.state is not AskState.QUEUED or left_us <= 0:
                break
            leases = [self.left_us(held) for _, held in self.table.holders(ask)]
            try:
                seconds = max(1, min([left_us, *leases])) / US
                await self._runtime.wait_for(ask.woken.wait(), seconds)
            except TimeoutError:
                pass
        if ask.error is not None:
            raise ask.error
        return ask.state is AskState.GRANTED

    async def _end_what_is_over(self, ask: Ask) -> None:
        for key, held in self.table.holders(ask):
            if not held.taking and not self.left_us(held):
                await self.end(key, held.run, "expired")

    def _too_long(self, ask: Ask) -> LimitReached:
        held = [
            f"{one.run} holds {name} ({one.mode}, fence {one.lock.fence}) until {_time(one.lock)}"
            for (_, name), one in self.table.holders(ask)
            if one.lock is not None
        ]
        return LimitReached(
            f"{ask} and did not get it in time.",
            why="; ".join(held) + "." if held else "Others were before it in the queue.",
            todo="Ask again later, or give a longer `wait_s`.",
        )

    # --- writing ------------------------------------------------------------------------------

    async def take(self, run: LiveRun, ask: Ask, lease_s: int) -> Lock:
        """Puts what was granted on record, and on disk: its fence may be told to the world.
        Raises GuardFailed."""
        # Whoever asked may be stopped here: what is being written is seen to its end.
        writing = self._runtime.start(self._take(run, ask, lease_s), name=f"lock of {ask.run}")
        writing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(writing)

    async def _take(self, run: LiveRun, ask: Ask, lease_s: int) -> Lock:
        ((tenant, resource),) = ask.keys
        self._fence += 1  # The writer takes writes in the order in which they are handed to it.
        lock = Lock(
            tenant=tenant,
            resource=resource,
            run=run.id,
            mode=ask.mode,
            fence=self._fence,
            expires_us=self.now_us() + lease_s * US,
            call=ask.call,
        )
        free = base.LockFree(run=run.id, tenant=tenant, resource=resource, mode=ask.mode)
        try:
            await self.write(run, lock, free)
        except BaseException:
            self.table.not_taken(ask)
            raise
        self.table.hold(lock, self._runtime.monotonic_us() + lease_s * US)
        return lock

    async def write(self, run: LiveRun, lock: Lock, guard: base.Guard) -> None:
        """A lock as it is from now on. Raises GuardFailed."""
        guards: list[base.Guard] = [
            base.RunLive(run=run.id, epoch=run.row.epoch),
            base.NotKilled(run=run.id),
            guard,
        ]
        taken = ev.LockTaken(lock=lock)
        await self._store.append(Write(run=run.id, durable=True, guards=guards, events=[taken]))
        self._runtime.reached("lock.taken")

    async def end(self, key: Key, run: str, how: str) -> None:
        """Writes the end of a lock, once however many ask for it, and only then lets others on."""
        task = self._ending.get((key, run))
        if task is None:
            task = self._runtime.start(self._end(key, run, how), name=f"end of {key[1]}")
            self._ending[key, run] = task
        await asyncio.shield(task)

    async def _end(self, key: Key, run: str, how: str) -> None:
        try:
            freed = ev.LockFreed(tenant=key[0], resource=key[1], how=how)
            await self._store.append(Write(run=run, events=[freed]))
            self._runtime.reached("lock.freed")
        except WriteImpossible:
            pass  # A call of its run has freed it, and was stopped before it could say so.
        finally:
            self._ending.pop((key, run), None)
        self.table.drop(key, run)

    async def ended(self, key: Key, run: str) -> None:
        """Once an end that is being written is written."""
        if (task := self._ending.get((key, run))) is not None:
            await asyncio.shield(task)


def _time(lock: Lock) -> str:
    return datetime.fromtimestamp(lock.expires_us / US, UTC).strftime("%H:%M:%S UTC")
