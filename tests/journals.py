"""Writes for the tests of the store, one function a kind of write. Orders: journal_orders.py. All
together: stories.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.store.records import record_address
from ring0.types import (
    Approval,
    ApprovalState,
    Budget,
    Call,
    CallKind,
    CallState,
    CapUse,
    Confidentiality,
    Effect,
    FileDelta,
    Integrity,
    Label,
    Lock,
    LockMode,
    Mode,
    Reason,
    Run,
    RunState,
    Scope,
    Standing,
    Verdict,
    VerdictKind,
)

USER = Label(integrity=Integrity.USER, sources=("task",))
UNTRUSTED = Label(integrity=Integrity.UNTRUSTED, sources=("tickets/0104.txt",))
SECRET = Label(integrity=Integrity.UNTRUSTED, confidentiality=Confidentiality.SECRET)
DAY_US = 86_400_000_000
LATER_US = 1_750_000_000_000_000 + DAY_US
SCOPE = Scope(tenant="acme", principal="ann", agent="clerk", run=None)


def key_of(run: str) -> bytes:
    """A digest key that a test can make again."""
    return run.encode("utf-8", "replace").ljust(32, b".")[:32]


def named(run: str, value: bytes) -> dict[str, bytes]:
    """A blob of that run under its address."""
    return {address(key_of(run), value): value}


def recorded(run: str, text: str) -> dict[str, bytes]:
    """What the run's own calls bring to memory, under its address."""
    return {record_address(key_of(run), text.encode()): text.encode()}


def queued(
    run: str,
    *,
    task: str = "close the accounts",
    parent: Run | None = None,
    budget: Budget | None = None,
    scope: Scope = SCOPE,
    kill_seen: int = 0,
    started_us: int = 1,
    files: Sequence[FileDelta] = (),
    guards: Sequence[base.Guard] = (),
    remember: bool = True,
) -> Write:
    """The first write of a run."""
    blobs = {**named(run, task.encode()), **named(run, b"manifest of " + key_of(run))}
    where, manifest = blobs
    memory = recorded(run, task) if remember else {}
    row = Run(
        id=run,
        state=RunState.QUEUED,
        parent=parent.id if parent else "",
        root=parent.root if parent else run,
        depth=parent.depth + 1 if parent else 0,
        agent=scope.agent,
        agent_digest="d" * 64,
        mode=Mode.ISOLATED,
        tenant=scope.tenant,
        principal=scope.principal,
        task=where,
        label=USER,
        budget=budget or Budget(calls=1_000, cost_microusd=1_000_000),
        kill_seen=kill_seen,
        started_us=started_us,
        deadline_us=LATER_US,
    )
    event = ev.RunQueued(run=row, manifest=manifest, files=tuple(files), remembered="".join(memory))
    blobs |= memory
    return Write(run=run, key=key_of(run), blobs=blobs, guards=guards, durable=True, events=[event])


def moved(
    run: str,
    state: RunState = RunState.RUNNING,
    *,
    epoch: int = 0,
    why: str = "",
    wake_us: int = 0,
) -> Write:
    event = ev.RunMoved(state=state, epoch=epoch, waiting_for=why, wake_us=wake_us)
    return Write(run=run, events=[event])


def over(run: str, *, epoch: int = 1, state: RunState = RunState.DONE) -> Write:
    """The end of a run."""
    blobs = {**named(run, b"the result"), **named(run, b"what it printed")}
    result, output = blobs
    return Write(
        run=run,
        blobs=blobs,
        durable=True,
        events=[ev.RunEnded(state=state, result=result, output=output, epoch=epoch, by="kernel")],
    )


def call_row(run: str, number: int = 0, **changes: object) -> Call:
    row = Call(
        id=f"{run}/0/{number}",
        run=run,
        seq=0,
        kind=CallKind.TOOL,
        name="crm.query",
        state=CallState.INTENDED,
        request_digest="e" * 64,
        args=address(key_of(run), b"{}"),
        effect=Effect.ONCE,
        verdict=Verdict(
            kind=VerdictKind.ALLOW, reasons=(Reason(rule="reads", text="It only reads."),)
        ),
        decision=address(key_of(run), b"what was known"),
        begun_us=5,
    )
    return replace(row, **changes)


def intended(
    run: str,
    number: int = 0,
    *,
    reserve: int = 0,
    tokens: int = 0,
    caps: Sequence[CapUse] = (),
    approval: str = "",
    guards: Sequence[base.Guard] = (),
    durable: bool = False,
    undoes: str = "",
) -> Write:
    call = call_row(run, number, approval=approval, undoes=undoes)
    return Write(
        run=run,
        blobs={**named(run, b"{}"), **named(run, b"what was known")},
        guards=guards,
        durable=durable,
        events=[
            ev.CallIntended(
                call=call, reserve_microusd=reserve, reserve_tokens=tokens, caps=tuple(caps)
            )
        ],
    )


def refused(run: str, number: int = 0) -> Write:
    blobs = {**named(run, b"no"), **named(run, b"{}"), **named(run, b"what was known")}
    outcome = address(key_of(run), b"no")
    call = call_row(run, number, state=CallState.REFUSED, outcome=outcome, effect=Effect.PURE)
    return Write(run=run, blobs=blobs, events=[ev.CallRefused(call=call)])


def refused_alike(run: str, like: int, *numbers: int) -> Write:
    calls = tuple(f"{run}/0/{number}" for number in numbers)
    return Write(run=run, events=[ev.CallsRefusedAlike(like=f"{run}/0/{like}", calls=calls)])


def ended(
    run: str,
    number: int = 0,
    *,
    cost: int = 0,
    files: Sequence[tuple[str, bytes | None]] = (),
    files_of: str = "",
    remember: str = "",
    role: str = "result",
    tried: str = "",
    recalled: Sequence[str] = (),
    label: Label | None = None,
    undoes: str = "",
    undo: bytes = b"",
    tokens: int = 0,
    received: int = 0,
    caps_back: Sequence[CapUse] = (),
) -> Write:
    """The outcome of a call. `files`: path and content, None to remove."""
    outcome = b"outcome of %d" % number
    blobs = dict(named(run, outcome))
    deltas = []
    for path, content in files:
        deltas.append(FileDelta(path=path, label=UNTRUSTED))
        if content is not None:
            blobs |= named(run, content)
            deltas[-1] = FileDelta(
                path=path,
                blob=address(key_of(run), content),
                size_bytes=len(content),
                label=UNTRUSTED,
            )
    if undo:
        blobs |= named(run, undo)
    memory = recorded(run, remember) if remember else {}
    blobs |= memory
    event = ev.CallEnded(
        call=f"{run}/0/{number}",
        state=CallState.OK,
        outcome=address(key_of(run), outcome),
        run_label=label,
        cost_microusd=cost,
        tokens=tokens,
        received=received,
        caps_back=tuple(caps_back),
        undo=address(key_of(run), undo) if undo else "",
        undoes=undoes,
        files=tuple(deltas),
        files_of=files_of,
        remembered="".join(memory),
        remembered_role=role,
        remembered_fingerprint=tried,
        recalled=tuple(recalled),
        remembered_label=UNTRUSTED if remember else None,
    )
    return Write(run=run, blobs=blobs, events=[event])


def cut_off(run: str, number: int = 0) -> Write:
    event = ev.CallCutOff(call=f"{run}/0/{number}", why="the kernel was killed")
    return Write(run=run, durable=True, events=[event])


def settled(run: str, number: int = 0, *, happened: bool = True) -> Write:
    blobs = named(run, b"it happened")
    (outcome,) = blobs
    event = ev.CallSettled(
        call=f"{run}/0/{number}", happened=happened, outcome=outcome, by="ann", note="looked"
    )
    return Write(run=run, blobs=blobs, durable=True, events=[event])


def asked(
    run: str,
    approval: str,
    number: int = 0,
    *,
    expires_us: int = LATER_US,
    guards: Sequence[base.Guard] = (),
    **more: Any,
) -> Write:
    blobs = named(run, b"what the human is shown")
    (shown,) = blobs
    row = Approval(
        id=approval,
        run=run,
        call=f"{run}/0/{number}",
        bound_to="b" * 64,
        state=ApprovalState.PENDING,
        shown=shown,
        policy_digest="f" * 64,
        asked_us=7,
        expires_us=expires_us,
        **more,
    )
    return Write(
        run=run, blobs=blobs, guards=guards, durable=True, events=[ev.ApprovalAsked(approval=row)]
    )


def answered(
    run: str,
    approval: str,
    state: ApprovalState = ApprovalState.APPROVED,
    *,
    by: str = "ann (uid 7)",
    guards: Sequence[base.Guard] = (),
) -> Write:
    event = ev.ApprovalAnswered(approval=approval, state=state, by=by, note="looks fine")
    return Write(run=run, guards=guards, durable=True, events=[event])


def edited(run: str, approval: str, by: str = "ann (uid 7)") -> Write:
    blobs = named(run, b'[{"argument":"to","text":"bob","by":"ann (uid 7)","login":"peer"}]')
    (edits,) = blobs
    event = ev.ApprovalEdited(approval=approval, by=by, edits=edits, note="a typo")
    return Write(run=run, blobs=blobs, durable=True, events=[event])


def told(run: str, approval: str, to: str = "hooks.example.com#1") -> Write:
    return Write(run=run, events=[ev.ApprovalTold(approval=approval, to=to)])


def stands(run: str, standing: str, *, expires_us: int = LATER_US, **more: Any) -> Write:
    blobs = named(run, b'{"same":{},"like":{"to":"*"}}')
    (pattern,) = blobs
    row = Standing(
        id=standing,
        run=run,
        tenant=more.pop("tenant", SCOPE.tenant),
        principal=SCOPE.principal,
        agent=SCOPE.agent,
        agent_digest="d" * 64,
        tool="crm.delete",
        tool_digest="t" * 64,
        policy_digest="f" * 64,
        rules=("mutation",),
        pattern=pattern,
        label=USER,
        kill_seen=0,
        given_by="ann (uid 7)",
        given_us=1,
        expires_us=expires_us,
        **more,
    )
    return Write(run=run, blobs=blobs, durable=True, events=[ev.StandingGiven(standing=row)])


def stands_no_more(run: str, standing: str) -> Write:
    return Write(run=run, durable=True, events=[ev.StandingRevoked(standing=standing, by="bob")])


def killed(scope: str, target: str, generation: int, *, run: str = ev.KERNEL) -> Write:
    event = ev.Killed(scope=scope, target=target, generation=generation, by="ann")
    return Write(run=run, durable=True, events=[event])


def sandboxed(run: str, sandbox: str) -> Write:
    event = ev.SandboxStarted(
        sandbox=sandbox, pid=42, start_ticks=77, boot_id="boot", purpose="agent"
    )
    return Write(run=run, durable=True, events=[event])


def parked(sandbox: str) -> Write:
    event = ev.SandboxStarted(
        sandbox=sandbox, pid=43, start_ticks=78, boot_id="boot", purpose="parked"
    )
    return Write(run=ev.KERNEL, durable=True, events=[event])


def claimed(run: str, sandbox: str) -> Write:
    return Write(run=run, events=[ev.SandboxClaimed(sandbox=sandbox, pid=43, purpose="tool")])


def boxed_up(run: str, sandbox: str) -> Write:
    return Write(run=run, events=[ev.SandboxEnded(sandbox=sandbox, how="killed")])


def locked(
    run: str,
    resource: str,
    fence: int,
    *,
    mode: LockMode = LockMode.EXCLUSIVE,
    expires_us: int = LATER_US,
    tenant: str = "acme",
    guards: Sequence[base.Guard] = (),
) -> Write:
    lock = Lock(
        tenant=tenant,
        resource=resource,
        run=run,
        mode=mode,
        fence=fence,
        expires_us=expires_us,
        call=f"{run}/0/0",
    )
    return Write(run=run, guards=guards, events=[ev.LockTaken(lock=lock)])


def unlocked(run: str, resource: str, *, how: str = "freed", tenant: str = "acme") -> Write:
    return Write(run=run, events=[ev.LockFreed(tenant=tenant, resource=resource, how=how)])


def sent(run: str, to: str, text: bytes = b"hello", *, key_of_run: str = "") -> Write:
    """A message, its body under the key of `key_of_run` (empty: under none)."""
    where = address(key_of(key_of_run) if key_of_run else b"", text)
    event = ev.MessageSent(to=to, sender=run, body=where, key_of=key_of_run, label=UNTRUSTED)
    return Write(run=run, blobs={where: text}, events=[event])


def raised(run: str, **more: int) -> Write:
    return Write(run=run, durable=True, events=[ev.BudgetRaised(by="ann (uid 7)", **more)])


async def row_of(store: Store, run: str) -> Run:
    """A run that must be there."""
    found = await store.run(run)
    assert found is not None, f"{run} is not there"
    return found


def named_openly(value: bytes) -> dict[str, bytes]:
    """A blob of the kernel's own, under no key."""
    return {address(b"", value): value}
