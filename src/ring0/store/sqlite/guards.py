"""The guards of a write, asked of the rows as they are inside its transaction."""

from __future__ import annotations

import apsw

from ring0.store import base
from ring0.store.base import Guard, GuardFailed
from ring0.store.sqlite import sql
from ring0.store.sqlite.tables import SqliteTables, first
from ring0.types import ENDED, Approval, ApprovalState, CallState, Run


def check(guard: Guard, tables: SqliteTables, db: apsw.Connection, now_us: int) -> None:
    """Raises GuardFailed when the guard does not hold."""
    match guard:
        case base.RunLive():
            run = _run(guard, tables, guard.run)
            if run.state in ENDED:
                raise GuardFailed(guard, f"the run is {run.state}")
            if run.epoch != guard.epoch:
                raise GuardFailed(guard, f"epoch {guard.epoch} is over, the run is at {run.epoch}")
        case base.NotKilled():
            _not_killed(guard, _run(guard, tables, guard.run), tables, db)
        case base.LabelUnmoved():
            run = _run(guard, tables, guard.run)
            if run.label_version != guard.version:
                raise GuardFailed(guard, "the run's label rose")
        case base.Room():
            _room(guard, _run(guard, tables, guard.run))
        case base.ApprovalGood() | base.ApprovalPending():
            _approval(guard, tables.get("approval", guard.approval), now_us)
        case base.CallFresh():
            if tables.get("call", guard.call) is not None:
                raise GuardFailed(guard, f"{guard.call} stands in the journal already")
        case base.CallOpen():
            call = tables.get("call", guard.call)
            if call is None or call.state not in (CallState.INTENDED, CallState.UNKNOWN):
                raise GuardFailed(guard, f"{guard.call} is {call.state if call else 'not there'}")
        case base.AsksBelow():
            pending = first(db, sql.ASKS_PENDING, (guard.root,))[0]
            if pending >= guard.most:
                raise GuardFailed(guard, f"{pending} approvals are pending already")


def _run(guard: Guard, tables: SqliteTables, key: str) -> Run:
    run: Run | None = tables.get("run", key)
    if run is None:
        raise GuardFailed(guard, "no such run")
    return run


def _not_killed(guard: Guard, run: Run, tables: SqliteTables, db: apsw.Connection) -> None:
    keys = ["all:", f"agent:{run.agent}", f"tenant:{run.tenant}", f"run:{run.id}"]
    above = run
    while above.parent:  # A run in the middle of a tree may be the one that was killed.
        above = _run(guard, tables, above.parent)
        keys.append(f"run:{above.id}")
    reached = first(db, sql.kill_reached(len(keys)), keys)[0]
    if reached is not None and reached > run.kill_seen:
        raise GuardFailed(guard, "a kill reached the run")


def _room(guard: base.Room, run: Run) -> None:
    if run.calls_used + guard.calls > run.budget.calls:
        raise GuardFailed(guard, f"{run.calls_used} of {run.budget.calls} calls are used")
    cost = run.cost_used_microusd + guard.reserve_microusd
    if guard.reserve_microusd and cost > run.budget.cost_microusd:
        raise GuardFailed(
            guard,
            f"{run.cost_used_microusd / 1e6:.6f} of {run.budget.cost_microusd / 1e6:.6f} USD are"
            f" used or reserved, and this may take {guard.reserve_microusd / 1e6:.6f}",
        )


def _approval(
    guard: base.ApprovalGood | base.ApprovalPending, approval: Approval | None, now_us: int
) -> None:
    if approval is None:
        raise GuardFailed(guard, "no such approval")
    good = isinstance(guard, base.ApprovalGood)
    wanted = ApprovalState.APPROVED if good else ApprovalState.PENDING
    if approval.state is not wanted:
        raise GuardFailed(guard, f"the approval is {approval.state}")
    over = now_us >= approval.expires_us
    if over and not (isinstance(guard, base.ApprovalPending) and guard.or_expired):
        raise GuardFailed(guard, "the approval has expired")
    if isinstance(guard, base.ApprovalGood) and approval.bound_to != guard.bound_to:
        raise GuardFailed(guard, "the approval is bound to another call")
