"""Takes in what a file says was remembered elsewhere, page by page, as one operator's words or as a
stranger's. Twice the same file is the same memory.

Not here: how files are read (memory/exchange/), which the command line does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.kernel.memory.directing import write
from ring0.memory.exchange import Imported
from ring0.memory.facts import may_supersede
from ring0.memory.selecting import role_line
from ring0.store import Write
from ring0.store import events as ev
from ring0.types import (
    Frozen,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Owner,
    RecordState,
)

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


class Taken(Frozen, frozen=True, kw_only=True):
    """What became of a page."""

    act: str
    ids: dict[str, str]
    """By the id there, the one here: also of what was here already."""
    new: int
    demoted: int = 0
    """Directives that came without --trust: they are notes."""


async def take(
    kernel: Kernel,
    owner: Owner,
    page: list[Imported],
    *,
    by: str,
    known: dict[str, str],
    source: str,
    trust: bool = False,
) -> Taken:
    """`known`: ids of earlier pages, there and here. `source`: what the file is called, in labels.
    `trust`: the operator answers for it: labels are as the file says, and what it says nothing of
    is the operator's own word. Else all of it is a stranger's. Raises InvalidInput, CallInvalid."""
    if not 1 <= len(page) <= limits.EXCHANGE_PAGE_RECORDS:
        raise InvalidInput(
            f"A page of {len(page)} records can't be taken.",
            why=f"1 to {limits.EXCHANGE_PAGE_RECORDS} are.",
            todo="Use the `ring0` command of the same version.",
        )
    store = kernel.store
    await store.flush()
    there = await store.records_of(list(known.values()))
    # Whatever is of another scope, or forgotten meanwhile, is nobody's parent here.
    own = {one for one, row in there.items() if (row.tenant, row.principal, row.agent) == owner}
    known = {origin: here for origin, here in known.items() if here in own}
    new, found = [], dict[str, str]()
    for one in page:
        # The file's own name for it may be a record of this very scope: an export taken back.
        row = await store.record(one.origin)
        if row is not None and (row.tenant, row.principal, row.agent) == owner:
            found[one.origin] = row.id
            continue
        new.append(one)
    new = await _not_there(kernel, owner, new, found, trust)
    demoted = sum(one.record.kind is MemoryKind.DIRECTIVE and not trust for one in new)
    before = (await _count(kernel, owner)) if new else 0
    act = ""
    if new:
        said = [_said(kernel, one, by, known | found, source, trust) for one in new]
        act, _ = await write(kernel, owner, said, by=by)
        await store.flush()
        for one, record in zip(new, said, strict=True):
            kept = await store.record_keyed(owner, record.kind, record.key)
            if kept is not None:
                found[one.origin] = kept.id
        await _supersede(kernel, act, new, known | found, by)
    return Taken(
        act=act,
        ids=found,
        new=(await _count(kernel, owner)) - before if new else 0,
        demoted=demoted,
    )


async def _not_there(
    kernel: Kernel, owner: Owner, page: list[Imported], found: dict[str, str], trust: bool
) -> list[Imported]:
    """Those that no earlier import wrote; of the others, `found` gets to know what they are here.
    An act that would write nothing leaves nothing, not even its key."""
    left = []
    for one in page:
        kind = _kind_of(one.record, trust)
        row = await kernel.store.record_keyed(owner, kind, one.record.key or f"import {one.origin}")
        if row is None or not may_supersede(row.label, _label(one, "", trust)):
            left.append(one)
        else:
            found[one.origin] = row.id
    return left


def _kind_of(record: NewRecord, trust: bool) -> MemoryKind:
    """A directive takes somebody who answers for it."""
    is_demoted = record.kind is MemoryKind.DIRECTIVE and not trust
    return MemoryKind.EPISODE if is_demoted else record.kind


def _label(one: Imported, source: str, trust: bool) -> Label:
    own = Label(
        integrity=Integrity.USER if trust else Integrity.UNTRUSTED,
        confidentiality=one.record.label.confidentiality,
        sources=(source,) if source else (),
    )
    return own.join(one.record.label) if one.labelled or not trust else own


def _said(
    kernel: Kernel, one: Imported, by: str, known: dict[str, str], source: str, trust: bool
) -> NewRecord:
    """As it is remembered here."""
    record = one.record
    redact = kernel.gate.secrets.redact_text
    kind, role, state = _kind_of(record, trust), record.role, record.state
    if kind is not record.kind:
        role, state = "note", RecordState.CURRENT
    if kind is MemoryKind.PROCEDURE and state is RecordState.CURRENT:
        state = RecordState.PROPOSED
    return replace(
        record,
        kind=kind,
        role=role_line(role),
        state=state,
        # Runs are warned of what failed here, not of what a stranger says has failed.
        fingerprint=record.fingerprint if trust else "",
        label=_label(one, source, trust),
        text=redact(record.text),
        subject=redact(record.subject),
        predicate=redact(record.predicate),
        key=record.key or f"import {one.origin}",
        parents=tuple(known[parent] for parent in one.parents if parent in known),
    )


async def _supersede(
    kernel: Kernel, act: str, page: list[Imported], known: dict[str, str], by: str
) -> None:
    """What had been superseded there is so here, where that did not come about by itself."""
    store = kernel.store
    await store.flush()
    for one in page:
        heir, here = known.get(one.superseded_by, ""), known.get(one.origin, "")
        row = await store.record(here) if here else None
        if row is None or row.superseded_us or not one.superseded_by or heir == here:
            continue
        if row.act != act:
            continue  # It was here before this file, which says nothing about that.
        if row.kind not in (MemoryKind.FACT, MemoryKind.EPISODE, MemoryKind.PROCEDURE):
            continue
        event = ev.Superseded(record=row.id, by_record=heir, by=by)
        await store.append(Write(run=ev.KERNEL, events=[event], durable=False))


async def _count(kernel: Kernel, owner: Owner) -> int:
    return next((one.records for one in await kernel.store.scopes() if one.owner == owner), 0)
