"""What locks mean for calls: who touches what is locked waits, and who lost its lock is refused.

A call claims what it touches from its admission until its driver is done: a lock that another run
asks for is not granted meanwhile. Whether the run still holds what it took is asked in the
transaction that writes the intent. `lock` itself is in `lockcalls.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, LockLost
from ring0.kernel.calls.leases import Leases
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import recording
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.scheduler.circles import Wait
from ring0.scheduler.locks import Ask, Key, canonical_name
from ring0.store import Store, base
from ring0.store import events as ev
from ring0.types import CallKind, CallState, LockMode


class Locking:
    """The locks part of a call's turn."""

    def __init__(
        self, store: Store, runtime: Runtime, waiting: Waiting, live: Mapping[str, LiveRun]
    ) -> None:
        self._store = store
        self._runtime = runtime
        self.live = live
        self.leases = Leases(store, runtime, waiting)
        self._claims: dict[str, Ask] = {}
        """By call: what it claims, or waits to."""
        self._taken: dict[str, tuple[int, dict[str, int]]] = {}
        """Of a run its epoch, and the fence of each lock that it took and did not free itself."""
        self._kept: dict[str, list[Wait]] = {}
        """Waits of parents that were put away while they waited for children."""
        self.freeing: dict[str, tuple[Key, str]] = {}
        """By call: the lock whose end goes on record with the call's."""

    def snapshot(self) -> list[dict[str, Any]]:
        """Who waits for what, and since when."""
        table = self.leases.table
        return [
            {
                "run": ask.run,
                "call": ask.call,
                "resources": [name for _, name in ask.keys],
                "mode": str(ask.mode),
                "since_us": ask.since_us,
                "held_by": [held.run for _, held in table.holders(ask)],
            }
            for ask in table.waiting()
        ]

    # --- a call's turn ------------------------------------------------------------------------

    async def turn(self, run: LiveRun, judged: Judged) -> bool:
        """Claims all that the call touches, once no other run's lock is in the way. Returns whether
        it had to wait. Raises LockLost, Deadlock, LimitReached."""
        names = _names(judged)
        if not names:
            return False
        await self.learn(run)
        for name in names:
            self.check_not_lost(run, name)
        row, call = run.row, judged.held.id
        ask = Ask(
            run.id,
            row.started_us,
            call,
            [(row.tenant, name) for name in names],
            LockMode.EXCLUSIVE,
            claims=True,
            since_us=self._runtime.now_us(),
        )
        self._claims[call] = ask
        return await self.leases.granted(run, ask, row.deadline_us)

    def covers(self, judged: Judged) -> bool:
        """Whether the call has claimed all that it touches by now."""
        ask = self._claims.get(judged.held.id)
        claimed = {name for _, name in ask.keys} if ask is not None else set()
        return claimed.issuperset(_names(judged))

    def guards(self, run: LiveRun, judged: Judged) -> list[base.Guard]:
        """What the run took it must hold still; what it did not, nobody else may hold."""
        guards: list[base.Guard] = []
        taken, tenant = self.taken(run.id), run.row.tenant
        for name in _names(judged):
            if name in taken:
                guards.append(
                    base.LockHeld(run=run.id, tenant=tenant, resource=name, fence=taken[name])
                )
            guards.append(
                base.LockFree(run=run.id, tenant=tenant, resource=name, mode=LockMode.EXCLUSIVE)
            )
        return guards

    def fences(self, run: LiveRun) -> Mapping[str, int]:
        """Of the locks that the run took, by resource. Of one that it lost too: with that a system
        outside can tell that what comes is late; without any it could not."""
        held = {lock.resource: lock.fence for lock in self.leases.table.of(run.id)}
        return held | self.taken(run.id)

    def carried_out(self, held: Held) -> None:
        """What the call touched others may touch."""
        ask = self._claims.pop(held.id, None)
        if ask is not None:
            self.leases.table.leave(ask)
            self.leases.table.unclaim(ask)

    def give_back(self, held: Held) -> None:
        """The call is over, or is asked anew."""
        self.carried_out(held)
        freeing = self.freeing.pop(held.id, None)
        mine = self.leases.table.held(*freeing) if freeing is not None else None
        if mine is not None:
            mine.taking = False  # It did not come to that.

    def recorded(self, run: LiveRun, events: Sequence[ev.AnyEvent]) -> None:
        """A call's end is on record, and these with it."""
        for event in events:
            if isinstance(event, ev.LockFreed):
                self._runtime.reached("lock.freed")
                self.taken(run.id).pop(event.resource, None)
                self.leases.table.drop((event.tenant, event.resource), run.id)

    # --- what a run took ----------------------------------------------------------------------

    def taken(self, run: str) -> dict[str, int]:
        """The fences of the locks that the run took and did not free itself, by resource."""
        return self._taken.get(run, (0, {}))[1]

    async def learn(self, run: LiveRun) -> None:
        """What a run that was started again took before, by its recorded calls."""
        if self._known(run):
            return
        if run.row.epoch > 1:
            await self.leases.reconcile(run.id)
        taken: dict[str, int] = {}
        calls = [call for call in run.records.values() if call.kind is CallKind.LOCK]
        for call in sorted(calls, key=lambda call: call.seq):
            if call.state is not CallState.OK:
                continue
            args = msgspec.json.decode(await self._store.blob(call.args))
            name = canonical_name(args["resource"])
            if args.get("do") == "free":
                taken.pop(name, None)
            else:
                taken[name] = (await recording.load(self._store, call)).value["fence"]
        if not self._known(run):  # No other call was quicker.
            self._taken[run.id] = (run.row.epoch, taken)

    def _known(self, run: LiveRun) -> bool:
        return run.id in self._taken and self._taken[run.id][0] == run.row.epoch

    def check_not_lost(self, run: LiveRun, name: str) -> None:
        """Raises LockLost where the run took it and holds it no more."""
        fence = self.taken(run.id).get(name)
        if fence is None:
            return
        mine = self.leases.table.held((run.row.tenant, name), run.id)
        held = mine is not None and mine.lock is not None and mine.lock.fence == fence
        if not held or not self.leases.left_us(mine):
            raise self.lost(
                run,
                base.LockHeld(run=run.id, tenant=run.row.tenant, resource=name, fence=fence),
            )

    def lost(self, run: LiveRun, guard: base.LockHeld) -> LockLost:
        """The words for a run whose lock is gone."""
        on = self.leases.table.on((guard.tenant, guard.resource))
        newest = max(
            (one.lock for one in on if one.lock), key=lambda lock: lock.fence, default=None
        )
        why = "Its lease is over."
        if newest is not None and newest.fence != guard.fence:
            why = f"Its fence was {guard.fence}, and is {newest.fence} now"
            why += f": {newest.run} holds it." if newest.run != run.id else "."
        return LockLost(
            f"{run.id} holds {guard.resource} no more.",
            why=why,
            todo="Take the lock again and look at what may have changed; a longer `lease_s`, or"
            " `renew` in time, keeps it. `free` it to go on without.",
        )

    async def ended(self, run: str) -> None:
        """The run is over: it holds nothing any more. Before its end is written."""
        table = self.leases.table
        for wait in self._kept.pop(run, []):
            table.done_waiting(wait)
        if run in self._taken or table.of(run):
            await self.leases.reconcile(run)
            for lock in table.of(run):
                await self.leases.end((lock.tenant, lock.resource), run, "ended")
            self._taken.pop(run, None)

    # --- circles ------------------------------------------------------------------------------

    @contextmanager
    def waits_for(self, run: str, others: Sequence[str], any_of: bool) -> Iterator[None]:
        """A parent waits for children: they are in no circle, or one of its runs gives way.

        Where it is stopped in the middle of that, as when it is put away, it waits on as a row: the
        wait stands until it is made again, or the run ends.
        """
        table = self.leases.table
        for kept in self._kept.pop(run, []):
            table.done_waiting(kept)
        wait = Wait(run, runs=others, any_of=any_of)
        table.wait_for_runs(wait)
        try:
            yield
        except asyncio.CancelledError:
            self._kept.setdefault(run, []).append(wait)
            raise
        except BaseException:
            table.done_waiting(wait)
            raise
        table.done_waiting(wait)


def _names(judged: Judged) -> tuple[str, ...]:
    """What the call touches, as locks are named. Raises LimitReached.

    What has no name that a lock could have, no lock can be on.
    """
    touches = judged.prepared.touches
    if len(touches) > limits.LOCK_TOUCHES_MAX:
        raise LimitReached(
            f"The call would change {len(touches)} named resources.",
            why=f"A call may change {limits.LOCK_TOUCHES_MAX}.",
            todo="Do it in parts.",
        )
    names: dict[str, None] = {}
    for name in touches:
        try:
            names[canonical_name(name)] = None
        except CallInvalid:
            continue
    return tuple(sorted(names))
