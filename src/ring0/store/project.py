"""From an event to rows: the one place where projections are made, the same for every store.

`project` is pure towards its `Tables`: run over the whole journal it rebuilds every row, which is
how `ring0 audit verify` proves that no table says anything else than the journal.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ring0.store import events as ev
from ring0.store.approving import approved, counted
from ring0.store.holdings import (
    NEWEST_LOCK,
    SHARED,
    Tables,
    capped,
    lock_key,
    locked,
    message_key,
    raised,
    sent,
    spend,
    uncapped,
)
from ring0.store.operating import OPERATED, operated
from ring0.store.orders import fired, ordered
from ring0.store.remembering import IN_RUNS, REMEMBERED, by_operators, by_run, episode, recalled
from ring0.store.rows import KillRow, SandboxRow, TenantRow
from ring0.store.storing import STORED, archived, erased, stored
from ring0.types import (
    ENDED,
    RUN_TRANSITIONS,
    Approval,
    ApprovalState,
    Call,
    CallState,
    File,
    FileDelta,
    Label,
    Message,
    Run,
    RunState,
)

NEWEST_KILL: Final = "newest:"
ENDED_CALLS: Final = (CallState.OK, CallState.ERROR, CallState.REFUSED)

__all__ = ["NEWEST_KILL", "NEWEST_LOCK", "SHARED", "Tables", "lock_key", "message_key", "project"]


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
        _killed(body, tables)
    elif isinstance(body, ev.SandboxStarted | ev.SandboxEnded):
        _sandboxed(body, ev.KERNEL, tables)
    elif isinstance(body, OPERATED):
        operated(entry, tables)
    elif isinstance(body, REMEMBERED):
        by_operators(entry, tables)
    elif isinstance(body, STORED):
        stored(entry, tables)
    else:
        ordered(entry, tables)
    if run is not None:
        assert run.events == entry.seq - 1, f"{entry.run}: event {entry.seq} after {run.events}"
        stored_bytes = run.stored_bytes + entry.stored_bytes
        tables.put("run", run.id, replace(run, events=entry.seq, stored_bytes=stored_bytes))
        _charged(run.tenant, entry, tables)


def _charged(tenant: str, entry: ev.Entry, tables: Tables) -> None:
    row: TenantRow = tables.get("tenant", tenant) or TenantRow(tenant=tenant)
    stored_bytes = row.stored_bytes + entry.stored_bytes
    tables.put("tenant", tenant, replace(row, events=row.events + 1, stored_bytes=stored_bytes))


def _queued(entry: ev.Entry, body: ev.RunQueued, tables: Tables) -> None:
    child = body.run
    assert child.id == entry.run and child.state is RunState.QUEUED, "queued as it must be"
    assert tables.get("run", child.id) is None, f"{child.id} is queued twice"
    tables.put("run", child.id, child)
    assert child.budget.calls > 0 and child.budget.cost_microusd >= 0, "a budget below nothing"
    if child.parent:
        parent: Run | None = tables.get("run", child.parent)
        assert parent is not None, f"{child.id} has no parent {child.parent}"
        assert (parent.root, parent.tenant) == (child.root, child.tenant), "a child of its tree"
        moved = {name: getattr(child.budget, name) for name in SHARED}
        moved["children"] += 1
        tables.put("run", parent.id, spend(parent, moved))
    _files(child.id, body.files, tables)
    if body.remembered:
        episode(entry, child, "task", body.remembered, child.label, tables)


def _sandboxed(
    body: ev.SandboxStarted | ev.SandboxClaimed | ev.SandboxEnded, run: str, tables: Tables
) -> None:
    """One that is parked is the kernel's, until a run claims it."""
    if isinstance(body, ev.SandboxStarted):
        row = SandboxRow(
            id=body.sandbox,
            run=run,
            pid=body.pid,
            start_ticks=body.start_ticks,
            boot_id=body.boot_id,
            purpose=body.purpose,
        )
        tables.put("sandbox", body.sandbox, row)
        return
    sandbox: SandboxRow | None = tables.get("sandbox", body.sandbox)
    assert sandbox is not None, f"the sandbox {body.sandbox} was never started"
    if isinstance(body, ev.SandboxClaimed):
        assert sandbox.run == ev.KERNEL and not sandbox.ended, f"{body.sandbox} is used twice"
        tables.put("sandbox", body.sandbox, replace(sandbox, run=run, purpose=body.purpose))
    else:
        tables.put("sandbox", body.sandbox, replace(sandbox, ended=True))


def _moved(entry: ev.Entry, body: ev.AnyEvent, run: Run, tables: Tables) -> Run:
    match body:
        case ev.RunMoved():
            assert body.state in RUN_TRANSITIONS[run.state], f"{run.state} to {body.state}"
            return replace(
                run,
                state=body.state,
                waiting_for=body.waiting_for,
                wake_us=body.wake_us,
                epoch=body.epoch or run.epoch,
            )
        case ev.RunForked():
            assert run.forked == f"{body.run}#{body.at}", f"{run.id} is no such fork"
            return _risen(run, body.label)
        case ev.RunPaused():
            assert body.by and not run.paused_by, f"{run.id} is paused already"
            return replace(run, paused_by=body.by)
        case ev.RunResumed():
            assert run.paused_by, f"{run.id} is not paused"
            return counted(replace(run, paused_by=""), 0, tables)
        case ev.BudgetRaised():
            return raised(body, run, tables)
        case ev.CallsLost():
            assert 0 < body.calls <= run.budget.calls - run.calls_used, f"{body.calls} were left"
            assert body.tokens >= 0 and body.cost_microusd >= 0, "no call gives anything back"
            took = {"tokens": body.tokens, "cost_microusd": body.cost_microusd}
            spent = spend(run, {"calls": body.calls, **took})
            return replace(spent, calls_lost=run.calls_lost + body.calls)
        case ev.LockTaken():
            locked(body.lock, run, tables)
        case ev.LockFreed():
            key = lock_key(body.tenant, body.resource, run.id)
            assert tables.get("lock", key) is not None, f"{run.id} holds no {body.resource}"
            tables.put("lock", key, None)
        case ev.MessageSent():
            return sent(entry, body, run, tables)
        case ev.CronFired() | ev.HookFired():
            fired(body, run, tables)
        case ev.RunArchived() | ev.ValuesReturned():
            return archived(entry, body, run, tables)
        case ev.ValuesErased():
            return erased(body, run, tables)
        case ev.RunEnded():
            return _ended(entry, body, run, tables)
        case ev.SandboxStarted() | ev.SandboxClaimed() | ev.SandboxEnded():
            _sandboxed(body, run.id, tables)
        case ev.CallRefused():
            _open(entry, body.call, run, tables)
            return _risen(run, body.run_label)
        case ev.CallsRefusedAlike():
            like = _call(body.like, run, CallState.REFUSED, tables)
            assert body.calls, "alike to nothing"
            for alike in body.calls:
                call = replace(like, id=alike, begun_us=entry.at_us, ended_us=entry.at_us)
                _open(entry, call, run, tables)
        case ev.CallIntended():
            return _intended(entry, body, run, tables)
        case ev.CallCopied():
            assert body.call.state in ENDED_CALLS, f"{body.call.id} is copied and goes on"
            _open(entry, body.call, run, tables)
        case ev.CallStreamed():
            told: Call | None = tables.get("call", body.call)
            assert told is not None and told.run == run.id, f"{run.id} has no call {body.call}"
            tables.put("call", told.id, replace(told, stream=body.stream))
        case ev.CallRetried():
            return _retried(body, run, tables)
        case ev.CallEnded():
            return _call_ended(entry, body, run, tables)
        case ev.CallCutOff():
            call = _call(body.call, run, CallState.INTENDED, tables)
            tables.put(
                "call", call.id, replace(call, state=CallState.UNKNOWN, ended_us=entry.at_us)
            )
        case ev.CallSettled():
            call = _call(body.call, run, CallState.UNKNOWN, tables)
            state = CallState.OK if body.happened else CallState.ERROR
            tables.put("call", call.id, replace(call, state=state, outcome=body.outcome))
            if not body.happened:
                _not_taken_back(call, tables)
        case (
            ev.ApprovalAsked()
            | ev.ApprovalAnswered()
            | ev.ApprovalEdited()
            | ev.ApprovalTold()
            | ev.StandingGiven()
            | ev.StandingRevoked()
        ):
            return approved(entry, run, tables)
        case ev.Killed():
            _killed(body, tables)
        case body if isinstance(body, IN_RUNS):
            by_run(entry, run, tables)
        case _:
            assert not isinstance(body, REMEMBERED), f"{run.id} does what only operators do"
    return run


def _ended(entry: ev.Entry, body: ev.RunEnded, run: Run, tables: Tables) -> Run:
    assert body.state in ENDED and run.state not in ENDED and body.epoch == run.epoch + 1
    if run.parent:
        parent: Run = tables.get("run", run.parent)  # It was there when this one was queued.
        unused = {
            name: getattr(run, used) - getattr(run.budget, name) for name, used in SHARED.items()
        }
        tables.put("run", parent.id, spend(parent, unused))
    return replace(
        run,
        state=body.state,
        waiting_for="",
        wake_us=0,
        paused_by="",
        result=body.result,
        ended_us=entry.at_us,
        epoch=body.epoch,
    )


def _intended(entry: ev.Entry, body: ev.CallIntended, run: Run, tables: Tables) -> Run:
    assert run.state not in ENDED, f"{run.id} is {run.state}"
    call = replace(body.call, cost_microusd=body.reserve_microusd, tokens=body.reserve_tokens)
    call = _open(entry, call, run, tables)
    for use in body.caps:
        capped(use, tables)
    if call.undoes:
        _taken_back(call.undoes, call, tables)
    if call.approval:
        _consumed(call.approval, call, tables)
    reserved = {"cost_microusd": body.reserve_microusd, "tokens": body.reserve_tokens}
    return spend(run, {"calls": 0 if body.uncounted else 1, **reserved})


def _consumed(key: str, call: Call, tables: Tables) -> None:
    approval: Approval | None = tables.get("approval", key)
    assert approval is not None and approval.call == call.id, f"no approval of {call.id}"
    assert approval.state is ApprovalState.APPROVED, f"{approval.id} is {approval.state}"
    tables.put("approval", approval.id, replace(approval, state=ApprovalState.CONSUMED))


def _retried(body: ev.CallRetried, run: Run, tables: Tables) -> Run:
    call = _call(body.call, run, CallState.INTENDED, tables)
    if body.approval:
        _consumed(body.approval, call, tables)
    again = {"cost_microusd": body.reserve_microusd, "tokens": body.reserve_tokens}
    more = replace(
        call,
        approval=body.approval or call.approval,
        cost_microusd=call.cost_microusd + body.reserve_microusd,
        tokens=call.tokens + body.reserve_tokens,
    )
    tables.put("call", call.id, more)
    for use in body.caps:
        capped(use, tables)
    return spend(run, again)


def _open(entry: ev.Entry, call: Call, run: Run, tables: Tables) -> Call:
    """The first row of a call."""
    assert call.run == run.id, f"{call.id} is a call of {call.run}"
    assert tables.get("call", call.id) is None, f"{call.id} is opened twice"
    call = replace(call, seq=entry.seq)
    tables.put("call", call.id, call)
    return call


def _call(key: str, run: Run, state: CallState, tables: Tables) -> Call:
    """A call of the run that is in the state from which the event moves it."""
    call: Call | None = tables.get("call", key)
    assert call is not None and call.run == run.id, f"{run.id} has no call {key}"
    assert call.state is state, f"{key} is {call.state}, not {state}"
    return call


def _call_ended(entry: ev.Entry, body: ev.CallEnded, run: Run, tables: Tables) -> Run:
    call = _call(body.call, run, CallState.INTENDED, tables)
    settled = {
        "cost_microusd": body.cost_microusd - call.cost_microusd,
        "tokens": body.tokens - call.tokens,
    }
    for use in body.caps_back:
        uncapped(use, tables)
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
            tokens=body.tokens,
            notice=body.notice,
            fingerprint=body.fingerprint or call.fingerprint,
        ),
    )
    if body.received:
        key = message_key(run.id, body.received)
        message: Message | None = tables.get("message", key)
        assert message is not None and not message.taken_by, f"no message {body.received} waits"
        tables.put("message", key, replace(message, taken_by=call.id))
    if body.state is not CallState.OK:
        _not_taken_back(call, tables)
    elif body.undoes:
        _taken_back(body.undoes, call, tables)
    _files(body.files_of or run.id, body.files, tables)
    if body.remembered:
        label = body.remembered_label or run.label
        tried = body.remembered_fingerprint
        episode(entry, run, body.remembered_role, body.remembered, label, tables, tried)
    if body.recalled:
        recalled(entry, run, body.recalled, tables)
    return _risen(spend(run, settled), body.run_label)


def _taken_back(undone: str, by: Call, tables: Tables) -> None:
    """From the intent on: what may have taken a call back keeps everybody else from doing so."""
    row: Call | None = tables.get("call", undone)
    assert row is not None, f"there is no call {undone} to undo"
    assert row.undone_by in ("", by.id), f"{undone} is taken back by {row.undone_by}"
    tables.put("call", undone, replace(row, undone_by=by.id))


def _not_taken_back(by: Call, tables: Tables) -> None:
    """What was to take a call back is known not to have done so."""
    row: Call | None = tables.get("call", by.undoes) if by.undoes else None
    if row is not None and row.undone_by == by.id:
        tables.put("call", row.id, replace(row, undone_by=""))


def _risen(run: Run, label: Label | None) -> Run:
    """The run with its label raised: only ever upwards, whatever order calls end in."""
    if label is None:
        return run
    both = run.label.join(label)
    risen = replace(label, integrity=both.integrity, confidentiality=both.confidentiality)
    if risen == run.label:
        return run
    return replace(run, label=risen, label_version=run.label_version + 1)


def _killed(body: ev.Killed, tables: Tables) -> None:
    """Two kills that saw the same generation still get two: none hides behind another."""
    newest: KillRow | None = tables.get("kill", NEWEST_KILL)
    generation = max(body.generation, newest.generation + 1 if newest else 1)
    row = KillRow(scope=body.scope, target=body.target, generation=generation)
    tables.put("kill", f"{body.scope}:{body.target}", row)
    tables.put("kill", NEWEST_KILL, row)


def _files(run: str, files: tuple[FileDelta, ...], tables: Tables) -> None:
    for delta in files:
        row = File(path=delta.path, blob=delta.blob, size_bytes=delta.size_bytes, label=delta.label)
        tables.put("file", f"{run}\n{delta.path}", row if delta.blob else None)
