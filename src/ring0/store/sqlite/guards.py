"""The guards of a write, asked of the rows as they are inside its transaction."""

from __future__ import annotations

from typing import Any, Final

import apsw

from ring0 import limits
from ring0.store import base
from ring0.store.base import Guard, GuardFailed
from ring0.store.project import lock_key, message_key
from ring0.store.rows import CapRow, KillRow
from ring0.store.sqlite import sql
from ring0.store.sqlite.tables import SqliteTables, decode, first
from ring0.types import (
    ENDED,
    Approval,
    ApprovalState,
    Call,
    CallState,
    Cron,
    Hook,
    Lock,
    LockMode,
    Run,
    Standing,
)

LOOKS_THROUGH_A_TABLE: Final = frozenset({base.AsksBelow, base.LockFree})
"""Guards that find their rows by more than a key: all rows must be in the table by then."""


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
            _not_killed(guard, _run(guard, tables, guard.run), tables)
        case base.LabelUnmoved():
            run = _run(guard, tables, guard.run)
            if run.label_version != guard.version:
                raise GuardFailed(guard, "the run's label rose")
        case base.Room():
            _room(guard, _run(guard, tables, guard.run))
        case base.CallFresh():
            if tables.get("call", guard.call) is not None:
                raise GuardFailed(guard, f"{guard.call} stands in the journal already")
        case base.CallOpen():
            call = tables.get("call", guard.call)
            if call is None or call.state not in (CallState.INTENDED, CallState.UNKNOWN):
                raise GuardFailed(guard, f"{guard.call} is {call.state if call else 'not there'}")
        case base.NotUndone():
            _not_undone(guard, tables.get("call", guard.call))
        case base.ApprovalGood() | base.ApprovalPending():
            _approval(guard, tables, now_us)
        case base.StandingGood():
            _standing(guard, guard.standing, tables, now_us)
        case base.AsksBelow():
            pending = first(db, sql.ASKS_PENDING, (guard.root,))[0]
            if pending >= guard.most:
                raise GuardFailed(guard, f"{pending} approvals are pending already")
        case base.DenialsBelow():
            denials = _run(guard, tables, guard.root).denials
            if denials >= guard.most:
                raise GuardFailed(guard, f"{denials} asks of the tree were denied in a row")
        case base.CapRoom():
            _cap_room(guard, tables)
        case base.LockHeld():
            _lock_held(guard, tables, now_us)
        case base.LockFree():
            _lock_free(guard, db, now_us)
        case base.MessageWaits():
            message = tables.get("message", message_key(guard.to, guard.number))
            if message is None or message.taken_by:
                raise GuardFailed(guard, f"message {guard.number} does not wait")
        case base.OrderStands():
            _order_stands(guard, tables.get(guard.order, guard.name))
        case base.RunNew():
            if tables.get("run", guard.run) is not None:
                raise GuardFailed(guard, f"{guard.run} is there already")


def _run(guard: Guard, tables: SqliteTables, key: str) -> Run:
    run: Run | None = tables.get("run", key)
    if run is None:
        raise GuardFailed(guard, "no such run")
    return run


def _not_killed(guard: Guard, run: Run, tables: SqliteTables) -> None:
    keys = ["all:", f"agent:{run.agent}", f"tenant:{run.tenant}", f"run:{run.id}"]
    above = run
    while above.parent:  # A run in the middle of a tree may be the one that was killed.
        above = _run(guard, tables, above.parent)
        keys.append(f"run:{above.id}")
    for key in keys:
        kill: KillRow | None = tables.get("kill", key)
        if kill is not None and kill.generation > run.kill_seen:
            raise GuardFailed(guard, "a kill reached the run")


def _not_undone(guard: base.NotUndone, call: Call | None) -> None:
    if call is None or call.state is not CallState.OK:
        raise GuardFailed(guard, f"{guard.call} is {call.state if call else 'not there'}")
    if call.undone_by:
        raise GuardFailed(guard, f"{call.undone_by} takes {guard.call} back, or has")


def _room(guard: base.Room, run: Run) -> None:
    for what, used, asked, budget in (
        ("calls", run.calls_used, guard.calls, run.budget.calls),
        ("tokens", run.tokens_used, guard.tokens, run.budget.tokens),
        ("children", run.children_used, guard.children, run.budget.children),
    ):
        if asked and used + asked > budget:
            raise GuardFailed(
                guard, f"{used} of {budget} {what} are used or reserved, and this takes {asked}"
            )
    cost = run.cost_used_microusd + guard.reserve_microusd
    if guard.reserve_microusd and cost > run.budget.cost_microusd:
        raise GuardFailed(
            guard,
            f"{run.cost_used_microusd / 1e6:.6f} of {run.budget.cost_microusd / 1e6:.6f} USD are"
            f" used or reserved, and this may take {guard.reserve_microusd / 1e6:.6f}",
        )


def _cap_room(guard: base.CapRoom, tables: SqliteTables) -> None:
    taken: dict[str, int] = {}
    for use in guard.uses:
        row: CapRow | None = tables.get("cap", use.key)
        used = (row.used_in(use.window) if row else 0) + taken.get(use.key, 0)
        taken[use.key] = taken.get(use.key, 0) + use.amount
        if used + use.amount > use.most:
            raise GuardFailed(guard, f"{used} of {use.most} are used, and this takes {use.amount}")


def _lock_held(guard: base.LockHeld, tables: SqliteTables, now_us: int) -> None:
    held: Lock | None = tables.get("lock", lock_key(guard.tenant, guard.resource, guard.run))
    if held is None or held.fence != guard.fence:
        raise GuardFailed(guard, f"the run no longer holds {guard.resource} as {guard.fence}")
    if now_us >= held.expires_us:
        raise GuardFailed(guard, f"its lease of {guard.resource} is over")


def _lock_free(guard: base.LockFree, db: apsw.Connection, now_us: int) -> None:
    rows: list[Any] = db.execute(sql.LOCKS_ON, (guard.tenant, guard.resource)).fetchall()
    for (row,) in rows:
        held: Lock = decode("lock", row)
        shuts_out = LockMode.EXCLUSIVE in (held.mode, guard.mode)
        if held.run != guard.run and shuts_out and now_us < held.expires_us:
            raise GuardFailed(guard, f"{held.run} holds {guard.resource}")


def _order_stands(guard: base.OrderStands, order: Cron | Hook | None) -> None:
    if order is None or order.version != guard.version:
        raise GuardFailed(guard, f"the {guard.order} was taken away or given anew")
    if order.paused_by and not guard.paused:
        raise GuardFailed(guard, f"the {guard.order} is paused")
    if guard.due_us and isinstance(order, Cron) and guard.due_us <= order.done_us:
        raise GuardFailed(guard, "that moment is dealt with already")


def _approval(
    guard: base.ApprovalGood | base.ApprovalPending, tables: SqliteTables, now_us: int
) -> None:
    approval: Approval | None = tables.get("approval", guard.approval)
    if approval is None:
        raise GuardFailed(guard, "no such approval")
    good = isinstance(guard, base.ApprovalGood)
    wanted = ApprovalState.APPROVED if good else ApprovalState.PENDING
    if approval.state is not wanted:
        raise GuardFailed(guard, f"the approval is {approval.state}")
    over = now_us >= approval.expires_us
    if over and not (isinstance(guard, base.ApprovalPending) and guard.or_expired):
        raise GuardFailed(guard, "the approval has expired")
    if isinstance(guard, base.ApprovalPending):
        if guard.unless_by and guard.unless_by in approval.yes_by:
            raise GuardFailed(guard, f"{guard.unless_by} has said yes to it already")
        return
    if approval.bound_to != guard.bound_to:
        raise GuardFailed(guard, "the approval is bound to another call")
    if approval.under:
        _standing(guard, approval.under, tables, now_us, used=True)


def _standing(
    guard: Guard, key: str, tables: SqliteTables, now_us: int, *, used: bool = False
) -> None:
    standing: Standing | None = tables.get("standing", key)
    if standing is None:
        raise GuardFailed(guard, "no such standing approval")
    if standing.revoked_by:
        raise GuardFailed(guard, f"{key} was revoked by {standing.revoked_by}")
    if now_us >= standing.expires_us:
        raise GuardFailed(guard, f"{key} has expired")
    if not used and standing.uses >= limits.STANDING_USES_MAX:
        raise GuardFailed(guard, f"{key} was used {standing.uses} times")
    for where in ("all:", f"agent:{standing.agent}", f"tenant:{standing.tenant}"):
        kill: KillRow | None = tables.get("kill", where)
        if kill is not None and kill.generation > standing.kill_seen:
            raise GuardFailed(guard, f"a kill has ended {key}")
