"""Quarantine: what came of a source is revoked, by an operator. Not what it did to the world: that
is undone (`ring0 undo`), where it can be.

From then on no memory that may come of it is recalled; asks of runs that saw it are revoked; those
of the runs that go on are paused, or ended. Lifting gives the memory back, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, NotFound
from ring0.kernel import values
from ring0.kernel.lineage.reaching import Reached, reached
from ring0.store import Write
from ring0.store import events as ev
from ring0.types import Frozen, Quarantine

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


class Done(Frozen, frozen=True, kw_only=True):
    """What was found, and what was done about it."""

    found: Reached
    paused: tuple[str, ...] = ()
    killed: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()


async def look(kernel: Kernel, source: str) -> Reached:
    """What may come of the source; nothing is done. Raises InvalidInput, LimitReached."""
    _check(source)
    return await reached(kernel.store, kernel.runtime, kernel.config.tenant, source)


async def quarantine(
    kernel: Kernel, source: str, *, by: str, kill: bool = False, note: str = ""
) -> Done:
    """Takes a source out. Raises InvalidInput, LimitReached."""
    _check(source)
    store, tenant = kernel.store, kernel.config.tenant
    held = await store.quarantines()
    if len(held) >= limits.QUARANTINES_MAX and all(row.source != source for row in held):
        raise LimitReached(
            f"{limits.QUARANTINES_MAX} sources are quarantined already.",
            todo="Lift some: `ring0 quarantine SOURCE --lift`.",
        )
    stopped: dict[str, None] = {}
    for _ in range(limits.QUARANTINE_PASSES_MAX):
        # Who hands it on meanwhile is found by the next look; who is stopped hands on nothing.
        found = await reached(store, kernel.runtime, tenant, source)
        left = [run for run in found.live if run not in stopped]
        if not left:
            break
        for run in left:
            stopped[run] = None
            await _stop(kernel, run, source, by=by, kill=kill)
    event = ev.SourceQuarantined(
        tenant=tenant, source=source, runs=found.runs, by=by, note=values.note(note)
    )
    await store.append(Write(run=ev.KERNEL, events=[event], durable=True))
    return Done(
        found=found,
        paused=() if kill else tuple(stopped),
        killed=tuple(stopped) if kill else (),
        revoked=await _revoke(kernel, found, source, by=by),
    )


async def _stop(kernel: Kernel, run: str, source: str, *, by: str, kill: bool) -> None:
    try:
        if kill:
            await kernel.kill("run", run, by=by)
        else:
            await kernel.pause(run, by=by, note=f"it saw {source[:200]}, which is quarantined")
    except (InvalidInput, NotFound):
        pass  # It has ended, or is paused, already.


async def _revoke(kernel: Kernel, found: Reached, source: str, *, by: str) -> tuple[str, ...]:
    """Asks that rest on it: nobody can say yes to one any more."""
    revoked = []
    for name in found.pending:
        approval = await kernel.store.approval(name)
        if approval is None:
            continue
        note = f"{source[:200]} is quarantined"
        if await kernel.waiting.take_back(approval, by=by, note=note):
            revoked.append(name)
    return tuple(revoked)


async def lift(kernel: Kernel, source: str, *, by: str, note: str = "") -> Quarantine:
    """Lets it count again: what was noted of it is recalled. Raises NotFound."""
    store, tenant = kernel.store, kernel.config.tenant
    await store.flush()
    for row in await store.quarantines():
        if (row.tenant, row.source) == (tenant, source):
            event = ev.SourceReleased(tenant=tenant, source=source, by=by, note=values.note(note))
            await store.append(Write(run=ev.KERNEL, events=[event], durable=True))
            return row
    raise NotFound(
        f"{source[:80]!r} is not quarantined.",
        todo="`ring0 quarantine` without a source lists what is.",
    )


def _check(source: str) -> None:
    if not source or len(source) > limits.SOURCE_CHARS_MAX or "\n" in source:
        raise InvalidInput(
            "That is no source.",
            why=f"Its name has 1 to {limits.SOURCE_CHARS_MAX} letters, on one line.",
            todo="`ring0 labels RUN` prints the sources of what a run was given.",
        )


__all__ = ["Done", "lift", "look", "quarantine"]
