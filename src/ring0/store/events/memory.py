"""Events of memory: what is remembered, superseded, settled, forgotten; where compaction stands.

Nothing that may have to be forgotten is in an event: what a record says, of whom and under which
name lies in its blob (store/records.py), and here are addresses, keyed digests, labels and times.
"""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import Frozen, Label, MemoryKind, Owner, RecordState


class WrittenRecord(Frozen, frozen=True, kw_only=True):
    """One record of an event, without what can be forgotten of it."""

    blob: str
    """Address of its `RecordBody`, under the key of its act."""
    kind: MemoryKind
    label: Label
    state: RecordState = RecordState.CURRENT
    happened_us: int = 0
    parents: tuple[str, ...] = ()
    many: bool = False
    valid_from_us: int = 0
    valid_to_us: int = 0
    slot: str = ""
    """Of a fact: digest of its subject and predicate, under the scope's key."""
    key: str = ""
    """Digest of its idempotency key, under the scope's key."""
    fingerprint: str = ""


class Remembered(Event, frozen=True, kw_only=True, tag="remembered"):
    """In a run's journal (its scope is the run's, whatever stands here), or in the kernel's: an
    operator's act."""

    records: tuple[WrittenRecord, ...]
    owner: Owner | None = None
    act: str = ""
    by: str = ""


class Superseded(Event, frozen=True, kw_only=True, tag="superseded"):
    """A record holds no more. It stays on record, with the time at which that became known."""

    record: str
    by_record: str = ""
    """What takes its place. Empty: nothing, where an operator says so; in a run's journal the one
    record that the event right before this one wrote."""
    by: str = ""
    """An operator; a run names nobody."""
    note: str = ""
    """An operator's; a run's words are in no event."""


class RecordSettled(Event, frozen=True, kw_only=True, tag="record-settled"):
    """A person approves a procedure, or retires a procedure or a directive."""

    record: str
    state: RecordState
    by: str
    note: str = ""


class WorkingSetChanged(Event, frozen=True, kw_only=True, tag="working-set-changed"):
    working: str
    """Address of the `WorkingSet`, under the run's key."""
    label: Label


class WindowCompacted(Event, frozen=True, kw_only=True, tag="window-compacted"):
    """What the run wrote from one seq to another is told by a summary from here on."""

    from_seq: int
    """Right behind the range before."""
    upto_seq: int
    summary: str = ""
    """The record that tells it. Empty: the one that the event right before this one wrote."""
    working: str = ""
    """Address of the working set as it is carried over; empty: as it was."""
    label: Label | None = None
    """Of that working set."""
    progress: str
    """Digest of effects and plan: the same as at the compaction before means that nothing came of
    what was done between."""


class Forgotten(Event, frozen=True, kw_only=True, tag="forgotten"):
    """Records are gone for good, with their texts, terms and vectors. In the kernel's journal; one
    receipt may take several of these."""

    records: tuple[str, ...]
    receipt: str
    selector: str
    """Digest of what was asked for."""
    derived: int = 0
    """How many of them were made of the others."""
    runs: tuple[str, ...] = ()
    """Runs whose own values hold it still, or held it and were erased."""
    by: str
    note: str = ""


MemoryEvent = (
    Remembered | Superseded | RecordSettled | WorkingSetChanged | WindowCompacted | Forgotten
)
