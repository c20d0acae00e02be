"""Writes of memory for the tests of the store: records of runs and of operators, windows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

import journals
from ring0.store import Write, records
from ring0.store import events as ev
from ring0.types import (
    Item,
    Label,
    MemoryKind,
    NewRecord,
    Owner,
    RecordState,
    Scope,
    Step,
    WorkingSet,
)

SCOPE_KEY = b"of the scope".ljust(32, b".")
"""What digests are made with where no store was asked for the scope's own."""


def fact(value: str, *, label: Label = journals.USER, **more: object) -> NewRecord:
    """Where Zoë lives, unless it says otherwise."""
    about = {"subject": "Zoë", "predicate": "lives in", **more}
    return msgspec.convert(
        {"kind": MemoryKind.FACT, "text": value, "label": label, **about}, NewRecord
    )


def note(text: str, *, label: Label = journals.USER, **more: object) -> NewRecord:
    said = {"kind": MemoryKind.EPISODE, "text": text, "label": label, "role": "note", **more}
    return msgspec.convert(said, NewRecord)


def of_run(
    run: str,
    new: Sequence[NewRecord],
    *,
    scope_key: bytes = SCOPE_KEY,
    also: Sequence[ev.AnyEvent] = (),
) -> Write:
    """What a run brings to memory itself."""
    event, blobs = records.remembered(new, key=journals.key_of(run), scope_key=scope_key)
    return Write(run=run, events=[event, *also], blobs=blobs)


def of_operator(
    act: str,
    new: Sequence[NewRecord],
    *,
    owner: Owner = journals.SCOPE.owner,
    scope_key: bytes = SCOPE_KEY,
    first: bool = True,
) -> Write:
    """What an operator does."""
    key = journals.key_of(act)
    event, blobs = records.remembered(
        new, key=key, scope_key=scope_key, owner=owner, act=act, by="ann (uid 7)"
    )
    keys = {act: key} if first else {}
    return Write(run=ev.KERNEL, events=[event], blobs=blobs, keys=keys, durable=True)


def forgotten(*ids: str, runs: Sequence[str] = ()) -> Write:
    event = ev.Forgotten(
        records=ids, receipt="f-1", selector="e" * 64, runs=tuple(runs), by="ann (uid 7)"
    )
    return Write(run=ev.KERNEL, events=[event], durable=True)


def working(run: str, text: str, label: Label = journals.UNTRUSTED) -> Write:
    """A run's plan and what binds it."""
    held = WorkingSet(
        plan=(Step(text=text, status="doing", label=label),),
        constraints=(Item(text="nothing on Sundays", label=label),),
    )
    blobs = journals.named(run, msgspec.json.encode(held))
    (where,) = blobs
    return Write(run=run, events=[ev.WorkingSetChanged(working=where, label=label)], blobs=blobs)


def compacted(
    run: str, from_seq: int, upto_seq: int, progress: str = "p", *, scope_key: bytes = SCOPE_KEY
) -> Write:
    """A summary, and the window that it tells of, in one write."""
    summary = NewRecord(
        kind=MemoryKind.SUMMARY,
        text=f"{from_seq} to {upto_seq}",
        label=journals.UNTRUSTED,
        role="summary",
        key=f"{run} {from_seq}-{upto_seq}",
    )
    moved = ev.WindowCompacted(from_seq=from_seq, upto_seq=upto_seq, progress=progress)
    return of_run(run, (summary,), scope_key=scope_key, also=(moved,))


def scope_of(run: str) -> Scope:
    """The story's own."""
    return Scope(tenant="acme", principal="ann", agent=f"agent of {run}", run=None)


def story(run: str, scope_key: bytes) -> list[Write]:
    """Every kind of event of memory but one: `forgotten`."""
    act, scope = f"m-{run}", scope_of(run)
    procedure = NewRecord(
        kind=MemoryKind.PROCEDURE,
        text="ask first",
        label=journals.UNTRUSTED,
        state=RecordState.PROPOSED,
        parents=(f"{run}#3.1",),
    )
    about = {"subject": run}
    return [
        journals.queued(run, scope=scope),
        journals.moved(run, epoch=1),
        of_run(
            run, (note(f"a note of {run}", key=run), fact("Oslo", **about)), scope_key=scope_key
        ),
        of_run(
            run,
            (fact("Bergen", **about, valid_from_us=5), fact("tea", **about, predicate="drinks")),
            scope_key=scope_key,
        ),
        of_run(run, (procedure,), scope_key=scope_key),
        of_run(run, (note("the same again", key=run),), scope_key=scope_key),
        working(run, "close the books"),
        compacted(run, 1, 5, scope_key=scope_key),
        of_operator(
            act,
            (
                NewRecord(kind=MemoryKind.DIRECTIVE, text="be polite", label=journals.USER),
                NewRecord(
                    kind=MemoryKind.PASSAGE,
                    text="gone again",
                    label=journals.USER,
                    document="handbook.md",
                    place="p. 3",
                ),
            ),
            owner=scope.owner,
            scope_key=scope_key,
        ),
        Write(
            run=ev.KERNEL,
            durable=True,
            events=[
                ev.RecordSettled(record=f"{run}#5", state=RecordState.CURRENT, by="ann"),
                ev.Superseded(record=f"{run}#4.1", by="ann", note="he moved"),
            ],
        ),
        journals.intended(run, 0),
        journals.ended(
            run,
            0,
            remember="no such table",
            role="failure",
            tried="f" * 16,
            recalled=(f"{run}#3.1",),
        ),
        journals.over(run, epoch=2),
    ]
