"""Which runs are at work: so many at once, and who is next. It starts nothing itself.

A run that waits holds no place, so a parent never starves behind its own children. One that goes on
where its process still stands goes on at once and takes the next place that is free: for that time
there is one more at work, and nobody new begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from ring0 import limits
from ring0.errors import Busy
from ring0.runtime import Runtime
from ring0.scheduler.queue import WOKEN, FairQueue, Ticket, TicketState
from ring0.types import Run

PLACE = "run"


class Starts:
    """The places of one kernel. `granted` is told of each run whose turn to begin has come."""

    def __init__(
        self,
        runtime: Runtime,
        granted: Callable[[str], None],
        *,
        at_work_max: int = limits.RUNS_AT_WORK_DEFAULT,
        weights: Mapping[str, int] | None = None,
        queued_max: int = limits.RUNS_QUEUED_PER_TENANT_MAX,
    ) -> None:
        self._runtime = runtime
        self._granted = granted
        self._queued_max = queued_max
        # Pushed out of the queue is nobody: a run has its row, and is refused before that.
        self._queue = FairQueue(
            sizes={PLACE: at_work_max},
            weights=weights,
            queued_max=limits.RUNS_LIVE_MAX * 2,
            told=self._told,
        )
        self._tickets: dict[str, Ticket] = {}
        self._begins: set[str] = set()
        """Those of the queued that are to be started; the others are at work already."""
        self._new: dict[str, str] = {}
        """Of new runs that wait for their turn, the tenants."""
        self._by_tenant: Counter[str] = Counter()

    def new(self, row: Run, *, again: bool = False) -> bool:
        """A place for a run that begins; False: it waits for one. Raises Busy, unless it stood in
        the queue before (`again`)."""
        if not again and self._by_tenant[row.tenant] >= self._queued_max:
            seconds = self._queue.back_s(PLACE)
            raise Busy(
                f"{self._queued_max} runs of this tenant wait to begin.",
                why="A queue without end helps nobody who stands in it.",
                todo=f"Come back in about {seconds} s.",
                after_s=seconds,
            )
        if self._ask(row, row.priority, begins=True):
            return True
        self._new[row.id] = row.tenant
        self._by_tenant[row.tenant] += 1
        return False

    def woken(self, row: Run) -> bool:
        """A place, before all new ones, for a run that began before and is to be started again."""
        return self._ask(row, WOKEN, begins=True)

    def goes_on(self, row: Run) -> None:
        """A run whose process stands goes on after it had waited."""
        if row.id not in self._tickets:
            self._ask(row, WOKEN, begins=False)

    def leave(self, run: str) -> None:
        """It waits, has ended, or is not to be started any more. Twice is nothing."""
        ticket = self._tickets.pop(run, None)
        if ticket is None:
            return
        self._forget(run)
        now_us = self._runtime.monotonic_us()
        if ticket.state is TicketState.QUEUED:
            self._queue.leave(ticket, now_us)
        elif ticket.state is TicketState.GRANTED:
            self._queue.release(ticket, now_us - ticket.granted_us, now_us)

    def waits(self, run: str) -> bool:
        """It stands in the queue to be started."""
        return run in self._begins

    @property
    def at_work(self) -> int:
        """Places that are taken."""
        slots = self._queue.resources().get(PLACE)
        return slots.in_use if slots else 0

    @property
    def queued(self) -> int:
        return len(self._begins)

    def _ask(self, row: Run, priority: int, *, begins: bool) -> bool:
        assert row.id not in self._tickets, f"{row.id} has a place, or waits for one"
        ticket = Ticket(
            tenant=row.tenant, root=row.root, run=row.id, priority=priority, slots=(PLACE,)
        )
        self._tickets[row.id] = ticket
        if self._queue.submit(ticket, self._runtime.monotonic_us()):
            return True
        if begins:
            self._begins.add(row.id)
        return False

    def _told(self, ticket: Ticket) -> None:
        begins = ticket.run in self._begins
        self._forget(ticket.run)
        if begins:
            self._granted(ticket.run)

    def _forget(self, run: str) -> None:
        self._begins.discard(run)
        if (tenant := self._new.pop(run, None)) is not None:
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
