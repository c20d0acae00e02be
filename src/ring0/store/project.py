"""From an event to rows: the one place where projections are made, the same for every store.

`project` is pure towards its `Tables`: run over the whole journal it rebuilds every row, which is
how `ring0 audit verify` proves that no table says anything else than the journal.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec.structs import replace

from ring0.store import events as ev
from ring0.store.base import KillRow, SandboxRow
from ring0.types import (
    ENDED,
    RUN_TRANSITIONS,
    Approval,
    ApprovalState,
    Call,
    CallState,
    Episode,
    File,
    FileDelta,
    Run,
    RunState,
)


class Tables(Protocol):
    """Rows by table and key. A row is a struct of types.py; None removes it."""

    def get(self, table: str, key: str) -> Any: ...

    def put(self, table: str, key: str, row: Any) -> None: ...


def project(entry: ev.Entry, tables: Tables) -> None:
    """Brings the rows up to this entry. Raises AssertionError on an impossible history."""
    body = entry.body
    run: Run | None = None
    if isinstance(body, ev.RunQueued):
        run = body.run
        _queued(entry, body, tables)
    elif entry.run != ev.KERNEL:
        run = tables.get("run", entry.run)
        assert run is not None, f"event of a run that was never queued: {entry.run}"
        run = _moved(entry, body, run, tables)
    elif isinstance(body, ev.Killed):
        tables.put(
            "kill",
            f"{body.scope}:{body.target}",
            KillRow(scope=body.scope, target=body.target, generation=body.generation),
        )
    if run is not None:
        assert run.events == entry.seq - 1, f"{entry.run}: event {entry.seq} after {run.events}"
        tables.put("run", run.id, replace(run, events=entry.seq))


def _queued(entry: ev.Entry, body: ev.RunQueued, tables: Tables) -> None:
    child = body.run
    assert child.state is RunState.QUEUED and tables.get("run", child.id) is None
    tables.put("run", child.id, child)
    if child.parent:
        parent: Run = tables.get("run", child.parent)
        tables.put(
            "run",
            parent.id,
            replace(
                parent,
                calls_used=parent.calls_used + child.budget.calls,
                cost_used_microusd=parent.cost_used_microusd + child.budget.cost_microusd,
            ),
        )
    _files(child.id, body.files, tables)
    if body.remembered:
        _remember(entry, "task", body.remembered, child.label, tables)


def _moved(entry: ev.Entry, body: ev.AnyEvent, run: Run, tables: Tables) -> Run:
    match body:
        case ev.RunMoved():
            assert body.state in RUN_TRANSITIONS[run.state], f"{run.state} to {body.state}"
            return replace(
                run, state=body.state, waiting_for=body.waiting_for, epoch=body.epoch or run.epoch
            )
        case ev.RunEnded():
            return _ended(entry, body, run, tables)
        case ev.SandboxStarted():
            tables.put(
                "sandbox",
                body.sandbox,
                SandboxRow(
                    id=body.sandbox,
                    run=run.id,
                    pid=body.pid,
                    start_ticks=body.start_ticks,
                    boot_id=body.boot_id,
                    purpose=body.purpose,
                ),
            )
        case ev.SandboxEnded():
            tables.put(
                "sandbox", body.sandbox, replace(tables.get("sandbox", body.sandbox), ended=True)
            )
        case ev.CallRefused():
            tables.put("call", body.call.id, replace(body.call, seq=entry.seq))
        case ev.CallIntended():
            return _intended(entry, body, run, tables)
        case ev.CallEnded():
            return _call_ended(entry, body, run, tables)
        case ev.CallCutOff():
            call: Call = tables.get("call", body.call)
            assert call.state is CallState.INTENDED
            tables.put(
                "call", call.id, replace(call, state=CallState.UNKNOWN, ended_us=entry.at_us)
            )
        case ev.CallSettled():
            call = tables.get("call", body.call)
            assert call.state is CallState.UNKNOWN
            state = CallState.OK if body.happened else CallState.ERROR
            tables.put("call", call.id, replace(call, state=state, outcome=body.outcome))
        case ev.ApprovalAsked():
            tables.put("approval", body.approval.id, body.approval)
        case ev.ApprovalAnswered():
            approval: Approval = tables.get("approval", body.approval)
            tables.put(
                "approval",
                approval.id,
                replace(
                    approval,
                    state=body.state,
                    answered_us=entry.at_us,
                    answered_by=body.by,
                    note=body.note,
                ),
            )
        case ev.Killed():
            tables.put(
                "kill",
                f"{body.scope}:{body.target}",
                KillRow(scope=body.scope, target=body.target, generation=body.generation),
            )
        case _:
            pass
    return run


def _ended(entry: ev.Entry, body: ev.RunEnded, run: Run, tables: Tables) -> Run:
    assert body.state in ENDED and run.state not in ENDED and body.epoch == run.epoch + 1
    if run.parent:
        parent: Run = tables.get("run", run.parent)
        tables.put(
            "run",
            parent.id,
            replace(
                parent,
                calls_used=parent.calls_used - (run.budget.calls - run.calls_used),
                cost_used_microusd=parent.cost_used_microusd
                - (run.budget.cost_microusd - run.cost_used_microusd),
            ),
        )
    return replace(
        run,
        state=body.state,
        waiting_for="",
        result=body.result,
        ended_us=entry.at_us,
        epoch=body.epoch,
    )


def _intended(entry: ev.Entry, body: ev.CallIntended, run: Run, tables: Tables) -> Run:
    call = replace(body.call, seq=entry.seq, cost_microusd=body.reserve_microusd)
    assert tables.get("call", call.id) is None, f"{call.id} is intended twice"
    tables.put("call", call.id, call)
    if call.approval:
        approval: Approval = tables.get("approval", call.approval)
        assert approval.state is ApprovalState.APPROVED
        tables.put("approval", approval.id, replace(approval, state=ApprovalState.CONSUMED))
    return replace(
        run,
        calls_used=run.calls_used + 1,
        cost_used_microusd=run.cost_used_microusd + body.reserve_microusd,
    )


def _call_ended(entry: ev.Entry, body: ev.CallEnded, run: Run, tables: Tables) -> Run:
    call: Call = tables.get("call", body.call)
    assert call.state is CallState.INTENDED, f"{call.id} ends from {call.state}"
    reserved = call.cost_microusd
    tables.put(
        "call",
        call.id,
        replace(
            call,
            state=body.state,
            outcome=body.outcome,
            ended_us=entry.at_us,
            undo=body.undo,
            cost_microusd=body.cost_microusd,
        ),
    )
    if body.undoes and body.state is CallState.OK:
        undone: Call = tables.get("call", body.undoes)
        tables.put("call", undone.id, replace(undone, undone_by=call.id))
    _files(body.files_of or run.id, body.files, tables)
    if body.remembered:
        label = body.remembered_label or run.label
        _remember(entry, body.remembered_role, body.remembered, label, tables)
    run = replace(run, cost_used_microusd=run.cost_used_microusd - reserved + body.cost_microusd)
    if body.run_label is not None and body.run_label != run.label:
        run = replace(run, label=body.run_label, label_version=run.label_version + 1)
    return run


def _files(run: str, files: tuple[FileDelta, ...], tables: Tables) -> None:
    for delta in files:
        row = File(path=delta.path, blob=delta.blob, size_bytes=delta.size_bytes, label=delta.label)
        tables.put("file", f"{run}\n{delta.path}", row if delta.blob else None)


def _remember(entry: ev.Entry, role: str, blob: str, label: Any, tables: Tables) -> None:
    # The text is read from its blob by the table that indexes it.
    tables.put(
        "episode",
        f"{entry.run}\n{entry.seq}",
        Episode(run=entry.run, seq=entry.seq, role=role, text=blob, label=label, at_us=entry.at_us),
    )
