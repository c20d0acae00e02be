"""What a store hands out beside the words of types.py: rows of projections, and of an index."""

from __future__ import annotations

from typing import NamedTuple

from ring0.types import Frozen, Label, MemoryKind, Owner, RecordState

# --- memory ----------------------------------------------------------------------------------


class RecordRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `record`: a `Record` without what can be forgotten of it."""

    id: str
    kind: MemoryKind
    tenant: str
    principal: str
    agent: str
    act: str
    seq: int
    by: str
    blob: str
    """Address of what it says (store/records.py)."""
    role: str = ""
    """Where the blob is the text alone. Empty: the body says it."""
    label: Label
    at_us: int
    happened_us: int = 0
    parents: tuple[str, ...] = ()
    many: bool = False
    valid_from_us: int = 0
    valid_to_us: int = 0
    superseded_us: int = 0
    superseded_by: str = ""
    supersedes: str = ""
    """The last of those whose place it took; the others are behind that one."""
    earlier: str = ""
    later: str = ""
    """Beside it among those whose place the same record took."""
    held_to_us: int = 0
    """`valid_to_us` as it was before."""
    state: RecordState = RecordState.CURRENT
    slot: str = ""
    key: str = ""
    fingerprint: str = ""

    @property
    def owner(self) -> Owner:
        return (self.tenant, self.principal, self.agent)


class CurrentRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `current`: the facts of one slot that hold, by what is known."""

    slot: str
    records: tuple[str, ...]
    """More than one: they are disputed, the worse label did not supersede the better."""


class KeyedRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `keyed`: the record that was written with an idempotency key."""

    key: str
    """Its digest."""
    record: str


class ChildRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `child`: a record that was made of another."""

    parent: str
    child: str


class RecalledRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `recalled`: from this seq on, all that the run writes may come of
    that record."""

    run: str
    record: str
    seq: int


class Loaded(NamedTuple):
    """A record as an index in memory needs it."""

    number: int
    """It only ever rises, and is never used again."""
    id: str
    kind: MemoryKind | str
    role: str
    session: str
    act: str
    at_us: int
    happened_us: int
    state: RecordState | str
    superseded_us: int
    valid_from_us: int
    valid_to_us: int
    integrity: int
    """Its rank (`types.INTEGRITY_RANK`)."""
    terms: bytes | None
    """As `terms.Terms.packed`; None: they are not written yet."""
    length: int
    """In words; 0 where there are no terms."""
    vector: bytes | None
    """Of the model that was asked for; None: it is not written yet."""
    text: str | None
    """Where one of the two is missing."""


class Unindexed(NamedTuple):
    """A record whose terms or vector are to be written."""

    number: int
    owner: Owner
    id: str
    text: str
    previous: str
    """The text of the record before it in the same session; empty: none."""
    role: str
    happened_us: int
    """When it was recorded, where it does not say."""


class Indexed(NamedTuple):
    """What is derived of a record, to be written beside it."""

    number: int
    terms: bytes
    length: int
    vector: bytes | None


class ScopeSize(NamedTuple):
    """What is remembered for one owner."""

    owner: Owner
    records: int
    text_bytes: int
    newest_us: int


class Head(Frozen, frozen=True, kw_only=True):
    """The Merkle head of a journal."""

    size: int
    root: str


class SandboxRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `sandbox`."""

    id: str
    run: str
    pid: int
    start_ticks: int
    boot_id: str
    purpose: str
    ended: bool = False


class CapRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `cap`."""

    key: str
    used: int
    window: int = 0
    """The newest that it has seen."""

    def used_in(self, window: int) -> int:
        return self.used if window <= self.window else 0


class TenantRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `tenant`: what the journal holds of its runs."""

    tenant: str
    events: int = 0
    stored_bytes: int = 0
    quota_bytes: int = 0
    """What an operator lets it store, of what the bound in limits.py leaves; 0: all of that."""


class ArchiveRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `archive`: the file that holds an ended run's values."""

    run: str
    digest: str
    """SHA-256 of the file."""
    values: int
    size_bytes: int
    """Of the values, as they were stored."""
    by: str
    at_us: int


class KillRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `kill`: the newest generation for one target."""

    scope: str
    target: str
    generation: int
