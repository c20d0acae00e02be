"""Where a record came from, and what came of it: told from rows and from the journal of its act.

Not here: all that may come of a *source* (kernel/lineage/), which has an operator's eyes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import CallDenied, NotFound
from ring0.kernel.lineage.reaching import is_out, quarantined
from ring0.memory import facts
from ring0.store import Store
from ring0.store import events as ev
from ring0.types import Owner, Record


class Explained(msgspec.Struct, kw_only=True):
    """What is known of one record."""

    record: Record
    call: str = ""
    """The call that wrote it; empty: no run's call did."""
    written_by: str = ""
    """What wrote it, in the journal's words: `call-ended`, `remembered`, …"""
    parents: dict[str, Record] = {}
    """All that it was made of, up to the roots, by id."""
    gone: tuple[str, ...] = ()
    """Parents that were forgotten."""
    seen: tuple[str, ...] = ()
    """What its run had recalled before it wrote this."""
    children: tuple[tuple[str, str], ...] = ()
    """(record, `parents` or `seen`): what was made of it, or after it was recalled."""
    recalled_by: tuple[str, ...] = ()
    """Runs that recalled it."""

    @property
    def roots(self) -> dict[str, Record]:
        return {one: row for one, row in self.parents.items() if not row.parents}

    def as_dict(self) -> dict[str, Any]:
        return {
            **told(self.record),
            "call": self.call,
            "written_by": self.written_by,
            "parents": [told(one) for one in self.parents.values()],
            "gone": list(self.gone),
            "seen": list(self.seen),
            "children": [{"id": child, "by": how} for child, how in self.children],
            "recalled_by": list(self.recalled_by),
        }


def told(record: Record) -> dict[str, Any]:
    """A record, for whoever asks where it came from."""
    found: dict[str, Any] = {
        "id": record.id,
        "kind": str(record.kind),
        "role": record.role,
        "text": record.text,
        "act": record.act,
        "by": record.by,
        "at_us": record.at_us,
        "integrity": str(record.label.integrity),
        "confidentiality": str(record.label.confidentiality),
        "sources": list(record.label.sources),
        "state": str(record.state),
        "made_of": list(record.parents),
        "superseded_us": record.superseded_us,
        "superseded_by": record.superseded_by,
    }
    if record.subject:
        found |= {
            "subject": record.subject,
            "predicate": record.predicate,
            "valid_from": facts.written(record.valid_from_us),
            "valid_to": facts.written(record.valid_to_us),
        }
    if record.document:
        found |= {"document": record.document, "place": record.place}
    return found


async def explain(store: Store, record: Record, *, among: Owner) -> Explained:
    """`among`: nothing of another scope is told, whatever names it."""
    await store.flush()
    call, what = await _origin(store, record)
    parents, gone = await _up(store, record, among)
    below = await store.children_of([record.id])
    rows = await store.records_of([child for child, _, _ in below][: limits.EXPLAINED_RECORDS_MAX])
    own = {one for one, row in rows.items() if (row.tenant, row.principal, row.agent) == among}
    recallers = dict.fromkeys(run for run, _ in await store.recallers_of([record.id]))
    return Explained(
        record=record,
        call=call,
        written_by=what,
        parents=parents,
        gone=gone,
        seen=record.seen,
        children=tuple((child, how) for child, _, how in below if child in own),
        recalled_by=tuple(recallers)[: limits.EXPLAINED_RECORDS_MAX],
    )


async def find(store: Store, record: str) -> Record:
    """Of whatever scope, for an operator. Raises NotFound."""
    row = await store.record(record)
    if row is None:
        raise NotFound(
            f"There is no record {record[:80]!r}.",
            why="It never was, or it was forgotten.",
            todo="`ring0 memory search WORDS` prints the ids of what there is.",
        )
    return row


def check_tenant(record: Record, tenant: str) -> None:
    """Of another tenant's record it says what it says of none. Raises NotFound."""
    if record.tenant != tenant:
        raise NotFound(
            f"There is no record {record.id[:80]!r}.",
            why="It never was, or it was forgotten.",
            todo="`ring0 memory search WORDS` prints the ids of what there is.",
        )


async def to_a_run(store: Store, record: Record) -> Explained:
    """What a run of the record's scope may know: nothing that is quarantined; parents that are
    stand where those that are gone do. Raises CallDenied."""
    out = quarantined(record.tenant, await store.quarantines())
    if is_out(record.id, out):
        raise CallDenied(
            f"{record.id} is quarantined.",
            why="An operator took what it came of out of memory.",
            todo="Recall something else.",
        )
    among = (record.tenant, record.principal, record.agent)
    told = await explain(store, record, among=among)
    left = {one: row for one, row in told.parents.items() if not is_out(one, out)}
    gone = (one for one in told.parents if one not in left)
    return msgspec.structs.replace(told, parents=left, gone=(*told.gone, *gone))


async def _up(
    store: Store, record: Record, among: Owner
) -> tuple[dict[str, Record], tuple[str, ...]]:
    """All that it was made of, up to a bound; and those that are not there any more."""
    found: dict[str, Record] = {}
    gone: dict[str, None] = {}
    wanted = list(record.parents)
    while wanted and len(found) < limits.EXPLAINED_RECORDS_MAX:
        page = [one for one in dict.fromkeys(wanted) if one not in found and one not in gone]
        rows = await store.records_of(page[: limits.EXPLAINED_RECORDS_MAX - len(found)])
        wanted = []
        for one in page:
            row = rows.get(one)
            if row is None or (row.tenant, row.principal, row.agent) != among:
                gone[one] = None
                continue
            found[one] = row
            wanted += row.parents
    return found, tuple(gone)


async def _origin(store: Store, record: Record) -> tuple[str, str]:
    """(call, event) that wrote it."""
    if not record.act.startswith("r-"):
        return "", "remembered"
    before = ""
    async for entry in store.entries(record.act):
        if isinstance(entry.body, ev.CallEnded):
            before = entry.body.call  # What goes on record beside it comes right behind it.
        if entry.seq >= record.seq:
            what = type(entry.body).__name__
            return ("" if isinstance(entry.body, ev.RunQueued) else before), what
    return "", ""
