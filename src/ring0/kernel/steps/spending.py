"""What a call reserves of budget and caps in the transaction that admits it, and how the kernel's
picture of budgets keeps up with the store's.

What reserves of a cap, or was approved by a person, is on disk before the call begins. Other calls
ride to the disk in chunks, of calls, tokens and money: before more than a chunk could be lost in a
crash, one waits until it is there. What may have been lost counts as used (lost.py), so a budget is
never overspent; after that none of the run's calls rides any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, NotFound, RunDead
from ring0.kernel.calls import asking
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.judging import Judged
from ring0.runtime import Runtime
from ring0.scheduler import budgets, caps
from ring0.scheduler.budgets import Riding
from ring0.scheduler.caps import Cap, Taking
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.store.project import SHARED
from ring0.tools.driver import Prepared
from ring0.types import ENDED, Approval, CallKind, CapUse, Frozen, Run

_SETTLED = ("money", "tokens")
"""What a call may use less of than it reserved."""


class Reservation(Frozen, frozen=True, kw_only=True):
    """What is written with an intent."""

    guards: tuple[base.Guard, ...]
    takings: tuple[Taking, ...] = ()
    raised: tuple[ev.BudgetRaised, ...] = ()
    above: tuple[str, ...] = ()
    """The runs that it raises, too."""
    durable: bool
    rode: Riding = Riding()
    """Of the run, all that rode before it."""

    @property
    def caps(self) -> tuple[CapUse, ...]:
        return tuple(one.use for one in self.takings)


class Spending:
    """The budgets of the runs that go on here. `live` is the gate's."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        live: Mapping[str, LiveRun],
        found: Sequence[Cap],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._live = live
        self._caps = tuple(found)

    # --- before a person is asked -------------------------------------------------------------

    async def look(self, run: LiveRun, judged: Judged) -> None:
        """Nobody is asked about a call for which there is no room anyway. Raises LimitReached."""
        row, held = run.row, judged.held
        if held.kind is CallKind.ASK or held.retry is not None:
            return
        if row.calls_used >= row.budget.calls:
            detail = f"{row.calls_used} of {row.budget.calls} calls are used or reserved"
            raise budgets.refusal(row, detail, run.records.values())
        for taking in self._takings(run, held.kind, _name(judged), judged.prepared):
            used = await self._store.cap_used(taking.use.key, taking.use.window)
            caps.check(taking, used, self._runtime.now_us())

    # --- with the intent ----------------------------------------------------------------------

    def reserve(self, run: LiveRun, judged: Judged, approval: Approval | None) -> Reservation:
        """What a call takes that is admitted. Raises LimitReached where a cap can't be counted."""
        prepared, kind = judged.prepared, judged.held.kind
        takings = self._takings(run, kind, _name(judged), prepared)
        raised = asking.raised(judged, approval)
        above = prepared.state.above if raised else ()
        # Who asks for more has no room, maybe: what is given is one call more, for the ask itself.
        room = _room(run.row, prepared, calls=0 if raised or prepared.uncounted else 1)
        own = Riding(
            calls=1, tokens=prepared.reserve_tokens, cost_microusd=prepared.reserve_microusd
        )
        rode = run.rode
        durable = (
            bool(takings or raised)
            or (_paid(prepared) and not _may_ride(judged, approval))
            or run.row.calls_lost > 0
            or not (rode + own).less(run.arrived).fits(budgets.most_riding(run.row.budget))
        )
        if not durable:
            run.rode = rode + own
        return Reservation(
            guards=(room, *(base.CapRoom(uses=(one.use,)) for one in takings)),
            takings=takings,
            raised=raised,
            above=above,
            durable=durable,
            rode=rode,
        )

    def reserved(self, run: LiveRun, call: str, taken: Reservation, *, durable: bool) -> None:
        """It is written; if durable, it is on disk, with all that rode before it."""
        if durable and taken.rode.calls > run.arrived.calls:
            run.arrived = taken.rode  # Two that wait at once both tell of it, in any order.
        for event in taken.raised:
            self.raised(run.id, taken.above, event)
        if kept := [one for one in taken.takings if one.cap.of in _SETTLED]:
            run.reserved_caps.setdefault(call, []).extend(kept)

    def again(self, run: LiveRun, kind: CallKind, name: str, prepared: Prepared) -> Reservation:
        """What one more try of a call takes: what may be paid for twice is reserved twice."""
        every = self._takings(run, kind, name, prepared)
        takings = tuple(one for one in every if one.cap.of in _SETTLED)
        return Reservation(
            guards=(
                _room(run.row, prepared, calls=0),
                *(base.CapRoom(uses=(one.use,)) for one in takings),
            ),
            takings=takings,
            durable=_paid(prepared),
        )

    async def reserve_again(self, row: Run, call: str, prepared: Prepared) -> None:
        """Before another attempt within one call. Raises LimitReached, RunDead."""
        run = self._live.get(row.id)
        if run is None or call not in run.records:
            raise RunDead(f"{row.id} goes on no more.", todo="Start a new run.")
        record = run.records[call]
        taken = self.again(run, record.kind, record.name, prepared)
        event = ev.CallRetried(
            call=call,
            epoch=run.row.epoch,
            reserve_microusd=prepared.reserve_microusd,
            reserve_tokens=prepared.reserve_tokens,
            caps=taken.caps,
        )
        live = (base.RunLive(run=row.id, epoch=run.row.epoch), base.NotKilled(run=row.id))
        write = Write(
            run=row.id, events=[event], guards=[*live, *taken.guards], durable=taken.durable
        )
        try:
            await self._store.append(write)
        except GuardFailed as failure:
            raise await self.refusal(run, failure, taken) from None
        self.reserved(run, call, taken, durable=False)
        reserve(run, call, prepared)

    async def refusal(self, run: LiveRun, failure: GuardFailed, taken: Reservation) -> CallDenied:
        """What a call is told that was not admitted."""
        match failure.guard:
            case base.Room():
                return budgets.refusal(run.row, failure.detail, run.records.values())
            case base.CapRoom(uses=(use,)):
                taking = next(one for one in taken.takings if one.use == use)
                await self._store.flush()  # What was admitted just before is told, too.
                used = await self._store.cap_used(use.key, use.window)
                return caps.refusal(taking, used, self._runtime.now_us())
            case base.RunLive() | base.NotKilled():
                return RunDead(
                    f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
                )
            case _:
                return CallDenied(
                    "The call was not admitted.",
                    why=failure.detail,
                    todo="Ask again with a new call.",
                )

    # --- afterwards ---------------------------------------------------------------------------

    def settled(self, run: LiveRun, ended: ev.CallEnded) -> ev.CallEnded:
        """With what comes back of caps on money and tokens."""
        takings = run.reserved_caps.pop(ended.call, [])
        back = []
        for newest in {one.use.key: one for one in takings}.values():
            took = sum(one.use.amount for one in takings if one.use.key == newest.use.key)
            spent = ended.cost_microusd if newest.cap.of == caps.MONEY else ended.tokens
            if (left := min(newest.use.amount, took - spent)) > 0:
                back.append(replace(newest.use, amount=left))
        return replace(ended, caps_back=tuple(back)) if back else ended

    # --- the tree, as the projection moves it ---------------------------------------------------

    def queued(self, child: Run) -> None:
        """A child's share was moved to it."""
        if (parent := self._live.get(child.parent)) is not None:
            moved = {name: getattr(child.budget, name) for name in SHARED}
            moved["children"] += 1
            parent.row = _use(parent.row, moved)

    def ended(self, child: Run) -> None:
        """What it left comes back. `child`: its row after its end was written, by whoever wrote."""
        if (parent := self._live.get(child.parent)) is not None:
            unused = {
                name: getattr(child, used) - getattr(child.budget, name)
                for name, used in SHARED.items()
            }
            parent.row = _use(parent.row, unused)

    def raised(self, run: str, above: Sequence[str], event: ev.BudgetRaised) -> None:
        """More for a run; those above it have that much more, and have moved it down. Their alarms
        read the deadline again when they ring."""
        self._runtime.reached("budget.raised")
        more = {name: getattr(event, name) for name in SHARED}
        for one in (run, *above):
            if (live := self._live.get(one)) is not None:
                wider = _more(live.row, more, event.wall_s)
                live.row = wider if one == run else _use(wider, more)

    async def give(self, run: str, more: Mapping[str, Any], *, by: str, note: str = "") -> Run:
        """An operator gives a run more. Raises NotFound, InvalidInput, CallInvalid."""
        given = asking.checked(more)
        event = asking.event(given, by=by, note=note[: limits.ASK_WHY_CHARS_MAX])
        for _ in range(limits.STALE_DECISIONS_MAX):
            await self._store.flush()
            row = await self._store.run(run)
            if row is None:
                raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
            if row.state in ENDED:
                raise InvalidInput(
                    f"{run} has ended already: it is {row.state}.",
                    why="What it left went back to where it came from.",
                    todo="Start a new run with a larger budget.",
                )
            above = await asking.above_of(self._store, row)
            guard = base.RunLive(run=run, epoch=row.epoch)
            try:
                await self._store.append(
                    Write(run=run, events=[event], guards=[guard], durable=True)
                )
            except GuardFailed:
                continue  # It was started again, or has ended.
            self.raised(run, [one.id for one in above], event)
            found = await self._store.run(run)
            assert found is not None
            return found
        raise InvalidInput(f"{run} is started again and again.", todo="Try again later.")

    def _takings(
        self, run: LiveRun, kind: CallKind, name: str, prepared: Prepared
    ) -> tuple[Taking, ...]:
        if not self._caps:
            return ()
        touched = (one.partition(":")[2] for one in prepared.touches)
        return caps.takings(
            self._caps,
            run.row,
            name if kind is CallKind.TOOL else f"{kind}:{name}",
            (*prepared.tables, *touched, *([prepared.host] if prepared.host else ())),
            {
                **prepared.amounts,
                "calls": 1,
                "tokens": prepared.reserve_tokens,
                "money": prepared.reserve_microusd,
            },
            mutates=prepared.mutates,
            now_us=self._runtime.now_us(),
        )


def reserve(run: LiveRun, call: str, prepared: Prepared) -> None:
    """The kernel's picture of a call and its run, with what one try of it reserves."""
    cost, tokens = prepared.reserve_microusd, prepared.reserve_tokens
    if not (cost or tokens):
        return
    record = run.records[call]
    run.records[call] = replace(
        record, cost_microusd=record.cost_microusd + cost, tokens=record.tokens + tokens
    )
    run.row = _use(run.row, {"cost_microusd": cost, "tokens": tokens})


def _paid(prepared: Prepared) -> bool:
    return bool(prepared.reserve_microusd or prepared.reserve_tokens)


def _may_ride(judged: Judged, approval: Approval | None) -> bool:
    """Whether a call that is paid for may be lost with its run's process: then nobody has heard of
    it. Who holds a token lives on, and a person's yes is used up where it was used."""
    return approval is None and judged.held.scope is None and not judged.prepared.uncounted


def _room(run: Run, prepared: Prepared, *, calls: int) -> base.Room:
    return base.Room(
        run=run.id,
        reserve_microusd=prepared.reserve_microusd,
        tokens=prepared.reserve_tokens,
        calls=calls,
    )


def _name(judged: Judged) -> str:
    """What a cap knows the call by: a request of a tool's sandbox, by the tool."""
    within = judged.held.within
    return within.tool.name if within else judged.held.name


def _use(run: Run, amounts: Mapping[str, int]) -> Run:
    used = {SHARED[name]: getattr(run, SHARED[name]) + amount for name, amount in amounts.items()}
    return replace(run, **used)


def _more(run: Run, more: Mapping[str, int], wall_s: int) -> Run:
    wider = {name: getattr(run.budget, name) + amount for name, amount in more.items()}
    budget = replace(run.budget, wall_s=run.budget.wall_s + wall_s, **wider)
    return replace(run, budget=budget, deadline_us=run.deadline_us + wall_s * 1_000_000)
