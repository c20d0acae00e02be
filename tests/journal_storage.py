"""Writes about storage, for the tests of the store: archives, quotas, back-ups."""

from __future__ import annotations

import journals
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.lists import Listed, form_of, list_address

ROOT = "e" * 64


def in_parts(run: str, *parts: bytes) -> tuple[str, dict[str, bytes]]:
    """The address of a value that lies in these parts, and all its blobs."""
    blobs: dict[str, bytes] = {}
    for part in parts:
        blobs |= journals.named(run, part)
    form = form_of([next(iter(journals.named(run, part))) for part in parts])
    where = list_address(journals.key_of(run), form)
    return where, {**blobs, where: Listed(form)}


def archived(run: str, value: bytes) -> Write:
    (where,) = journals.named(run, value)
    event = ev.RunArchived(digest="a" * 64, values=1, size_bytes=len(value), by="ann")
    return Write(run=run, durable=True, events=[event], archived=[where])


def returned(run: str, value: bytes, *, last: bool = True) -> Write:
    event = ev.ValuesReturned(values=1, last=last, by="ann")
    return Write(run=run, durable=True, events=[event], returned=journals.named(run, value))


def quota(tenant: str, stored_bytes: int) -> Write:
    event = ev.QuotaSet(tenant=tenant, stored_bytes=stored_bytes, by="ann")
    return Write(run=ev.KERNEL, durable=True, events=[event])


def story(run: str, child: str) -> list[Write]:
    """Two runs are archived and one comes back; the journal is copied, and put back."""
    printed = b"what it printed"
    return [
        archived(run, printed),
        archived(child, printed),
        returned(run, printed),
        quota(f"tenant of {run}", 1_000_000),
        Write(
            run=ev.KERNEL,
            durable=True,
            free_pages=4,
            events=[
                ev.RoomGivenBack(pages=4, by="ann"),
                ev.BackedUp(folder="/backup", size=9, root=ROOT, by="ann"),
                ev.Restored(size=9, root=ROOT, by="ann"),
            ],
        ),
    ]


def erased_run(run: str) -> list[Write]:
    """A run whose values, and what memory held of it, are gone again."""
    queued, over = journals.queued(run), journals.over(run, epoch=2)
    event = ev.ValuesErased(values=4, records=(f"{run}#1",), by="ann", note="asked for")
    (first,) = queued.events
    assert isinstance(first, ev.RunQueued)
    erased = tuple(
        where for where in (*queued.blobs, *over.blobs) if where != first.remembered
    )  # That goes with its record.
    return [
        queued,
        journals.moved(run, epoch=1),
        over,
        Write(run=run, durable=True, events=[event], erased=erased),
    ]
