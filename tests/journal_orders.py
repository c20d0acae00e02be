"""Writes for the tests of the store about orders: crons, hooks, and the runs that they start."""

from __future__ import annotations

from collections.abc import Sequence

from journals import named_openly, queued
from ring0.store import Store, Write, base
from ring0.store import events as ev
from ring0.types import Cron, Hook, HookScheme, Schedule


def _order(name: str) -> tuple[dict[str, object], dict[str, bytes]]:
    """What all orders hold, and the blobs of it."""
    blobs = {**named_openly(b"the family"), **named_openly(b"the task")}
    family, task = blobs
    fields: dict[str, object] = {
        "name": name,
        "tenant": "acme",
        "principal": "ann",
        "agent": "clerk",
        "agent_digest": "d" * 64,
        "family": family,
        "task": task,
        "set_us": 1,
    }
    return fields, blobs


def set_cron(name: str, **changes: object) -> Write:
    fields, blobs = _order(name)
    schedule = Schedule(expression="0 3 * * *", timezone="Europe/Berlin")
    row = Cron(**{**fields, "schedule": schedule, "done_us": 1_000, **changes})
    return Write(run=ev.KERNEL, blobs=blobs, durable=True, events=[ev.CronSet(cron=row)])


def set_hook(name: str) -> Write:
    fields, blobs = _order(name)
    row = Hook(**fields, secret=f"hook.{name}", scheme=HookScheme.GITHUB)
    return Write(run=ev.KERNEL, blobs=blobs, durable=True, events=[ev.HookSet(hook=row)])


def about_order(*events: ev.AnyEvent) -> Write:
    return Write(run=ev.KERNEL, durable=True, events=events)


def fired(
    run: str, event: ev.CronFired | ev.HookFired, *, guards: Sequence[base.Guard] = ()
) -> Write:
    """A run that an order starts."""
    first = queued(run)
    return Write(
        run=run,
        key=first.key,
        blobs=first.blobs,
        guards=guards,
        durable=True,
        events=[*first.events, event],
    )


async def cron_of(store: Store, name: str) -> Cron:
    (found,) = [row for row in await store.crons() if row.name == name]
    return found
