"""Why a run that was put away could go on now: read from its rows, whoever changed them.

So nothing that happens while a run is put away, or while no kernel is at work, is lost: whoever
looks later finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import limits
from ring0.kernel.asks import newest
from ring0.kernel.calls import requests
from ring0.store import Store
from ring0.types import (
    ENDED,
    LIVE,
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Run,
    RunState,
)

if TYPE_CHECKING:
    from ring0.kernel.life.runs import Runs

PAUSE = "pause"
UNKNOWN = "unknown"
_ANSWERED = (
    ApprovalState.APPROVED,
    ApprovalState.EDITED,
    ApprovalState.DENIED,
    ApprovalState.EXPIRED,
)


async def of(store: Store, row: Run, now_us: int) -> frozenset[str]:
    """What it can go on with: answered asks, calls, messages, `pause`, `unknown`. Nothing while it
    is paused."""
    if row.paused_by:
        return frozenset()
    found = {PAUSE} if row.waiting_for == PAUSE else set()
    calls = {call.id: call for call in await store.calls(row.id)}
    found |= _answered(await store.approvals(run=row.id), calls)
    unknown = any(call.state is CallState.UNKNOWN for call in calls.values())
    if row.waiting_for == UNKNOWN and not unknown:
        found.add(UNKNOWN)
    for call in calls.values():
        if call.state is CallState.INTENDED:
            found.add(await _may_go_on(store, row, call, now_us))
    return frozenset(found - {""})


def _answered(approvals: list[Approval], calls: dict[str, Call]) -> set[str]:
    """Answered asks whose calls have not ended since; a call may be asked about again."""
    found = set()
    for call, approval in newest(approvals).items():
        open_still = call not in calls or calls[call].state is CallState.INTENDED
        if open_still and approval.state in _ANSWERED and not requests.is_one(call):
            found.add(approval.id)
    return found


async def _may_go_on(store: Store, row: Run, call: Call, now_us: int) -> str:
    """What a call can go on with that was begun and had not ended when its run was put away;
    empty: nothing."""
    args: dict[str, Any] = msgspec.json.decode(await store.blob(call.args)) or {}
    goes_on = True  # Nothing that is at work is ever put away: it is to be carried on.
    if call.kind is CallKind.SLEEP:
        goes_on = now_us >= call.begun_us + int(args["seconds"] * 1_000_000)
    elif call.kind is CallKind.ASK:
        goes_on = False  # Its approval says.
    elif call.kind is CallKind.WAIT and "message" in args:
        if messages := await store.messages(row.id):
            return f"{call.id} {messages[-1].number}"  # Another call may take the ones before.
        timeout_s = args.get("timeout_s")
        goes_on = timeout_s is not None and now_us >= call.begun_us + int(timeout_s * 1_000_000)
    elif call.kind is CallKind.WAIT:
        children = [await store.run(run) for run in args.get("runs") or [args["run"]]]
        ended = [child is None or child.state in ENDED for child in children]
        goes_on = any(ended) if args.get("first") else all(ended)
    return call.id if goes_on else ""


async def can_come(store: Store, row: Run) -> str:
    """What will wake the run, one day; empty: nothing ever will, but its deadline."""
    if row.paused_by:
        return f"paused by {row.paused_by}"
    if row.waiting_for in ("diverged", UNKNOWN, "budget", "message"):
        return row.waiting_for
    pending = await store.approvals(run=row.id, states=[ApprovalState.PENDING])
    if pending:
        return pending[0].id
    for call in await store.calls(row.id):
        if call.state is CallState.INTENDED and call.kind in (CallKind.SLEEP, CallKind.WAIT):
            return call.id
    return ""


def is_put_away(row: Run) -> bool:
    """It waits as a row: nobody has a process of it. A row that waits without a time to be looked
    at belongs to a process that stands (or stood, before a crash)."""
    return row.state is RunState.WAITING and row.wake_us > 0


async def stuck(runs: Runs) -> dict[str, str]:
    """Runs that are neither at work, nor queued, nor put away with something to come; and why."""
    found = {}
    await runs.store.flush()
    for row in await runs.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX):
        if why := await _stuck(runs, row):
            found[row.id] = why
    return found


async def _stuck(runs: Runs, row: Run) -> str:
    if runs.is_here(row.id) or runs.ending.has_begun(row.id):
        return ""
    if row.waiting_for == "diverged" or row.id in runs.not_recovered:
        return ""  # A person was told.
    if row.id not in runs.waking.away:
        return f"it is {row.state}, and nobody carries it on"
    if runs.waking.alarms.woken(row.id):
        return ""
    if not is_put_away(row):
        return f"it is {row.state}, and taken for put away"
    now_us = runs.runtime.now_us()
    if ready := await of(runs.store, row, now_us) - runs.waking.away[row.id].known:
        return f"it could go on with {', '.join(sorted(ready))}, and nobody woke it"
    if not runs.waking.alarms.at(row.id):
        return "nobody will look at it again"
    return "" if await can_come(runs.store, row) else "nothing that it waits for can come"
