"""Step 7 of the gate: the write that admits a call, with all that has to hold for it.

Values in, a write out: the gate appends it. Not here: what a call reserves (spending.py), whose
turn it is and which locks it needs (turns.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ring0 import limits
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import judging
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.spending import Reservation
from ring0.store import Write, base
from ring0.store import events as ev
from ring0.types import COMPENSABLE, Approval, ApprovalState, CallState, Effect, Integrity


def first(
    run: LiveRun,
    judged: Judged,
    approval: Approval | None,
    taken: Reservation,
    locks: Sequence[base.Guard],
    now_us: int,
) -> Write:
    """The intent. Liveness, kill, label, budget, locks and approval are its guards; it consumes
    the approval and reserves the budget. A `once` intent is on disk before its effect begins."""
    call = judging.call_row(run, judged, approval, CallState.INTENDED, now_us)
    guards: list[base.Guard] = [
        base.RunLive(run=run.id, epoch=run.row.epoch),
        base.NotKilled(run=run.id),
        base.LabelUnmoved(run=run.id, version=run.row.label_version),
        *taken.guards,
        base.CallFresh(call=call.id),
        *locks,
    ]
    if call.undoes:
        guards.append(base.NotUndone(call=call.undoes))
    if approval is not None:
        guards.append(base.ApprovalGood(approval=approval.id, bound_to=approval.bound_to))
    intended = ev.CallIntended(
        call=call,
        reserve_microusd=judged.prepared.reserve_microusd,
        reserve_tokens=judged.prepared.reserve_tokens,
        uncounted=judged.prepared.uncounted,
        caps=taken.caps,
    )
    return Write(
        run=run.id,
        guards=guards,
        blobs=judged.blobs,
        events=[*taken.raised, *_answered_for(judged, approval), intended],
        # What another tool takes back has to be known of, whatever its effect is.
        durable=call.effect is Effect.ONCE or taken.durable or _is_compensable(judged),
    )


def _answered_for(judged: Judged, approval: Approval | None) -> list[ev.Declassified]:
    """Who says yes to a call answers for what it was asked about: where an argument came only from
    untrusted data, or from nowhere. For this one call: the value is no better for the next."""
    if approval is None:
        return []
    doubtful = Counter(
        origin.argument
        for origin in judged.origins
        if not origin.chosen and (origin.integrity is Integrity.UNTRUSTED or not origin.sources)
    )
    by = " and ".join(approval.yes_by) or approval.answered_by
    return [
        ev.Declassified(
            call=judged.held.id,
            what=argument[: limits.FIELD_PATH_CHARS_MAX],
            values=count,
            before=Integrity.UNTRUSTED,
            after=Integrity.USER,
            by=by,
        )
        for argument, count in doubtful.items()
    ]


def _is_compensable(judged: Judged) -> bool:
    tool = judged.held.tool
    return tool is not None and tool.manifest.reversal.startswith(f"{COMPENSABLE}:")


def again(
    run: LiveRun,
    judged: Judged,
    approval: Approval | None,
    taken: Reservation,
    locks: Sequence[base.Guard],
) -> Write:
    """After a crash: the intent stands already; a pure or idempotent call runs again. Where it was
    asked about anew, that yes is consumed as the first one was."""
    asked_anew = approval is not None and approval.state is ApprovalState.APPROVED
    retried = ev.CallRetried(
        call=judged.held.id,
        epoch=run.row.epoch,
        reserve_microusd=judged.prepared.reserve_microusd,
        reserve_tokens=judged.prepared.reserve_tokens,
        caps=taken.caps,
        approval=approval.id if approval is not None and asked_anew else "",
    )
    guards: list[base.Guard] = [
        base.RunLive(run=run.id, epoch=run.row.epoch),
        base.NotKilled(run=run.id),
        *taken.guards,
        *locks,
    ]
    if approval is not None:  # Old or new, it was a yes under this label.
        guards.append(base.LabelUnmoved(run=run.id, version=run.row.label_version))
    if approval is not None and asked_anew:
        guards.append(base.ApprovalGood(approval=approval.id, bound_to=approval.bound_to))
    durable = taken.durable or asked_anew
    return Write(run=run.id, events=[retried], guards=guards, durable=durable)
