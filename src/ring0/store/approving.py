"""Asks, what people answered, and what they said yes to in advance: from events to rows.

A part of `project.py`, which calls this and nobody else does.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.store import events as ev
from ring0.store.holdings import Tables
from ring0.types import ENDED, Approval, ApprovalState, Run, Standing

ANSWERS: Final = {
    ApprovalState.APPROVED: {ApprovalState.PENDING},
    ApprovalState.DENIED: {ApprovalState.PENDING},
    ApprovalState.EXPIRED: {ApprovalState.PENDING, ApprovalState.APPROVED},
    ApprovalState.REVOKED: set(ApprovalState) - {ApprovalState.CONSUMED},
}
"""What an approval may have been before each answer. Only an intent consumes one, for ever."""
DENIED_IN_A_ROW: Final = (
    f"kernel: {limits.DENIALS_IN_A_ROW_MAX} asks in a row of its tree were denied"
)
"""Who has paused the runs of a tree that hears no again and again."""


def approved(entry: ev.Entry, run: Run, tables: Tables) -> Run:
    """The run's row after it."""
    match entry.body:
        case ev.ApprovalAsked(approval=asked):
            _asked(asked, run, tables)
        case ev.ApprovalAnswered() as body:
            return _answered(entry, body, run, tables)
        case ev.ApprovalEdited() as body:
            approval = _of(body.approval, run, tables)
            assert approval.state is ApprovalState.PENDING, f"{approval.id} is {approval.state}"
            row = replace(
                approval,
                state=ApprovalState.EDITED,
                answered_us=entry.at_us,
                answered_by=body.by,
                note=body.note,
                edits=body.edits,
            )
            tables.put("approval", approval.id, row)
            return counted(run, 0, tables)
        case ev.ApprovalTold() as body:
            approval = _of(body.approval, run, tables)
            assert body.to not in approval.told, f"{body.to} was told of {approval.id}"
            tables.put("approval", approval.id, replace(approval, told=(*approval.told, body.to)))
        case ev.StandingGiven(standing=standing):
            assert standing.run == run.id, "given to an ask of its own"
            assert tables.get("standing", standing.id) is None, f"{standing.id} is given twice"
            assert standing.tenant == run.tenant and not standing.uses, "as it must be"
            tables.put("standing", standing.id, standing)
        case ev.StandingRevoked() as body:
            there: Standing | None = tables.get("standing", body.standing)
            assert there is not None and there.run == run.id, f"there is no {body.standing}"
            assert not there.revoked_by and body.by, f"{there.id} is revoked already"
            gone = replace(there, revoked_by=body.by, revoked_us=entry.at_us)
            tables.put("standing", there.id, gone)
        case _:
            pass
    return run


def _asked(asked: Approval, run: Run, tables: Tables) -> None:
    assert asked.run == run.id and asked.state is ApprovalState.PENDING, "asked for itself"
    assert tables.get("approval", asked.id) is None, f"{asked.id} is asked twice"
    assert not asked.yes_by and not asked.told, f"{asked.id} was answered before it was asked"
    if asked.under:
        standing: Standing | None = tables.get("standing", asked.under)
        assert standing is not None and not standing.revoked_by, f"no {asked.under} stands"
        assert asked.needs == 1, f"{asked.under} is one person's word"
        tables.put("standing", standing.id, replace(standing, uses=standing.uses + 1))
    tables.put("approval", asked.id, asked)


def _answered(entry: ev.Entry, body: ev.ApprovalAnswered, run: Run, tables: Tables) -> Run:
    approval = _of(body.approval, run, tables)
    assert approval.state in ANSWERS.get(body.state, set()), f"{approval.state} to {body.state}"
    row = replace(approval, answered_us=entry.at_us, answered_by=body.by, note=body.note)
    if body.state is not ApprovalState.APPROVED:
        tables.put("approval", row.id, replace(row, state=body.state))
        return _denied(run, tables) if body.state is ApprovalState.DENIED else run
    assert body.by not in approval.yes_by, f"{body.by} says yes to {approval.id} twice"
    yes_by = (*approval.yes_by, body.by)
    enough = len(yes_by) >= approval.needs
    state = ApprovalState.APPROVED if enough else ApprovalState.PENDING
    tables.put("approval", row.id, replace(row, state=state, yes_by=yes_by))
    return run if approval.under else counted(run, 0, tables)


def counted(run: Run, denials: int, tables: Tables) -> Run:
    """The run, once its tree has this many denials. They stand in the row of its root: a run that
    lets children ask in its place is told no no more often than one that asks itself."""
    if run.id == run.root:
        return replace(run, denials=denials)
    root: Run = tables.get("run", run.root)  # It was there when this one was queued.
    if root.denials != denials:
        tables.put("run", root.id, replace(root, denials=denials))
    return run


def _denied(run: Run, tables: Tables) -> Run:
    """One that is told no over and over is paused: a person looks at it before it asks on. The
    others of its tree are paused by events of their own; until then none of them can ask
    (`base.DenialsBelow`)."""
    root: Run = run if run.id == run.root else tables.get("run", run.root)
    run = counted(run, root.denials + 1, tables)
    over = root.denials + 1 >= limits.DENIALS_IN_A_ROW_MAX
    if not over or run.paused_by or run.state in ENDED:
        return run
    return replace(run, paused_by=DENIED_IN_A_ROW)


def _of(key: str, run: Run, tables: Tables) -> Approval:
    approval: Approval | None = tables.get("approval", key)
    assert approval is not None and approval.run == run.id, f"no ask {key}"
    return approval
