"""How a request of a tool's sandbox ends when it was cut off: by a crash, by a kill, by a stop.

It is named by its tool's call and the epoch that it was made in, so nobody ever asks for it again:
it is not recalled and not retried, and what is open about it has to be closed here. So it is with
what came with a token: the token is dead, and the run's own process never asks for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from ring0.errors import ToolFailed
from ring0.identity.tokens import came_with_token
from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Outcome,
    Run,
)

_NAME: Final = re.compile(r".+/e[0-9]+\.[0-9]+", re.DOTALL)
_OPEN: Final = (ApprovalState.PENDING, ApprovalState.APPROVED)


def name(call: str, epoch: int, number: int) -> str:
    """The call id of a tool's request: no door gives one of that form."""
    return f"{call}/e{epoch}.{number}"


def is_one(call: str) -> bool:
    """It names a tool's request, or what came with a token: no call of an agent's process."""
    return came_with_token(call) or _NAME.fullmatch(call) is not None


def repeatable(calls: Iterable[Call]) -> list[Call]:
    """The requests without an outcome that may be sent twice: those of `once` become unknown."""
    return [
        call
        for call in calls
        if (call.kind is CallKind.EGRESS or came_with_token(call.id))
        and call.state is CallState.INTENDED
        and call.effect is not Effect.ONCE
    ]


def revoked(approvals: Iterable[Approval]) -> list[ev.AnyEvent]:
    """Takes away what was asked about requests: who approved one would approve nothing."""
    return [
        ev.ApprovalAnswered(
            approval=approval.id,
            state=ApprovalState.REVOKED,
            by="kernel",
            note="the request that it was asked for was cut off",
        )
        for approval in approvals
        if approval.state in _OPEN and is_one(approval.call)
    ]


def ended(
    calls: Iterable[Call], key: bytes, why: str
) -> tuple[list[ev.AnyEvent], dict[str, bytes]]:
    """The ends of `repeatable` requests, and the blobs that they name. They failed: whoever made
    them has gone too, and asks anew where its call is carried out again."""
    events: list[ev.AnyEvent] = []
    error = ToolFailed(
        "The request was cut off.",
        why=f"{why} It may have been answered; nobody heard it.",
        todo="Nothing: it may be sent twice, and whoever needs it asks anew.",
    )
    outcome = Outcome(
        state=CallState.ERROR, label=Label(integrity=Integrity.SYSTEM), error=error.as_dict()
    )
    stored = msgspec.json.encode(outcome)
    where = address(key, stored)
    for call in calls:
        events.append(
            ev.CallEnded(
                call=call.id,
                state=CallState.ERROR,
                outcome=where,
                cost_microusd=call.cost_microusd,
            )
        )
    return events, {where: stored} if events else {}


async def end(store: Store, run: Run, calls: Iterable[Call], why: str) -> None:
    """Writes the ends of those of these calls that are `repeatable` requests: nothing carries
    them on any more. Nothing where the run has ended already."""
    left = repeatable(calls)
    if not left:
        return
    events, blobs = ended(left, await store.run_key(run.id), why)
    guards: list[base.Guard] = [base.RunLive(run=run.id, epoch=run.epoch)]
    guards += [base.CallOpen(call=call.id) for call in left]
    try:
        await store.append(Write(run=run.id, events=events, blobs=blobs, guards=guards))
    except base.GuardFailed:
        pass  # Somebody else ended the run: its next kernel, or a kill.
