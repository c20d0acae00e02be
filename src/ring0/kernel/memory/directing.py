"""What a person says of memory: directives (always loaded, never found by search), and procedures
that runs proposed.

Only an operator who is known writes a directive; no handle of a run reaches this. Not here: how
directives get into a question (kernel/calls/models.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, NotFound
from ring0.kernel import values
from ring0.kernel.memory.explaining import find
from ring0.store import Store, Write, records
from ring0.store import events as ev
from ring0.types import (
    RECORD_TRANSITIONS,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Owner,
    Record,
    RecordState,
    Scope,
)

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

ACT: Final = "m"
"""How the name of an operator's act begins."""


async def write(
    kernel: Kernel, owner: Owner, new: list[NewRecord], *, by: str
) -> tuple[str, list[str]]:
    """An operator's act: (its name, the ids of what it wrote). What has a key that is there already
    is the record that is there. Raises CallInvalid, StoreFull, StoreFailed."""
    store, act = kernel.store, kernel.runtime.new_id(ACT)
    key = kernel.runtime.random_bytes(32)
    event, blobs = records.remembered(
        new, key=key, scope_key=await store.scope_key(owner), owner=owner, act=act, by=by
    )
    seq = await store.append(
        Write(run=ev.KERNEL, events=[event], blobs=blobs, keys={act: key}, durable=True)
    )
    return act, records.record_ids(act, seq, len(new))


async def add(kernel: Kernel, owner: Owner, text: str, *, by: str) -> Record:
    """A directive, in a person's words. Raises InvalidInput, LimitReached."""
    values.check(text, what="The directive")
    if not text.strip() or len(text) > limits.DIRECTIVE_CHARS_MAX:
        raise InvalidInput(
            f"A directive of {len(text):,} characters can't be taken.",
            why=f"1 to {limits.DIRECTIVE_CHARS_MAX:,} are: it is in every question.",
            todo="Say it shorter; what is long belongs into a document.",
        )
    standing = await listed(kernel.store, owner)
    if len(standing) >= limits.DIRECTIVES_MAX:
        raise LimitReached(
            f"{limits.DIRECTIVES_MAX} directives stand for {owner[2]} and {owner[1]}.",
            why="Each of them is in every question.",
            todo="Retire some: `ring0 memory directive retire ID`.",
        )
    said = NewRecord(
        kind=MemoryKind.DIRECTIVE,
        text=kernel.gate.secrets.redact_text(text.strip()),
        label=Label(integrity=Integrity.USER, sources=(f"directive of {by}",)),
        role="directive",
    )
    _, (record,) = await write(kernel, owner, [said], by=by)
    return await find(kernel.store, record)


async def listed(store: Store, owner: Owner, *, retired: bool = False) -> list[Record]:
    """The directives of an owner, the oldest first: as they are loaded."""
    tenant, principal, agent = owner
    rows = await store.records(
        Scope(tenant=tenant, principal=principal, agent=agent, run=None),
        kinds=(MemoryKind.DIRECTIVE,),
        states=(RecordState.CURRENT, RecordState.RETIRED) if retired else (RecordState.CURRENT,),
        most=limits.RECORDS_PAGE_MAX,
    )
    return rows[::-1]


async def settle(
    kernel: Kernel, record: str, state: RecordState, *, by: str, note: str = ""
) -> Record:
    """Approves a procedure, or retires a procedure or a directive. Raises NotFound,
    InvalidInput."""
    store = kernel.store
    await store.flush()
    row = await find(store, record)
    if row.tenant != kernel.config.tenant:
        raise NotFound(f"There is no record {record[:80]!r}.", todo="`ring0 memory show ID`")
    if row.kind not in (MemoryKind.PROCEDURE, MemoryKind.DIRECTIVE):
        raise InvalidInput(
            f"{row.id} is a {row.kind}: nobody approves or retires that.",
            why="Procedures are approved; procedures and directives are retired.",
            todo="`ring0 memory forget` takes it away.",
        )
    if state not in RECORD_TRANSITIONS[row.state]:
        raise InvalidInput(
            f"{row.id} is {row.state} already.",
            why=f"From there it does not become {state}.",
            todo="`ring0 memory show ID` tells who settled it.",
        )
    event = ev.RecordSettled(record=row.id, state=state, by=by, note=values.note(note))
    await store.append(Write(run=ev.KERNEL, events=[event], durable=True))
    kernel.memory.indexes.forget((row.tenant, row.principal, row.agent))
    return await find(store, row.id)
