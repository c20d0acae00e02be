"""Waiting for people: an ask, and an effect that nobody knows of. Both stand as rows.

What waits in memory here is only the process that asked; the answer is written to the journal first
(answering.py) and found there again after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec.structs import replace

from ring0.errors import (
    EffectUnknown,
    InvalidInput,
    LimitReached,
    NotFound,
    Ring0Error,
    RunDead,
)
from ring0.governance import approvals
from ring0.kernel import values
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import opening
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.standings import Standings
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallState,
    Edit,
    Integrity,
    Label,
    Outcome,
    RunState,
    Standing,
)


def _not_asked(run: LiveRun, failure: GuardFailed) -> Ring0Error:
    if isinstance(failure.guard, base.AsksBelow):
        return LimitReached(
            "Too many approvals are pending for this run and its children.",
            why="Asks wear people out, so there is a cap.",
            todo="Wait for the answers before asking for more.",
        )
    return RunDead(f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run.")


def _nobody(*_: object, **__: object) -> None:
    """Nothing is put away: a strict replay."""


async def _not_at_all(run: LiveRun) -> None:
    """Likewise."""


class Waiting:
    """Opens asks, takes answers, and wakes who waits for them."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self.standings = Standings(store, runtime)
        self._waiters: dict[str, asyncio.Event] = {}
        """By approval or call: set when its row has moved."""
        self._timers: set[asyncio.Task[None]] = set()
        self.wake: Callable[..., None] = _nobody
        """(run, anyway=…): something happened for a run that may have been put away."""
        self.needed: Callable[[Approval | Call, str], None] = _nobody
        """(what, why): a person is waited for, to answer an ask or to settle an unknown effect."""
        self.told_no: Callable[[LiveRun], Awaitable[None]] = _not_at_all
        """Its tree was told no too often: returns when a person lets it go on."""
        self.asked: Callable[[Approval], None] = _nobody
        """A new ask waits for people."""
        self.check_room: Callable[[LiveRun], None] = _nobody
        """Raises LimitReached where a process that can't be put away may not wait."""

    # --- asks ---------------------------------------------------------------------------------

    async def open(self, run: LiveRun, judged: Judged, older: Approval | None) -> Approval:
        """Writes a new ask. Who gave a yes in advance, or changed what is asked about, has answered
        it already. Raises LimitReached where too many wait, RunDead."""
        while True:
            standing = await self.standings.covering(run, judged)
            asked = await self._ask(run, judged, older, standing)
            if asked.approval.state is ApprovalState.PENDING:
                self.check_room(run)
            try:
                await self._store.append(asked.write)
                break
            except GuardFailed as failure:
                if standing is not None and isinstance(failure.guard, base.StandingGood):
                    self.standings.drop(standing.id)
                    continue
                if isinstance(failure.guard, base.DenialsBelow):
                    await self.told_no(run)
                    continue
                raise _not_asked(run, failure) from None
        self._runtime.reached("approval.asked")
        run.approvals[asked.approval.call] = asked.approval
        if asked.approval.state is ApprovalState.PENDING:
            self.asked(asked.approval)
        return asked.approval

    async def _ask(
        self, run: LiveRun, judged: Judged, older: Approval | None, standing: Standing | None
    ) -> opening.Asked:
        edits: tuple[Edit, ...] = ()
        if older is not None and older.state is ApprovalState.EDITED:
            edits = approvals.edits_of(await self._store.blob(older.edits))
        now_us, key = self._runtime.now_us(), self._runtime.new_id("a")
        return opening.asked(run, judged, older, edits, standing, key, now_us)

    async def answered(
        self,
        run: LiveRun,
        approval: Approval,
        over: asyncio.Event | None = None,
        reason: str = "approval",
    ) -> Approval:
        """The approval once somebody has answered it, or its time is over. `over`: set when nobody
        waits for what was asked for any more; then it is revoked."""
        if approval.state is not ApprovalState.PENDING:
            return approval
        event = self._waiters.setdefault(approval.id, asyncio.Event())
        timers = {self._runtime.start(self._expire(approval), name=f"expiry of {approval.id}")}
        if over is not None:
            name = f"withdrawal of {approval.id}"
            timers.add(self._runtime.start(self._withdraw(approval, over), name=name))
        self._timers |= timers
        try:
            # After a crash the answer may have come before the process asked for it again.
            found = await self._store.approval(approval.id)
            if found is not None and found.state is ApprovalState.PENDING:
                self.needed(found, reason)
                async with self.state(run, reason, approval.expires_us):
                    await event.wait()
        finally:
            self._timers -= timers
            for timer in timers:
                timer.cancel()
            self._waiters.pop(approval.id, None)
        found = await self._store.approval(approval.id)
        assert found is not None
        run.approvals[found.call] = found
        return found

    async def _expire(self, approval: Approval) -> None:
        left_us = approval.expires_us - self._runtime.now_us()
        await self._runtime.sleep(max(0, left_us) / 1_000_000)
        await self._take_away(approval, ApprovalState.EXPIRED, "nobody answered in time")

    async def _withdraw(self, approval: Approval, over: asyncio.Event) -> None:
        await over.wait()
        note = "the call that it was asked for in has ended"
        await self._take_away(approval, ApprovalState.REVOKED, note)

    async def _take_away(
        self, approval: Approval, state: ApprovalState, note: str, by: str = "kernel"
    ) -> bool:
        taken = True
        try:
            await self._store.append(
                Write(
                    run=approval.run,
                    durable=True,
                    guards=[base.ApprovalPending(approval=approval.id, or_expired=True)],
                    events=[
                        ev.ApprovalAnswered(approval=approval.id, state=state, by=by, note=note)
                    ],
                )
            )
        except (GuardFailed, Ring0Error):
            taken = False  # Somebody answered at the last moment, or the disk is full.
        self._wake(approval.id)
        return taken

    async def expire(self, run: str, now_us: int) -> bool:
        """What a run that is put away asked, and nobody answered in time; whether there was any."""
        pending = await self._store.approvals(states=[ApprovalState.PENDING], run=run)
        over = [approval for approval in pending if now_us >= approval.expires_us]
        for approval in over:
            await self._take_away(approval, ApprovalState.EXPIRED, "nobody answered in time")
        return bool(over)

    def answered_by_person(self, approval: Approval) -> None:
        """Its row says so: who waits for it may go on."""
        self._wake(approval.id)
        self.wake(approval.run)

    async def take_back(self, approval: Approval, *, by: str, note: str) -> bool:
        """Somebody revokes an ask; whether it still waited."""
        taken = await self._take_away(approval, ApprovalState.REVOKED, note, by)
        self.wake(approval.run)
        return taken

    async def revoke(self, run: str, by: str) -> None:
        """All that wait for this run: a kill or an end takes them away."""
        pending = await self._store.approvals(states=[ApprovalState.PENDING], run=run)
        for approval in pending:
            try:
                await self._store.append(
                    Write(
                        run=run,
                        guards=[base.ApprovalPending(approval=approval.id, or_expired=True)],
                        events=[
                            ev.ApprovalAnswered(
                                approval=approval.id,
                                by=by,
                                state=ApprovalState.REVOKED,
                                note="the run has ended",
                            )
                        ],
                    )
                )
            except GuardFailed:
                pass  # Somebody answered at the last moment; the run is dead all the same.
            self._wake(approval.id)

    # --- unknown effects ----------------------------------------------------------------------

    async def settled(self, run: LiveRun, call: Call) -> Call:
        """The call once somebody has said what became of it."""
        event = self._waiters.setdefault(call.id, asyncio.Event())
        self.needed(call, "unknown")
        try:
            async with self.state(run, "unknown"):
                while (
                    found := await self._store.call(call.id)
                ) and found.state is CallState.UNKNOWN:
                    event.clear()
                    await event.wait()
        finally:
            self._waiters.pop(call.id, None)
        assert found is not None
        run.records[call.id] = found
        return found

    async def settle(self, call: str, *, happened: bool, by: str, note: str = "") -> Call:
        """A human says whether an unknown effect happened. Raises NotFound, InvalidInput."""
        found = await self._store.call(call)
        if found is None:
            raise NotFound(f"There is no call {call[:80]!r}.", todo="`ring0 show RUN` lists them.")
        if found.state is not CallState.UNKNOWN:
            raise InvalidInput(
                f"{call} is not unknown: it is {found.state}.",
                why="Only an effect that was cut off can be settled.",
                todo="`ring0 show RUN` marks the unknown ones.",
            )
        label = Label(integrity=Integrity.USER, sources=(by,))
        if happened:
            outcome = Outcome(
                state=CallState.OK,
                label=label,
                value={"settled": "it happened", "by": by, "note": note},
            )
        else:
            error = EffectUnknown(
                "The effect was cut off, and it did not happen.",
                why=f"Settled by {by}. {note}".strip(),
                todo="Ask again with a new call.",
            )
            outcome = Outcome(state=CallState.ERROR, label=label, error=error.as_dict())
        stored = msgspec.json.encode(outcome)
        where = address(await self._store.run_key(found.run), stored)
        try:
            await self._store.append(
                Write(
                    run=found.run,
                    blobs={where: stored},
                    durable=True,
                    guards=[base.CallOpen(call=call)],
                    events=[
                        ev.CallSettled(
                            call=call,
                            happened=happened,
                            outcome=where,
                            by=by,
                            note=values.note(note),
                        )
                    ],
                )
            )
        except GuardFailed as failure:
            raise InvalidInput(
                f"{call} was settled by somebody else.", why=failure.detail, todo="Nothing."
            ) from None
        self._runtime.reached("call.settled")
        self._wake(call)
        self.wake(found.run, anyway=True)
        return replace(found, state=outcome.state, outcome=where)

    # --- the run's state ----------------------------------------------------------------------

    @asynccontextmanager
    async def state(self, run: LiveRun, reason: str, wake_us: int = 0) -> AsyncIterator[None]:
        """The run is `waiting` for this while the block lasts; other calls of it may go on.

        `wake_us`: when the wait is over though nothing happened; 0: never. When all that a run has
        under way waits, it may be put away: then the block is cancelled, and the call is made again
        when there is something to do. So what comes must stand as a row. Raises LimitReached.
        """
        self.check_room(run)
        run.waits[reason] += 1
        if wake_us:
            run.alarms.append(wake_us)
        run.changed()
        await self.move(run, RunState.WAITING, reason)
        try:
            yield
        except asyncio.CancelledError:
            raise  # The run is being stopped: its row goes on to say what it waits for.
        except BaseException:
            await self._waited(run, reason, wake_us)
            raise
        await self._waited(run, reason, wake_us)

    async def _waited(self, run: LiveRun, reason: str, wake_us: int) -> None:
        if wake_us:
            run.alarms.remove(wake_us)
        run.waits[reason] -= 1
        run.waits += type(run.waits)()  # Drops what is at zero.
        run.changed()
        left = next(iter(run.waits), "")
        await self.move(run, RunState.WAITING if left else RunState.RUNNING, left)

    async def move(
        self,
        run: LiveRun,
        state: RunState,
        reason: str = "",
        note: str = "",
        wake_us: int = 0,
    ) -> None:
        """Writes the run's state, unless it stands or the run has ended."""
        as_it_is = (run.row.state, run.row.waiting_for, run.row.wake_us)
        if run.strict or as_it_is == (state, reason, wake_us):
            return
        row = run.row
        run.row = replace(row, state=state, waiting_for=reason, wake_us=wake_us)
        try:
            await self._store.append(
                Write(
                    run=run.id,
                    guards=[base.RunLive(run=run.id, epoch=row.epoch)],
                    durable=state is RunState.WAITING,
                    events=[
                        ev.RunMoved(state=state, waiting_for=reason, note=note, wake_us=wake_us)
                    ],
                )
            )
        except GuardFailed:
            pass  # It has ended meanwhile: its end says all.

    def _wake(self, key: str) -> None:
        if (event := self._waiters.get(key)) is not None:
            event.set()
