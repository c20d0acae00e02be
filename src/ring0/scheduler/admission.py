"""The fair queue as those meet it who wait: `take` returns when the call may go.

Where there is room nothing is awaited. What waits here is a call of a run at work: its row needs no
state for it, and a crash makes it ask again. `load` shows all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ring0 import limits
from ring0.errors import LimitReached
from ring0.runtime import Runtime
from ring0.scheduler.buckets import Bucket
from ring0.scheduler.queue import FairQueue, Ticket, TicketState
from ring0.types import Frozen


class ResourceLoad(Frozen, frozen=True, kw_only=True):
    """One resource: how much of it is taken, and who waits for it."""

    name: str
    in_use: int
    size: int
    by_class: dict[int, int]
    by_tenant: dict[str, int]
    oldest_us: int
    """How long the one has waited that has waited longest."""


class Load(Frozen, frozen=True, kw_only=True):
    """What is under way and what waits."""

    resources: tuple[ResourceLoad, ...]
    queued: int
    oldest_us: int = 0


class Admission:
    """Hands out turns on a runtime's clock. Close it, so that its timer ends."""

    def __init__(self, runtime: Runtime, queue: FairQueue) -> None:
        self._runtime = runtime
        self._queue = queue
        queue.told = self._wake
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._timer_us = 0

    # --- turns ----------------------------------------------------------------------------------

    async def take(self, ticket: Ticket, deadline_us: Callable[[], int]) -> bool:
        """Returns when it is the ticket's turn; whether it had to wait.

        Raises Busy where the queue is full, LimitReached where the deadline passes. Who is
        cancelled leaves the queue, and gives back what it got in the same moment.
        """
        if self._queue.submit(ticket, self._runtime.monotonic_us()):
            return False
        try:
            while ticket.state is TicketState.QUEUED:
                await self._wait(ticket, deadline_us)
        except BaseException:
            self.give_back(ticket, made=False)
            raise
        finally:
            self._waiting.pop(ticket, None)
        if ticket.state is TicketState.PUSHED_OUT:
            raise self._queue.busy(ticket)
        return True

    async def _wait(self, ticket: Ticket, deadline_us: Callable[[], int]) -> None:
        """Until something happens to the ticket, or its deadline, as it then is, has passed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        self._arm()
        left_us = deadline_us() - self._runtime.now_us()
        if left_us > 0:
            try:
                await self._runtime.wait_for(future, left_us / 1_000_000)
            except TimeoutError:
                pass
        if ticket.state is TicketState.QUEUED and deadline_us() <= self._runtime.now_us():
            raise LimitReached(
                "The run's time was over before it was this call's turn.",
                why="Every run has a deadline, also for what it waits for.",
                todo="Raise `wall_s` in the agent's budget, or its priority; `ring0 top` shows"
                " what is in the way.",
            )

    def give_back(self, ticket: Ticket, tokens: int | None = None, *, made: bool = True) -> None:
        """The slots of a call that is over, or its place in the queue. Twice is nothing.

        `tokens`: what it took of its bucket in the end; None: what it had reserved. `made`: False
        where it got its turn and was not made after all: it took nothing.
        """
        now_us = self._runtime.monotonic_us()
        if ticket.state is TicketState.QUEUED:
            self._queue.leave(ticket, now_us)
        elif ticket.state is TicketState.GRANTED:
            used = (ticket.tokens if tokens is None else tokens) if made else 0
            bucket = self._queue.buckets.get(ticket.bucket)
            if bucket is not None and not made:
                bucket.undo(ticket.tokens, now_us)
            elif bucket is not None and tokens is not None:
                bucket.settle(ticket.tokens, tokens, now_us)
            cost_us = now_us - ticket.granted_us
            if ticket.bucket:
                cost_us += used * limits.TOKEN_COST_US
            self._queue.release(ticket, cost_us, now_us)
        if self._waiting:
            self._arm()

    def hold(self) -> None:
        """Nobody gets a turn any more; who has one keeps it."""
        self._queue.held = True

    # --- buckets --------------------------------------------------------------------------------

    def add_bucket(self, bucket: Bucket) -> None:
        """What a provider takes from now on; the bucket of that name is kept where there is one."""
        buckets = self._queue.buckets
        if bucket.name in buckets:
            return
        if len(buckets) >= limits.BUCKETS_MAX:
            now_us = self._runtime.monotonic_us()
            for old in [b for b in buckets.values() if not b.limited]:
                if old.closed_until_us <= now_us:
                    del buckets[old.name]
        buckets[bucket.name] = bucket

    def slow_down(self, name: str, after_s: float) -> None:
        """A provider said not to come before: what waits for it waits until then."""
        after_s = min(max(after_s, 0.0), limits.RETRY_AFTER_S_MAX)
        self.add_bucket(Bucket(name))
        now_us = self._runtime.monotonic_us()
        self._queue.buckets[name].empty(now_us + int(after_s * 1_000_000), now_us)
        if self._waiting:
            self._arm()

    # --- the clock --------------------------------------------------------------------------------

    def _wake(self, ticket: Ticket) -> None:
        future = self._waiting.get(ticket)
        if future is not None and not future.done():
            future.set_result(None)

    def _arm(self) -> None:
        """Sees to it that somebody looks when a bucket has filled. One timer for all."""
        now_us = self._runtime.monotonic_us()
        next_us = self._queue.next_us(now_us)
        if not next_us or (self._timer is not None and self._timer_us == next_us):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_us = next_us
        self._timer = self._runtime.start(self._look(next_us), name="a bucket fills")

    async def _look(self, at_us: int) -> None:
        await self._runtime.sleep(max(0, at_us - self._runtime.monotonic_us()) / 1_000_000)
        self._timer = None
        self._queue.dispatch(self._runtime.monotonic_us())
        if self._waiting:
            self._arm()

    def close(self) -> None:
        """Ends the timer. Who still waits is whoever's it is to cancel."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what there is ----------------------------------------------------------------------------

    def load(self) -> Load:
        """What is under way and what waits, as of now."""
        now_us = self._runtime.monotonic_us()
        names = list(self._queue.resources())
        by_class: dict[str, dict[int, int]] = {name: {} for name in names}
        by_tenant: dict[str, dict[str, int]] = {name: {} for name in names}
        oldest = dict.fromkeys(names, now_us)
        count = 0
        for ticket in self._queue.waiting():
            count += 1
            for name in ticket.slots:
                classes, tenants = by_class[name], by_tenant[name]
                classes[ticket.priority] = classes.get(ticket.priority, 0) + 1
                tenants[ticket.tenant] = tenants.get(ticket.tenant, 0) + 1
                oldest[name] = min(oldest[name], ticket.asked_us)
        return Load(
            queued=count,
            oldest_us=now_us - min(oldest.values(), default=now_us),
            resources=tuple(
                ResourceLoad(
                    name=name,
                    in_use=slots.in_use,
                    size=slots.size,
                    by_class=by_class[name],
                    by_tenant=by_tenant[name],
                    oldest_us=now_us - oldest[name],
                )
                for name, slots in self._queue.resources().items()
            ),
        )
