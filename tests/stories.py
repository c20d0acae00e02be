"""A journal with every kind of event in it, for the tests of the store."""

from __future__ import annotations

from msgspec.structs import replace

import journal_forks
import journal_memory
import journal_orders
import journal_storage
import journals
from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    ApprovalState,
    Budget,
    CapUse,
    Integrity,
    LockMode,
    Login,
    Run,
    RunState,
)


def story(run: str, child: str, parent_row: Run, *, fence: int = 1) -> list[Write]:
    """A run with a child, asks, files, memory, an unknown effect and an end: all event kinds.

    `parent_row` is the row that `journals.queued(run)` makes; it is the first write of the story.
    """
    guards: list[base.Guard] = [base.RunLive(run=run, epoch=1), base.NotKilled(run=run)]
    policy = address(b"", b"permit (principal, action, resource);")
    cap = CapUse(key=f"{parent_row.principal}/crm.delete/rows/{run}", amount=3, most=50, window=9)
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
        journals.queued(run),
        journals.moved(run, epoch=1),
        journals.sandboxed(run, f"s-{run}"),
        journals.parked(f"p-{run}"),
        journals.claimed(run, f"p-{run}"),
        journals.intended(
            run, 0, reserve=500, guards=[*guards, base.Room(run=run, reserve_microusd=500)]
        ),
        journals.ended(
            run,
            0,
            cost=120,
            remember="Zoë O'Neil asked to close her account",
            label=journals.UNTRUSTED,
        ),
        Write(
            run=run,
            events=[
                ev.Declassified(
                    call=f"{run}/0/0",
                    what="[].n",
                    values=3,
                    before=Integrity.UNTRUSTED,
                    after=Integrity.TRUSTED_FIELD,
                    by="sanitiser integer",
                )
            ],
        ),
        journals.refused(run, 1),
        journals.refused_alike(run, 1, 8),
        journals.asked(run, f"a-{run}", 2),
        journals.moved(run, RunState.WAITING, why="approval"),
        journals.answered(run, f"a-{run}"),
        journals.moved(run),
        journals.intended(run, 2, approval=f"a-{run}", guards=guards, durable=True),
        journals.ended(
            run, 2, files=[("notes/a.md", b"one"), ("notes/b.md", b"two")], undo=b"put back"
        ),
        journals.intended(run, 3),
        journals.ended(run, 3, files=[("notes/a.md", None)], undoes=f"{run}/0/2"),
        journals.queued(child, parent=parent_row, budget=Budget(calls=10, cost_microusd=1_000)),
        journals.moved(child, epoch=1),
        journals.intended(child, 0, reserve=100, tokens=50, caps=[cap]),
        Write(
            run=child,
            events=[
                ev.CallRetried(
                    call=f"{child}/0/0", epoch=1, reserve_microusd=100, reserve_tokens=50
                )
            ],
        ),
        journals.raised(child, calls=5, tokens=100, cost_microusd=200, children=1, wall_s=60),
        journals.sent(run, child, b"are you there?", key_of_run=run),
        journals.sent(run, child, b"a person asks", key_of_run=""),
        journals.ended(
            child,
            0,
            cost=90,
            tokens=40,
            remember="the ledger was closed in May",
            received=1,
            caps_back=[replace(cap, amount=1)],
        ),
        journals.locked(child, f"table:{run}", fence),
        journals.locked(child, f"file:/{run}", fence + 1, mode=LockMode.SHARED),
        journals.locked(child, f"table:{run}", fence, expires_us=journals.LATER_US + 5),
        journals.unlocked(child, f"table:{run}"),
        Write(run=child, events=[ev.RunPaused(by="ann", note="to look")]),
        Write(run=child, events=[ev.RunResumed(by="ann")]),
        Write(run=child, events=[ev.CallsLost(calls=2)]),
        journals.moved(child, RunState.WAITING, why="timer", wake_us=journals.LATER_US),
        journals.moved(child),
        journals.unlocked(child, f"file:/{run}", how="ended"),
        journals.over(child, epoch=2),
        journals.intended(run, 4, durable=True),
        journals.cut_off(run, 4),
        journals.settled(run, 4, happened=False),
        journals.asked(run, f"a2-{run}", 5),
        Write(
            run=run,
            durable=True,
            events=[
                ev.TokenIssued(
                    token="0123456789abcdef",
                    epoch=1,
                    only=("tool:crm.query",),
                    expires_us=journals.LATER_US,
                    by="ann",
                ),
                ev.TokenRevoked(token="0123456789abcdef", by="ann"),
                ev.CertificateIssued(
                    name=f"spiffe://ring0.local/run/{run}/agent/clerk",
                    serial="1f",
                    expires_us=journals.LATER_US,
                ),
            ],
        ),
        journals.told(run, f"a2-{run}"),
        journals.answered(run, f"a2-{run}", ApprovalState.DENIED),
        journals.asked(run, f"a3-{run}", 6),
        journals.edited(run, f"a3-{run}"),
        journals.asked(run, f"a4-{run}", 6, edition=1, needs=2),
        journals.answered(run, f"a4-{run}"),
        journals.answered(run, f"a4-{run}", by="bob (uid 8)"),
        journals.stands(run, f"st-{run}"),
        journals.asked(run, f"a5-{run}", 7, under=f"st-{run}"),
        journals.stands_no_more(run, f"st-{run}"),
        journals.killed("agent", f"nobody-{run}", 1),
        journals.boxed_up(run, f"s-{run}"),
        journals.boxed_up(run, f"p-{run}"),
        journals.over(run, epoch=2),
        *orders(f"nightly-{run}", f"push-{run}"),
        *people(run),
        *journal_storage.story(run, child),
        *journal_forks.story(run),
        Write(run=ev.KERNEL, durable=True, events=[ev.KernelStopped()]),
    ]


def orders(cron: str, hook: str) -> list[Write]:
    """Orders that are given, paused, resumed, skipped and taken away."""
    return [
        journal_orders.set_cron(cron),
        journal_orders.set_hook(hook),
        journal_orders.about_order(
            ev.OrderPaused(order="hook", name=hook, by="ann", note="to look")
        ),
        journal_orders.about_order(ev.OrderResumed(order="hook", name=hook, by="ann")),
        journal_orders.about_order(ev.OrderRemoved(order="hook", name=hook, by="ann")),
    ]


def people(run: str) -> list[Write]:
    """Somebody logs in and out, and the operator's files say something new."""
    roles = b'{"admin":["ann"]}'
    login = Login(
        key=address(b"", run.encode()),
        name="ann (https://login.example.com)",
        how="oidc",
        uid=1_000,
        email="ann@example.com",
        groups=("oncall",),
        begun_us=1,
        expires_us=journals.LATER_US,
    )
    changed = ev.SettingChanged(
        name=f"roles of {run}",
        before="",
        after="d" * 64,
        text=address(b"", roles),
        by="ann (uid 1000)",
    )
    return [
        Write(run=ev.KERNEL, durable=True, events=[ev.LoggedIn(login=login)]),
        Write(run=ev.KERNEL, durable=True, events=[changed], blobs=journals.named_openly(roles)),
        Write(
            run=ev.KERNEL,
            durable=True,
            events=[
                replace(changed, before=changed.after, after="off", text="", loosened=True),
                ev.LoggedOut(key=login.key, by="ann (uid 1000)"),
                ev.LoggedIn(login=replace(login, key=address(b"", login.key.encode()))),
                ev.SourceQuarantined(tenant="t", source=f"mail of {run}", runs={run: 3}, by="ann"),
                ev.SourceQuarantined(tenant="t", source=f"run {run}", runs={run: 1}, by="ann"),
                ev.SourceReleased(tenant="t", source=f"mail of {run}", by="ann", note="looked"),
                ev.Exported(runs=(run,), spans=3, to="https://otel.example.com:443", by="ann"),
            ],
        ),
    ]


async def fire(store: Store, run: str) -> None:
    """The part of the story that has to know the orders' versions."""
    cron = await journal_orders.cron_of(store, f"nightly-{run}")
    for write in (
        journal_orders.fired(
            f"{run}-c", ev.CronFired(cron=cron.name, version=cron.version, due_us=2_000)
        ),
        journal_orders.about_order(
            ev.CronSkipped(
                cron=cron.name, version=cron.version, through_us=3_000, moments=2, why="overlap"
            )
        ),
        journal_orders.set_hook(f"pull-{run}"),
    ):
        await store.append(write)
    (hook,) = [row for row in await store.hooks() if row.name == f"pull-{run}"]
    event = ev.HookFired(hook=hook.name, version=hook.version, delivery="d-1")
    await store.append(journal_orders.fired(f"{run}-h", event))


async def tell(store: Store, run: str = "r-1", child: str = "r-2") -> None:
    """Appends the story."""
    first = journals.queued(run).events[0]
    assert isinstance(first, ev.RunQueued)
    for write in story(run, child, first.run, fence=await store.newest_fence() + 1):
        await store.append(write)
    await fire(store, run)
    for write in journal_storage.erased_run(f"{run}-e"):
        await store.append(write)
    await remember(store, f"{run}-m")
    await store.flush()


async def remember(store: Store, run: str) -> None:
    """The part of the story that needs a scope's own key, and ids of what operators wrote."""
    scope = journal_memory.scope_of(run)
    for write in journal_memory.story(run, await store.scope_key(scope.owner)):
        await store.append(write)
    (passage,) = await store.records(scope, document="handbook.md")
    await store.append(journal_memory.forgotten(passage.id, runs=(run,)))
