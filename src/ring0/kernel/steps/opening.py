"""Step 6 of the gate: the write that asks people, and what of it is answered in the same moment.

Values in, a write out: waiting.py appends it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.governance import approvals
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import choices
from ring0.kernel.steps.judging import Judged
from ring0.store import Write, address, base
from ring0.store import events as ev
from ring0.types import Approval, ApprovalState, Edit, Standing

_OPEN = (ApprovalState.PENDING, ApprovalState.APPROVED)
_ANEW = (ApprovalState.EDITED, ApprovalState.CONSUMED)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An ask as it will stand, and the write that makes it so."""

    approval: Approval
    write: Write


def asked(
    run: LiveRun,
    judged: Judged,
    older: Approval | None,
    edits: Sequence[Edit],
    standing: Standing | None,
    key: str,
    now_us: int,
) -> Asked:
    """A new ask. `older`: what was asked about this call before. `edits`: what people changed of it
    since. `standing`: what was said yes to in advance, and covers it."""
    told = replace(judged.shown, takes=choices.of(judged.held))
    shown = msgspec.json.encode(told)
    where = address(run.key, shown)
    approval = _row(run, judged, older, standing, key, where, now_us)
    events: list[ev.AnyEvent] = [ev.ApprovalAsked(approval=approval)]
    guards: list[base.Guard] = [
        base.RunLive(run=run.id, epoch=run.row.epoch),
        base.NotKilled(run=run.id),
    ]
    if older is not None and older.state in _OPEN:
        revoked = ApprovalState.REVOKED
        note = "what it was bound to has changed"
        taken = ev.ApprovalAnswered(approval=older.id, state=revoked, by="kernel", note=note)
        events.insert(0, taken)
    answer = _known(run, judged, approval, older, edits, standing)
    if answer is not None:
        events.append(answer)
        enough = approval.needs == 1
        approval = replace(
            approval,
            yes_by=(answer.by,),
            answered_by=answer.by,
            answered_us=now_us,
            state=ApprovalState.APPROVED if enough else ApprovalState.PENDING,
        )
    if standing is not None:
        guards.append(base.StandingGood(standing=standing.id))
    if approval.state is ApprovalState.PENDING:
        most = limits.APPROVALS_PENDING_PER_TREE_MAX
        guards.append(base.AsksBelow(root=run.row.root, most=most))
        often = limits.DENIALS_IN_A_ROW_MAX
        guards.append(base.DenialsBelow(root=run.row.root, most=often))
    write = Write(
        run=run.id,
        events=events,
        blobs={where: shown, **judged.blobs},
        durable=True,
        guards=guards,
    )
    return Asked(approval=approval, write=write)


def _row(
    run: LiveRun,
    judged: Judged,
    older: Approval | None,
    standing: Standing | None,
    key: str,
    shown: str,
    now_us: int,
) -> Approval:
    verdict, held = judged.verdict, judged.held
    open_s = min(verdict.expires_s or limits.APPROVAL_EXPIRY_S, limits.APPROVAL_EXPIRY_S)
    expires_us = min(now_us + open_s * 1_000_000, run.row.deadline_us)
    edition = 0
    if older is not None:
        edition = older.edition + (older.state in _ANEW)
    return Approval(
        id=key,
        run=run.id,
        call=held.id,
        bound_to=judged.bound_to,
        state=ApprovalState.PENDING,
        shown=shown,
        policy_digest=verdict.policy_digest,
        asked_us=held.begun_us,
        expires_us=min(expires_us, standing.expires_us) if standing else expires_us,
        needs=max(1, verdict.approvers),
        apart=verdict.approvers > 0,
        kind=held.kind,
        tool_digest=judged.tool.digest,
        request_digest=held.digest,
        decision=judged.decision,
        label_version=run.row.label_version,
        edits=held.edits,
        edition=edition,
        under=standing.id if standing else "",
    )


def _known(
    run: LiveRun,
    judged: Judged,
    approval: Approval,
    older: Approval | None,
    edits: Sequence[Edit],
    standing: Standing | None,
) -> ev.ApprovalAnswered | None:
    """The yes that is there already: one in advance, or of who changed what is asked about."""
    approved = ApprovalState.APPROVED
    if standing is not None:
        by, note = standing.given_by, f"in advance, {standing.id}"
        return ev.ApprovalAnswered(approval=approval.id, state=approved, by=by, note=note)
    if older is None or older.state is not ApprovalState.EDITED or is_unseen(judged):
        return None
    last = [edit for edit in edits if edit.by == older.answered_by]
    principal = run.row.principal
    if not last or not approvals.counts(approval, principal, last[-1], older.label_version):
        return None
    note = "with what was changed"
    return ev.ApprovalAnswered(approval=approval.id, state=approved, by=last[-1].by, note=note)


def is_unseen(judged: Judged) -> bool:
    """Whether what a changed call would do is more than whoever changed it has written: then they
    are asked as everybody else, once they can see it."""
    return bool(judged.shown.dry_run)
