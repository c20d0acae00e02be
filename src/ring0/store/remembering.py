"""What is remembered, superseded, forgotten, compacted: from events to rows.

A part of `project.py`, which calls this and nobody else does. It reads no value: what has been
forgotten leaves a history that can be played again.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.store import events as ev
from ring0.store.holdings import Tables
from ring0.store.records import record_ids
from ring0.store.rows import ChildRow, CurrentRow, KeyedRow, RecalledRow, RecordRow
from ring0.types import (
    INTEGRITY_RANK,
    RECORD_TRANSITIONS,
    Label,
    MemoryKind,
    RecordState,
    Run,
    Window,
)

REMEMBERED: Final = ev.Remembered | ev.Superseded | ev.RecordSettled | ev.Forgotten
"""The events of memory in the kernel's own journal."""
IN_RUNS: Final = ev.Remembered | ev.Superseded | ev.WorkingSetChanged | ev.WindowCompacted
"""Those in a run's."""
ACT: Final = "m-"
"""How the name of an operator's act begins: no run's does."""
_SETTLED_BY_PEOPLE: Final = (MemoryKind.PROCEDURE, MemoryKind.DIRECTIVE)
_SUPERSEDED: Final = (
    *(MemoryKind.FACT, MemoryKind.EPISODE, MemoryKind.PROCEDURE, MemoryKind.PASSAGE),
)


def by_operators(entry: ev.Entry, tables: Tables) -> None:
    """What the kernel's own journal says of memory."""
    match entry.body:
        case ev.Remembered() as body:
            assert body.owner is not None and all(body.owner), "remembered for nobody"
            assert body.act.startswith(ACT) and body.by, "an operator's act names itself and whom"
            _remembered(entry, body, body.act, body.owner, body.by, tables)
        case ev.Superseded() as body:
            assert body.by, "nobody superseded it"
            old = _record(body.record, tables)
            _superseded(old, body.by_record, entry.at_us, tables)
        case ev.RecordSettled() as body:
            row = _record(body.record, tables)
            assert row.kind in _SETTLED_BY_PEOPLE and body.by, f"a {row.kind} is not settled"
            assert body.state in RECORD_TRANSITIONS[row.state], f"{row.state} to {body.state}"
            tables.put("record", row.id, replace(row, state=body.state))
        case ev.Forgotten() as body:
            assert body.by and body.receipt and body.selector, "nobody forgot nothing"
            assert 1 <= len(body.records) <= limits.RECORDS_PER_EVENT_MAX, "a page of records"
            forget(body.records, tables)
        case _:
            pass


def by_run(entry: ev.Entry, run: Run, tables: Tables) -> None:
    """What a run's journal says of memory."""
    match entry.body:
        case ev.Remembered() as body:
            owner = (run.tenant, run.principal, run.agent)
            for one in body.records:
                assert one.kind is not MemoryKind.DIRECTIVE, f"{run.id} gives itself directives"
                if one.kind is MemoryKind.PROCEDURE:
                    assert one.state is RecordState.PROPOSED, f"{run.id} approves its own procedure"
            _remembered(entry, body, run.id, owner, run.principal, tables)
        case ev.Superseded() as body:
            # Whoever writes both at once can't know the new one's id yet: it is right before this.
            by_record = body.by_record or f"{run.id}#{entry.seq - 1}"
            new, old = _record(by_record, tables), tables.get("record", body.record)
            if old is None or old.superseded_us:
                return  # Somebody was quicker, or it was forgotten: the new one stands by itself.
            assert old.owner == new.owner == (run.tenant, run.principal, run.agent), "not its scope"
            assert new.act == run.id and not body.note, "a run supersedes by what it wrote itself"
            assert no_worse(new.label, old.label), "what is worse supersedes nothing"
            is_procedure = old.kind is MemoryKind.PROCEDURE
            assert not is_procedure or old.state is RecordState.PROPOSED, "people approved it"
            _superseded(old, new.id, entry.at_us, tables)
        case ev.WorkingSetChanged() as body:
            row = _window(run, tables)
            row = replace(row, working=body.working, label=body.label, version=row.version + 1)
            tables.put("window", run.id, row)
        case ev.WindowCompacted() as body:
            _compacted(entry, body, run, tables)
        case _:
            pass


def episode(
    entry: ev.Entry, run: Run, role: str, blob: str, label: Label, tables: Tables, tried: str = ""
) -> None:
    """A turn or a result, as it was. The text is the blob."""
    row = RecordRow(
        id=f"{run.id}#{entry.seq}",
        kind=MemoryKind.EPISODE,
        tenant=run.tenant,
        principal=run.principal,
        agent=run.agent,
        act=run.id,
        seq=entry.seq,
        by=run.principal,
        blob=blob,
        role=role,
        label=label,
        at_us=entry.at_us,
        fingerprint=tried,
    )
    assert role, "an episode has a role"
    tables.put("record", row.id, row)


def recalled(entry: ev.Entry, run: Run, records: tuple[str, ...], tables: Tables) -> None:
    """All that the run writes from here on may come of these."""
    assert len(records) <= limits.RECORDS_PER_EVENT_MAX, "more than one call brings"
    for one in records:
        key = f"{run.id}\n{one}"
        if tables.get("recalled", key) is None:
            tables.put("recalled", key, RecalledRow(run=run.id, record=one, seq=entry.seq))


def forget(records: tuple[str, ...], tables: Tables) -> None:
    """Takes records away; what lies beside them goes with them, and what only these had superseded
    stands again. Of two who forget one record the second finds it gone."""
    for one in records:
        row: RecordRow | None = tables.get("record", one)
        if row is None:
            continue
        _no_more_current(row, tables)
        _unlink(row, tables)
        keyed: KeyedRow | None = tables.get("keyed", row.key) if row.key else None
        if keyed is not None and keyed.record == row.id:
            tables.put("keyed", row.key, None)
        for parent in row.parents:
            tables.put("child", f"{parent}\n{row.id}", None)
        tables.put("record", one, None)
        _give_back(row, tables)


def no_worse(new: Label, old: Label) -> bool:
    """In integrity: whether what has the first label may take the place of what has the second."""
    return INTEGRITY_RANK[new.integrity] <= INTEGRITY_RANK[old.integrity]


def _remembered(
    entry: ev.Entry,
    body: ev.Remembered,
    act: str,
    owner: tuple[str, str, str],
    by: str,
    tables: Tables,
) -> None:
    assert 1 <= len(body.records) <= limits.RECORDS_PER_EVENT_MAX, "a page of records"
    tenant, principal, agent = owner
    for name, one in zip(record_ids(act, entry.seq, len(body.records)), body.records, strict=True):
        assert len(one.parents) <= limits.RECORD_PARENTS_MAX, f"{name} is made of too much"
        if one.key:
            if _is_there(one, tables):
                continue
            tables.put("keyed", one.key, KeyedRow(key=one.key, record=name))
        row = RecordRow(
            id=name,
            kind=one.kind,
            tenant=tenant,
            principal=principal,
            agent=agent,
            act=act,
            seq=entry.seq,
            by=by,
            blob=one.blob,
            label=one.label,
            at_us=entry.at_us,
            happened_us=one.happened_us,
            parents=one.parents,
            many=one.many,
            valid_from_us=one.valid_from_us,
            valid_to_us=one.valid_to_us,
            state=one.state,
            slot=one.slot,
            key=one.key,
            fingerprint=one.fingerprint,
        )
        tables.put("record", name, row)
        for parent in one.parents:
            tables.put("child", f"{parent}\n{name}", ChildRow(parent=parent, child=name))
        if row.kind is MemoryKind.FACT and not row.many:
            _holds(row, tables)


def _is_there(one: ev.WrittenRecord, tables: Tables) -> bool:
    """The same key again is the same record, and nothing new is written. But nobody keeps a place
    for a key with what has a worse label than what is to come under it."""
    row: KeyedRow | None = tables.get("keyed", one.key)
    return row is not None and no_worse(_record(row.record, tables).label, one.label)


def _holds(new: RecordRow, tables: Tables) -> None:
    """A fact takes the place of those of its slot, but of none with a better label: with that one
    it stays disputed. What ended before the others began is history, and disputes nothing."""
    assert new.slot, f"{new.id} is a fact of nothing"
    current: CurrentRow | None = tables.get("current", new.slot)
    before = [_record(one, tables) for one in current.records] if current is not None else []
    assert all(old.owner == new.owner for old in before), f"{new.id} is of another scope"
    later = [
        old.valid_from_us
        for old in before
        if 0 < new.valid_from_us < old.valid_from_us and no_worse(old.label, new.label)
    ]
    if later and not 0 < new.valid_to_us <= min(later):
        # Told late, of a time before those that hold: it is their history.
        new = replace(new, valid_to_us=min(later))
        tables.put("record", new.id, new)
    if new.valid_to_us and any(old.valid_from_us >= new.valid_to_us for old in before):
        return
    kept: list[str] = []
    for old in before:
        if _ended(old, new):
            # It ends anyway. But what is worse takes no place: who corrects it must find it here.
            kept += [] if no_worse(new.label, old.label) else [old.id]
            continue
        if no_worse(new.label, old.label):
            _close(old, new.id, new.at_us, tables)
        else:
            kept.append(old.id)
    tables.put("current", new.slot, CurrentRow(slot=new.slot, records=(*kept, new.id)))


def _ended(old: RecordRow, new: RecordRow) -> bool:
    return bool(old.valid_to_us) and new.valid_from_us >= old.valid_to_us


# --- what takes the place of what ----------------------------------------------------------------
# Each record knows the last one that it superseded, and that one the others: `supersedes`, then
# `earlier`. So what is forgotten gives its place back to all of them, without a search.


def _close(old: RecordRow, by: str, at_us: int, tables: Tables) -> None:
    """It holds no more. When it was believed, and when it held, stay on record."""
    new = _record(by, tables) if by else None
    row = replace(old, superseded_us=at_us, superseded_by=by, held_to_us=old.valid_to_us)
    if old.kind is MemoryKind.FACT:
        ends_us = max(old.valid_from_us, (new.valid_from_us if new else 0) or at_us)
        ends_us = min(old.valid_to_us, ends_us) if old.valid_to_us else ends_us
        row = replace(row, valid_to_us=ends_us)
    tables.put("record", old.id, row)
    if by:
        _link(row, by, tables)


def _link(old: RecordRow, by: str, tables: Tables) -> None:
    new = _record(by, tables)
    if new.supersedes:
        beside = _record(new.supersedes, tables)
        tables.put("record", beside.id, replace(beside, later=old.id))
    tables.put("record", old.id, replace(old, earlier=new.supersedes, later=""))
    tables.put("record", by, replace(new, supersedes=old.id))


def _unlink(row: RecordRow, tables: Tables) -> None:
    """It leaves those whose place the same record took; these stay together."""
    if row.later:
        later = _record(row.later, tables)
        tables.put("record", later.id, replace(later, earlier=row.earlier))
    elif row.superseded_by:
        heir: RecordRow | None = tables.get("record", row.superseded_by)
        if heir is not None and heir.supersedes == row.id:
            tables.put("record", heir.id, replace(heir, supersedes=row.earlier))
    if row.earlier:
        earlier = _record(row.earlier, tables)
        tables.put("record", earlier.id, replace(earlier, later=row.later))


def _give_back(gone: RecordRow, tables: Tables) -> None:
    """Whose place it took: what took its own takes theirs; where nothing did, they stand again."""
    heir = gone.superseded_by
    heir = heir if heir and tables.get("record", heir) is not None else ""
    name = gone.supersedes
    while name:
        old = _record(name, tables)
        name = old.earlier
        if heir and heir != old.id:
            old = replace(old, superseded_by=heir)
            tables.put("record", old.id, old)
            _link(old, heir, tables)
            continue
        old = replace(old, superseded_us=0, superseded_by="", earlier="", later="")
        old = replace(old, valid_to_us=old.held_to_us, held_to_us=0)
        tables.put("record", old.id, old)
        if old.kind is MemoryKind.FACT and not old.many:
            _holds_again(old, tables)


def _holds_again(old: RecordRow, tables: Tables) -> None:
    """Beside what has come into its slot since then: what would have taken its place takes it."""
    current: CurrentRow | None = tables.get("current", old.slot)
    there = [_record(one, tables) for one in current.records] if current is not None else []
    for new in there:
        if new.at_us >= old.at_us and no_worse(new.label, old.label):
            if not _ended(old, new):
                _close(old, new.id, new.at_us, tables)
            return
    records = (*(one.id for one in there), old.id)
    tables.put("current", old.slot, CurrentRow(slot=old.slot, records=records))


def _superseded(old: RecordRow, by_record: str, at_us: int, tables: Tables) -> None:
    assert old.kind in _SUPERSEDED, f"a {old.kind} is not superseded"
    assert not old.superseded_us, f"{old.id} is superseded already"
    new = _record(by_record, tables) if by_record else None
    assert new is None or (new.owner == old.owner and new.id != old.id), f"{by_record} is no such"
    _no_more_current(old, tables)
    _close(old, by_record, at_us, tables)


def _no_more_current(row: RecordRow, tables: Tables) -> None:
    current: CurrentRow | None = tables.get("current", row.slot) if row.slot else None
    if current is not None and row.id in current.records:
        left = tuple(one for one in current.records if one != row.id)
        tables.put("current", row.slot, replace(current, records=left) if left else None)


def _compacted(entry: ev.Entry, body: ev.WindowCompacted, run: Run, tables: Tables) -> None:
    row = _window(run, tables)
    assert body.from_seq == row.upto_seq + 1 <= body.upto_seq, "ranges lie one behind the other"
    assert body.upto_seq <= run.events, "what is not written yet can't be summed up"
    # Whoever writes both at once can't know the summary's id yet: it is right before this.
    summary = _record(body.summary or f"{run.id}#{entry.seq - 1}", tables)
    assert summary.act == run.id and summary.kind is MemoryKind.SUMMARY, "its own summary"
    fruitless = row.fruitless + 1 if row.compactions and body.progress == row.progress else 0
    row = replace(
        row,
        upto_seq=body.upto_seq,
        summary=summary.id,
        working=body.working or row.working,
        label=body.label if body.working else row.label,
        version=row.version + 1,
        compactions=row.compactions + 1,
        progress=body.progress,
        fruitless=fruitless,
    )
    assert not row.working or row.label is not None, "a working set has a label"
    tables.put("window", run.id, row)


def _window(run: Run, tables: Tables) -> Window:
    found: Window | None = tables.get("window", run.id)
    return found or Window(run=run.id)


def _record(key: str, tables: Tables) -> RecordRow:
    row: RecordRow | None = tables.get("record", key)
    assert row is not None, f"memory holds no {key!r}"
    return row
