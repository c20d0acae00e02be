"""What a crash may have lost: calls that rode to the disk, were carried out, and never got there.

They count as made, with all that they may have reserved of money and tokens, once in a run's life:
from then on none of its calls rides any more, so that a run which meets many crashes has no less
budget in the end than one that met a single one. Only runs that were at work when the kernel ended
out of order can have lost any: a run that waits with its process put away, and all runs of a kernel
that stopped in order, have on disk all that they did.
"""

from __future__ import annotations

from ring0 import limits
from ring0.scheduler import budgets
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import LIVE, Mode, Run, RunState


async def at_work(store: Store) -> list[Run]:
    """Runs that the last kernel left in the middle. To be asked before a new one writes a line and
    buries the sandboxes of the old one."""
    rows = [
        row
        for row in await store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
        if row.state is not RunState.QUEUED
    ]
    boxed = {box.run for box in await store.sandboxes_alive() if box.purpose == "agent"}
    # One that was made ahead may be a run's already: that line rides to the disk, too.
    parked = bool(await store.sandboxes_parked())
    found = [
        row
        for row in rows
        if row.mode is Mode.ISOLATED
        and (row.id in boxed or (parked and row.state is RunState.RUNNING))
    ]
    embedded = [row for row in rows if row.mode is Mode.EMBEDDED]
    if embedded and not await _stopped_in_order(store):
        found += embedded
    return found


async def _stopped_in_order(store: Store) -> bool:
    last: ev.AnyEvent | None = None
    async for entry in store.entries(ev.KERNEL):
        last = entry.body
    return isinstance(last, ev.KernelStopped)


async def count(store: Store, rows: list[Run]) -> None:
    """Writes for each what it may have lost."""
    for row in rows:
        if row.calls_lost:
            continue  # Since then each of its calls was on disk before it began.
        lost = budgets.lost(row)
        if lost.calls > 0:
            event = ev.CallsLost(
                calls=lost.calls, tokens=lost.tokens, cost_microusd=lost.cost_microusd
            )
            await store.append(Write(run=row.id, events=[event], durable=True))
