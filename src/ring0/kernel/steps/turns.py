"""When a judged call may go ahead: nobody paused its run, no lock is in its way, a slot is free.

The order is fixed, so that nobody waits in a circle: pause, then locks, then slots. What was taken
for a call is given back when the call is over, however it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from ring0.errors import Ring0Error
from ring0.kernel.calls.locking import Locking
from ring0.kernel.calls.messages import Mail
from ring0.kernel.life import pausing
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import slots
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.recording import Taken
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.scheduler.admission import Admission, Load
from ring0.scheduler.queue import Ticket
from ring0.store import GuardFailed, base
from ring0.tools.driver import Result
from ring0.types import Effect


class Turns:
    """Asks the scheduler, call by call."""

    def __init__(self, admission: Admission | None = None) -> None:
        self._admission = admission
        """None where nothing is ever carried out: a strict replay."""
        self._tickets: dict[str, Ticket] = {}
        """By call: what it waits for, or holds."""
        self._once: dict[str, None] = {}
        """`once` calls that have their turn, until their outcome is on record."""
        self._calm = asyncio.Event()
        self.waiting: Waiting | None = None
        self.locking: Locking | None = None
        self.mail: Mail | None = None
        """All three likewise."""

    async def take(self, run: LiveRun, judged: Judged) -> bool:
        """Returns when the call may go ahead; whether it had to wait. Nothing where it may already.

        Raises LimitReached where the queue is full or the deadline over, RunDead.
        """
        paused = await self.passed(run)
        locked = await self.locking.turn(run, judged) if self.locking is not None else False
        waited = await self._take_slots(run, judged)
        if judged.effect is Effect.ONCE:
            self._once[judged.held.id] = None
            self._calm.clear()
        return waited or locked or paused

    async def passed(self, run: LiveRun) -> bool:
        """Returns when nobody has the run paused; whether that had to be waited for."""
        if not run.paused_by or self.waiting is None:
            return False
        return await pausing.passed(self.waiting, run)

    def give_back(self, held: Held) -> None:
        """What was taken for the call. Nothing where nothing was; a call that still has its slots
        was not made, and took nothing of its provider's bucket."""
        ticket = self._tickets.pop(held.id, None)
        if ticket is not None and self._admission is not None:
            self._admission.give_back(ticket, made=False)
        self._once.pop(held.id, None)
        if not self._once:
            self._calm.set()
        if self.locking is not None:
            self.locking.give_back(held)
        if self.mail is not None:
            self.mail.give_back(held)

    def guards(self, run: LiveRun, judged: Judged) -> Sequence[base.Guard]:
        """What of it must still hold in the transaction that writes the intent."""
        return self.locking.guards(run, judged) if self.locking is not None else ()

    def fences(self, run: LiveRun) -> Mapping[str, int]:
        """Of the locks that the run took, by resource."""
        return self.locking.fences(run) if self.locking is not None else {}

    # --- locks and messages -----------------------------------------------------------------------

    def covers(self, judged: Judged) -> bool:
        """Whether what was taken is all that the call, judged anew, touches."""
        return self.locking is None or self.locking.covers(judged)

    def may_try_again(self, run: LiveRun, failure: GuardFailed) -> bool:
        """A lock came in between: the call waits for its turn anew. Raises LockLost."""
        if isinstance(failure.guard, base.LockHeld) and self.locking is not None:
            raise self.locking.lost(run, failure.guard) from None
        return isinstance(failure.guard, base.LockFree)

    def recorded(self, run: LiveRun, taken: Taken) -> None:
        """A call's end is on record: who waits for what it freed or sent may go on."""
        if self.locking is not None and taken.beside:
            self.locking.recorded(run, taken.beside)
        if self.mail is not None:
            self.mail.recorded(taken.event.call, taken.beside, taken.event.received)

    def waits_for(
        self, run: str, others: Sequence[str], any_of: bool = False
    ) -> AbstractContextManager[None]:
        """While a parent waits for children (for the first of them: `any_of`)."""
        if self.locking is None:
            return nullcontext()
        return self.locking.waits_for(run, others, any_of)

    async def ended(self, run: str) -> None:
        """The run is over, and its end is about to be written: it holds nothing any more."""
        if self.locking is not None:
            await self.locking.ended(run)
        if self.mail is not None:
            self.mail.forget(run)

    # --- slots ----------------------------------------------------------------------------------

    async def _take_slots(self, run: LiveRun, judged: Judged) -> bool:
        held, prepared, row = judged.held, judged.prepared, run.row
        if held.kind not in slots.TAKE_SLOTS:
            return False
        assert self._admission is not None, "a strict replay carries nothing out"
        assert held.id not in self._tickets
        ticket = self._tickets[held.id] = Ticket(
            tenant=row.tenant,
            root=row.root,
            run=row.id,
            priority=0 if run.agent.operator else row.priority,
            slots=(slots.CALL, *prepared.slots),
            bucket=prepared.bucket,
            tokens=prepared.bucket_tokens,
        )
        return await self._admission.take(ticket, lambda: run.row.deadline_us)

    async def pass_on(self, run: LiveRun, call: str, needs: slots.Needs, unspent: bool) -> None:
        """A call that is under way goes on elsewhere: what it has goes to others, `unspent` or
        not, and it waits for its turn there with nothing in its hands.

        Raises Busy where the queue is full, LimitReached where the deadline is over.
        """
        assert self._admission is not None
        before = self._tickets.pop(call)
        self._admission.give_back(before, 0 if unspent else None)
        ticket = self._tickets[call] = Ticket(
            tenant=before.tenant,
            root=before.root,
            run=before.run,
            priority=before.priority,
            slots=(slots.CALL, *needs.slots),
            bucket=needs.bucket,
            tokens=needs.tokens,
        )
        await self._admission.take(ticket, lambda: run.row.deadline_us)

    def carried_out(self, held: Held, result: Result | Ring0Error | None = None) -> None:
        """The driver is done, or nobody knows whether it is: its slots and what it touched go to
        others. What is left (the record, a person who settles it) needs none."""
        if self.locking is not None:
            self.locking.carried_out(held)
        ticket = self._tickets.pop(held.id, None)
        if ticket is None or self._admission is None:
            return
        tokens = result.tokens if isinstance(result, Result) else None
        if isinstance(result, Ring0Error) and result.unspent:
            tokens = 0
        self._admission.give_back(ticket, tokens)

    async def drain(self, runtime: Runtime, most_s: float) -> bool:
        """No call gets slots any more. Whether every `once` call that had its turn is on record
        within this time: a kernel that stops then leaves no unknown effect behind."""
        assert self._admission is not None
        self._admission.hold()
        if not self._once:
            return True
        try:
            await runtime.wait_for(self._calm.wait(), most_s)
        except TimeoutError:
            return False
        return True

    def load(self) -> Load:
        """What is under way, and what waits for a slot. For `ring0 top`."""
        assert self._admission is not None
        return self._admission.load()
