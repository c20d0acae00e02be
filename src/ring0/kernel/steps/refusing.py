"""What refused calls may cost others: each pays before it is on record; equal ones share a line.

A refusal that comes too quickly waits; none is dropped, and each call id has its outcome, for a
replay to hear the same no. A run of nothing but refusals is ended (`LiveRun.count_refusal`).
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import Ring0Error, RunDead
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.recording import Refused
from ring0.runtime import Runtime
from ring0.scheduler.trees import Rate
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.types import Call


class Alike:
    """Of one run: the last refusal on record, and the calls that were told the very same since."""

    __slots__ = ("alone", "calls", "first", "rate", "seldom", "timer")

    def __init__(self) -> None:
        self.rate = Rate(limits.REFUSALS_PER_S_MAX, limits.REFUSALS_BURST_MAX)
        self.seldom = Rate(limits.REFUSALS_SELDOM_PER_S, limits.REFUSALS_SELDOM_BURST)
        self.first: Call | None = None
        self.alone = 0
        """How many such have a line of their own."""
        self.calls: list[str] = []
        """Not on record yet."""
        self.timer: asyncio.Task[None] | None = None


class Refusals:
    """Puts the refusals of one kernel on record."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._tenants: dict[str, Rate] = {}
        self._alike: dict[str, Alike] = {}

    async def turn(self, run: LiveRun) -> None:
        """Returns when the run and its tenant may be refused once more. Raises RunDead where the
        run has been refused so often that it ends."""
        if run.count_refusal():
            raise RunDead(
                f"{run.id} ends: {limits.REFUSALS_PER_RUN_MAX} of its calls were refused.",
                why="A run that hears no so often makes no progress, and each no is on record.",
                todo="See `ring0 show` for what it asked.",
            )
        now_us = self._runtime.monotonic_us()
        tenant = self._tenants.get(run.row.tenant)
        if tenant is None:
            if len(self._tenants) >= limits.TENANTS_REFUSED_MAX:
                del self._tenants[next(iter(self._tenants))]
            tenant = self._tenants[run.row.tenant] = Rate(
                limits.TENANT_REFUSALS_PER_S_MAX, limits.TENANT_REFUSALS_BURST_MAX
            )
        # First its own: what the run itself has to wait for takes nothing of its tenant's rate.
        if wait_s := self._of(run).rate.take(now_us):
            await self._runtime.sleep(wait_s)
            now_us = self._runtime.monotonic_us()
        # Who is refused now and then pays, but does not stand behind those who are all the time.
        often = self._of(run).seldom.take(now_us)
        if (wait_s := tenant.take(now_us)) and often:
            await self._runtime.sleep(wait_s)

    async def write(self, run: LiveRun, refused: Refused) -> None:
        """On record, or with the next line of its like. Raises GuardFailed."""
        alike = self._of(run)
        same = alike.first is not None and _same(alike.first, refused)
        if same and alike.alone >= limits.REFUSALS_ALONE_MAX:
            alike.calls.append(refused.call.id)
            if len(alike.calls) >= limits.REFUSALS_TOGETHER_MAX:
                await self.flush(run)
            elif alike.timer is None:
                alike.timer = self._runtime.start(
                    self._later(run, alike), name=f"refusals of {run.id}"
                )
            return
        await self.flush(run)
        alike.alone = alike.alone + 1 if same else 1
        alike.first = refused.call
        await self._store.append(
            Write(
                run=run.id,
                events=[refused.event],
                blobs=refused.blobs,
                guards=[base.RunLive(run=run.id, epoch=run.row.epoch)],
            )
        )

    async def flush(self, run: LiveRun) -> None:
        """Before anything else of the run goes on record: what is there is always a prefix of what
        was. Raises RunDead where the run has ended."""
        alike = self._alike.get(run.id)
        if alike is None or not alike.calls or alike.first is None:
            return
        calls, alike.calls = tuple(alike.calls), []
        try:
            await self._store.append(
                Write(
                    run=run.id,
                    events=[ev.CallsRefusedAlike(like=alike.first.id, calls=calls)],
                    guards=[base.RunLive(run=run.id, epoch=run.row.epoch)],
                )
            )
        except GuardFailed as failure:
            raise RunDead(
                f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
            ) from None

    def _of(self, run: LiveRun) -> Alike:
        alike = self._alike.get(run.id)
        if alike is None:
            alike = self._alike[run.id] = Alike()
            run.leaving.append(lambda: self._leave(run, alike))
        return alike

    async def _leave(self, run: LiveRun, alike: Alike) -> None:
        if alike.timer is not None:
            alike.timer.cancel()
        try:
            await self.flush(run)
        except Ring0Error:
            pass  # It has ended, or nothing can be written: whoever writes next is told.
        if self._alike.get(run.id) is alike:
            del self._alike[run.id]

    async def _later(self, run: LiveRun, alike: Alike) -> None:
        await self._runtime.sleep(limits.REFUSALS_DELAY_MS / 1_000)
        alike.timer = None
        try:
            await self.flush(run)
        except Ring0Error:
            pass  # As in `_leave`.


def _same(first: Call, refused: Refused) -> bool:
    """All but the id and the time: the same request, the same words, nothing learned from it."""
    call = refused.call
    plain = isinstance(refused.event, ev.CallRefused) and refused.event.run_label is None
    return plain and first == replace(
        call, id=first.id, begun_us=first.begun_us, ended_us=first.ended_us
    )
