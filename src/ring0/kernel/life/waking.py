"""Runs that are put away: who has been taken on here, when each is looked at, what it is told.

A run that waits with all that it has under way is a row. What is kept of it in memory is that this
kernel cares for it, when to look, and, where it is embedded, which functions it is made of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ring0 import limits
from ring0.errors import LimitReached, Ring0Error, RunFailed
from ring0.kernel.life import reasons
from ring0.kernel.life.alarms import Alarms
from ring0.scheduler.budgets import check_deadline
from ring0.store import Store
from ring0.types import ENDED, ApprovalState, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.life.runs import Runs

Functions = Mapping[str, Callable[..., Awaitable[Any]]]
_NONE: Final[frozenset[str]] = frozenset()


class Away:
    """What is kept of one run that is put away."""

    __slots__ = ("functions", "known", "rings")

    def __init__(self, functions: Functions | None, known: frozenset[str], rings: bool) -> None:
        self.functions = functions
        """Of an embedded agent: a map that its runs share."""
        self.known = known
        """What it could have gone on with when it was started last: no news."""
        self.rings = rings
        """Its time to be looked at is still to come: then it is started, once."""


class Waking:
    """Looks at runs when there is a reason to, and has them started, ended, or left alone."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._store: Store = runs.store
        self._runtime = runs.runtime
        self.alarms = Alarms(runs.runtime, self._look, self._idle)
        self.away: dict[str, Away] = {}
        self._anyway: set[str] = set()
        """Woken for certain while they were being put away."""
        self._functions: dict[str, Functions] = {}
        """Of each embedded agent by its name, those that were given last."""

    # --- put away -----------------------------------------------------------------------------

    def shared(self, name: str, functions: Functions) -> Functions:
        """The same functions as one object, however often they are given."""
        key = f"agent:{name}"
        known = self._functions.get(name)
        if known is None or known.get(key) is not functions.get(key):
            known = self._functions[name] = functions
        return known

    def take_on(self, row: Run, functions: Functions | None, known: frozenset[str] = _NONE) -> None:
        """The row says that it is put away: this kernel wakes it from here on."""
        if functions is not None:
            functions = self.shared(row.agent, functions)
        self.away[row.id] = Away(functions, known, row.wake_us > self._runtime.now_us())
        self.alarms.set(row.id, row.wake_us)
        self.wake(row.id, anyway=row.id in self._anyway)  # What came meanwhile was not heard.
        self._anyway.discard(row.id)

    def drop(self, run: str) -> None:
        """It has ended."""
        self.away.pop(run, None)
        self._anyway.discard(run)
        self.alarms.drop(run)

    def wake(self, run: str, *, anyway: bool = False) -> None:
        """Something happened for this run: if it was put away here, it is looked at, and started
        where it can go on. `anyway`: it is started in any case."""
        if run in self.away or self._runs.is_here(run):
            self.alarms.wake(run, anyway=anyway)

    # --- looking ------------------------------------------------------------------------------

    async def _look(self, run: str, anyway: bool) -> None:
        try:
            await self._looked(run, anyway)
        except Ring0Error as error:  # The journal can't be written, or read.
            self._runs.ends.kept(run, error)
            self.again(run)
        except Exception as fault:
            what = f"ring0 failed to look at {run}: {type(fault).__name__}: {fault}"
            self._runs.ends.kept(run, RunFailed(what, why="A fault of ring0.", todo="Report it."))
            self.again(run)

    def again(self, run: str, deadline_us: int = 0) -> None:
        """What kept it from going on may be over in a while. Without that nothing would ever look
        at it again, not even at its deadline."""
        at_us = self._runtime.now_us() + limits.LOOK_AGAIN_S * 1_000_000
        self.alarms.set(run, min(at_us, deadline_us or at_us))

    async def _looked(self, run: str, anyway: bool) -> None:
        await self._store.flush()  # What woke it may not be readable yet.
        row = await self._store.run(run)
        if row is None or row.state in ENDED:
            self.drop(run)
            return
        now_us = self._runtime.now_us()
        here = self._runs.is_here(run)
        if now_us >= row.deadline_us:
            await self._over(row, now_us)
        elif here or row.state is RunState.QUEUED:
            if anyway and here:
                self._anyway.add(run)
            self.alarms.set(run, row.deadline_us)  # It may have been raised.
        elif reasons.is_put_away(row) and run in self.away:
            await self._put_away(row, now_us, anyway)
        else:  # It waits for a person, and for nobody here.
            self.alarms.set(run, row.deadline_us)

    async def _over(self, row: Run, now_us: int) -> None:
        """Its deadline has come: where it is at work its process is stopped first."""
        if self._runs.stop_over(row.id):
            return
        try:
            check_deadline(row, now_us)
        except LimitReached as error:
            await self._runs.ending.end(row.id, RunState.FAILED, error=error)

    async def _put_away(self, row: Run, now_us: int, anyway: bool) -> None:
        if await self._runs.gate.waiting.expire(row.id, now_us):
            await self._store.flush()
        found = await reasons.of(self._store, row, now_us)
        away = self.away.get(row.id)
        if away is None or self._runs.ending.has_begun(row.id):
            return
        rings = away.rings and now_us >= row.wake_us
        if not row.paused_by and (anyway or rings or found - away.known):
            self._runs.go_on(row, found)
        else:
            away.known &= found  # What it can't go on with now is news when it comes again.
            self.alarms.set(row.id, await self._next(row, now_us))

    async def _next(self, row: Run, now_us: int) -> int:
        """When it is to be looked at again: an ask that runs out, a timer, at last its deadline."""
        pending = await self._store.approvals(run=row.id, states=[ApprovalState.PENDING])
        times = [approval.expires_us for approval in pending]
        if not row.paused_by:
            times.append(row.wake_us)
        return min([at_us for at_us in times if at_us > now_us], default=row.deadline_us)

    def _idle(self, run: str) -> None:
        """It has waited here for long enough."""
        self._runs.put_away(run)
