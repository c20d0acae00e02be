"""Writes for the tests of the store: a function a kind of write, and a story of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    Approval,
    ApprovalState,
    Budget,
    Call,
    CallKind,
    CallState,
    Confidentiality,
    Effect,
    FileDelta,
    Integrity,
    Label,
    Mode,
    Reason,
    Run,
    RunState,
    Scope,
    Verdict,
    VerdictKind,
)

USER = Label(integrity=Integrity.USER, sources=("task",))
UNTRUSTED = Label(integrity=Integrity.UNTRUSTED, sources=("tickets/0104.txt",))
SECRET = Label(integrity=Integrity.UNTRUSTED, confidentiality=Confidentiality.SECRET)
DAY_US = 86_400_000_000
LATER_US = 1_750_000_000_000_000 + DAY_US
SCOPE = Scope(tenant="acme", principal="ann", agent="clerk")


def key_of(run: str) -> bytes:
    """A digest key that a test can make again."""
    return run.encode("utf-8", "replace").ljust(32, b".")[:32]


def named(run: str, value: bytes) -> dict[str, bytes]:
    """A blob of that run under its address."""
    return {address(key_of(run), value): value}


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
    event = ev.RunQueued(
        run=row, manifest=manifest, files=tuple(files), remembered=where if remember else ""
    )
    return Write(run=run, key=key_of(run), blobs=blobs, guards=guards, durable=True, events=[event])


def moved(run: str, state: RunState = RunState.RUNNING, *, epoch: int = 0, why: str = "") -> Write:
    return Write(run=run, events=[ev.RunMoved(state=state, epoch=epoch, waiting_for=why)])


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
    approval: str = "",
    guards: Sequence[base.Guard] = (),
    durable: bool = False,
) -> Write:
    call = call_row(run, number, approval=approval)
    return Write(
        run=run,
        blobs={**named(run, b"{}"), **named(run, b"what was known")},
        guards=guards,
        durable=durable,
        events=[ev.CallIntended(call=call, reserve_microusd=reserve)],
    )


def refused(run: str, number: int = 0) -> Write:
    blobs = {**named(run, b"no"), **named(run, b"{}"), **named(run, b"what was known")}
    outcome = address(key_of(run), b"no")
    call = call_row(run, number, state=CallState.REFUSED, outcome=outcome, effect=Effect.PURE)
    return Write(run=run, blobs=blobs, events=[ev.CallRefused(call=call)])


def ended(
    run: str,
    number: int = 0,
    *,
    cost: int = 0,
    files: Sequence[tuple[str, bytes | None]] = (),
    files_of: str = "",
    remember: str = "",
    label: Label | None = None,
    undoes: str = "",
    undo: bytes = b"",
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
    for value in (remember.encode(), undo):
        if value:
            blobs |= named(run, value)
    event = ev.CallEnded(
        call=f"{run}/0/{number}",
        state=CallState.OK,
        outcome=address(key_of(run), outcome),
        run_label=label,
        cost_microusd=cost,
        undo=address(key_of(run), undo) if undo else "",
        undoes=undoes,
        files=tuple(deltas),
        files_of=files_of,
        remembered=address(key_of(run), remember.encode()) if remember else "",
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
    )
    return Write(
        run=run, blobs=blobs, guards=guards, durable=True, events=[ev.ApprovalAsked(approval=row)]
    )


def answered(
    run: str,
    approval: str,
    state: ApprovalState = ApprovalState.APPROVED,
    *,
    guards: Sequence[base.Guard] = (),
) -> Write:
    event = ev.ApprovalAnswered(approval=approval, state=state, by="ann (uid 7)", note="looks fine")
    return Write(run=run, guards=guards, durable=True, events=[event])


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


async def row_of(store: Store, run: str) -> Run:
    """A run that must be there."""
    found = await store.run(run)
    assert found is not None, f"{run} is not there"
    return found


def story(run: str, child: str, parent_row: Run, *, other: str = "") -> list[Write]:
    """A run with a child, asks, files, memory, an unknown effect and an end: all event kinds.

    `parent_row` is the row that `queued(run)` makes; it is the first write of the story.
    """
    guards: list[base.Guard] = [base.RunLive(run=run, epoch=1), base.NotKilled(run=run)]
    policy = address(b"", b"permit (principal, action, resource);")
    kernel: list[ev.AnyEvent] = [
        ev.KernelStarted(version="0.1.0", pid=1),
        ev.PolicyLoaded(digest="p" * 64, text=policy),
    ]
    return [
        Write(
            run=ev.KERNEL,
            durable=True,
            blobs={policy: b"permit (principal, action, resource);"},
            events=kernel,
        ),
        queued(run),
        moved(run, epoch=1),
        sandboxed(run, f"s-{run}"),
        parked(f"p-{run}"),
        claimed(run, f"p-{run}"),
        intended(run, 0, reserve=500, guards=[*guards, base.Room(run=run, reserve_microusd=500)]),
        ended(run, 0, cost=120, remember="Zoë O'Neil asked to close her account", label=UNTRUSTED),
        refused(run, 1),
        asked(run, f"a-{run}", 2),
        moved(run, RunState.WAITING, why="approval"),
        answered(run, f"a-{run}"),
        moved(run),
        intended(run, 2, approval=f"a-{run}", guards=guards, durable=True),
        ended(run, 2, files=[("notes/a.md", b"one"), ("notes/b.md", b"two")], undo=b"put back"),
        intended(run, 3),
        ended(run, 3, files=[("notes/a.md", None)], undoes=f"{run}/0/2"),
        queued(child, parent=parent_row, budget=Budget(calls=10, cost_microusd=1_000)),
        moved(child, epoch=1),
        intended(child, 0, reserve=100),
        Write(run=child, events=[ev.CallRetried(call=f"{child}/0/0", epoch=1)]),
        ended(child, 0, cost=90, remember="the ledger was closed in May"),
        over(child, epoch=2),
        intended(run, 4, durable=True),
        cut_off(run, 4),
        settled(run, 4, happened=False),
        asked(run, f"a2-{run}", 5),
        answered(run, f"a2-{run}", ApprovalState.DENIED),
        killed("agent", f"nobody-{run}", 1),
        boxed_up(run, f"s-{run}"),
        boxed_up(run, f"p-{run}"),
        over(run, epoch=2),
        Write(run=ev.KERNEL, durable=True, events=[ev.KernelStopped()]),
    ]


async def tell(store: Store, run: str = "r-1", child: str = "r-2") -> None:
    """Appends the story."""
    first = queued(run).events[0]
    assert isinstance(first, ev.RunQueued)
    for write in story(run, child, first.run):
        await store.append(write)
    await store.flush()
