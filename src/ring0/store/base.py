"""The interface of every store: append events under guards, read projections. One suite tests all.

A `Write` is one transaction: its guards are checked, then its events and their projections are
written, or nothing is. Writes take effect in the order in which they were appended, and what is on
disk after a crash is a prefix of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from ring0.errors import Ring0Error
from ring0.store.events import AnyEvent, Entry
from ring0.store.remembers import Remembering
from ring0.store.rows import Head, SandboxRow, TenantRow
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CapUse,
    Cron,
    File,
    Frozen,
    Hook,
    Lock,
    LockMode,
    Login,
    Message,
    Quarantine,
    Run,
    RunState,
    Setting,
    Standing,
)

# --- guards: what must hold in the transaction that writes -----------------------------------


class RunLive(Frozen, frozen=True, kw_only=True, tag=True):
    """The run has not ended and nobody raised its epoch."""

    run: str
    epoch: int


class NotKilled(Frozen, frozen=True, kw_only=True, tag=True):
    """No kill reached the run, one above it, its agent, its tenant or everything since it was
    queued."""

    run: str


class LabelUnmoved(Frozen, frozen=True, kw_only=True, tag=True):
    """The run's label is still the one that was judged."""

    run: str
    version: int


class Room(Frozen, frozen=True, kw_only=True, tag=True):
    """The run's budget has room for this much more. What is 0 is not asked for."""

    run: str
    reserve_microusd: int = 0
    tokens: int = 0
    children: int = 0
    calls: int = 1


class CapRoom(Frozen, frozen=True, kw_only=True, tag=True):
    """None of these counters would pass its cap."""

    uses: tuple[CapUse, ...]


class LockHeld(Frozen, frozen=True, kw_only=True, tag=True):
    """The run holds the resource under this fence, and its lease is not over."""

    run: str
    tenant: str
    resource: str
    fence: int


class LockFree(Frozen, frozen=True, kw_only=True, tag=True):
    """Nobody else holds the resource in a way that shuts this out."""

    run: str
    tenant: str
    resource: str
    mode: LockMode


class MessageWaits(Frozen, frozen=True, kw_only=True, tag=True):
    """The message is there, and no other call has received it."""

    to: str
    number: int


class OrderStands(Frozen, frozen=True, kw_only=True, tag=True):
    """The order is there as it was read, it is not paused, and no run has been started for this
    moment or a later one."""

    order: str
    name: str
    version: int
    due_us: int = 0
    """0: any moment."""
    paused: bool = False
    """It may be paused: a person starts it by hand."""


class RunNew(Frozen, frozen=True, kw_only=True, tag=True):
    """There never was a run of that id."""

    run: str


class ApprovalGood(Frozen, frozen=True, kw_only=True, tag=True):
    """The approval is approved, in time, and bound to exactly this. What answered it in advance
    still stands."""

    approval: str
    bound_to: str


class ApprovalPending(Frozen, frozen=True, kw_only=True, tag=True):
    """Nobody has answered it yet, and it has not expired (unless that is what is written)."""

    approval: str
    or_expired: bool = False
    unless_by: str = ""
    """This person has not said yes to it before."""


class StandingGood(Frozen, frozen=True, kw_only=True, tag=True):
    """The standing approval was not revoked, by a person or a kill, and is not used up or over."""

    standing: str


class CallFresh(Frozen, frozen=True, kw_only=True, tag=True):
    """No call of that id stands in the journal."""

    call: str


class CallOpen(Frozen, frozen=True, kw_only=True, tag=True):
    """The call was intended and has no outcome yet (or is unknown and waits to be settled)."""

    call: str


class NotUndone(Frozen, frozen=True, kw_only=True, tag=True):
    """The call was done, and nothing has taken it back or is about to."""

    call: str


class AsksBelow(Frozen, frozen=True, kw_only=True, tag=True):
    """Fewer than `most` approvals are pending in the tree."""

    root: str
    most: int


class DenialsBelow(Frozen, frozen=True, kw_only=True, tag=True):
    """Fewer than `most` asks of the tree were denied in a row since a person let it go on."""

    root: str
    most: int


Guard = (
    RunLive
    | NotKilled
    | LabelUnmoved
    | Room
    | ApprovalGood
    | ApprovalPending
    | StandingGood
    | CallFresh
    | CallOpen
    | NotUndone
    | AsksBelow
    | DenialsBelow
    | CapRoom
    | LockHeld
    | LockFree
    | MessageWaits
    | OrderStands
    | RunNew
)


class GuardFailed(Exception):
    """A guard did not hold: nothing of the write was written."""

    def __init__(self, guard: Guard, detail: str) -> None:
        super().__init__(f"{type(guard).__name__}: {detail}")
        self.guard = guard
        self.detail = detail


class WriteImpossible(Ring0Error):
    """A history that can't be, or a value that can't be stored: a fault of whoever wrote it.

    Nothing of the write was written, and the writes of others go on.
    """

    code, whose, exit_code = "write_impossible", "ours", 1


class Write(msgspec.Struct, kw_only=True):
    """One transaction: all of it or nothing."""

    run: str
    events: Sequence[AnyEvent]
    guards: Sequence[Guard] = ()
    blobs: Mapping[str, bytes] = {}
    """By address; what is kept in parts as `lists.Listed`."""
    returned: Mapping[str, bytes] = {}
    """Likewise, of what comes back from its run's archive."""
    archived: Sequence[str] = ()
    """Addresses of values that its run's archive holds from here on, and the store no more."""
    erased: Sequence[str] = ()
    """Addresses of values that are gone from here on, with the run's key."""
    free_pages: int = 0
    """So many free pages of the file, at most, go back to the file system."""
    key: bytes = b""
    """The run's digest key, with its first event only."""
    keys: Mapping[str, bytes] = {}
    """Digest keys of operators' acts (`m-…`), with the first event of each. They go when the last
    record of the act is forgotten."""
    durable: bool = False
    """True: `append` returns when it is on disk. False: it rides the next group commit."""
    soon: bool = False
    """Of what rides: its group is closed at once. Whatever is written because of it comes in a
    later group, so it is not carried out before this is on disk."""


class Store(Remembering, Protocol):
    """What the kernel needs of a journal and its projections."""

    async def append(self, write: Write) -> int:
        """Commits the write; returns the seq of its first event.

        Raises GuardFailed, WriteImpossible, StoreFull, StoreFailed; LimitReached where the run or
        its tenant has put as much in the journal as it may: what asks for something and what
        refuses it, never an outcome or an end.
        """
        ...

    def now_us(self) -> int:
        """The clock, or the journal's own time where that is later: as the guards have it."""
        ...

    async def flush(self) -> None:
        """Returns when all that was appended so far is on disk."""
        ...

    async def close(self) -> None:
        """Writes what was appended; after that every append is refused with StoreFailed."""
        ...

    async def run(self, run: str) -> Run | None: ...

    async def runs(
        self, *, states: Iterable[RunState] = (), parent: str = "", root: str = "", most: int = 200
    ) -> list[Run]:
        """Newest first."""
        ...

    async def runs_named(self, prefix: str) -> list[str]:
        """Ids that begin with `prefix`, at most three."""
        ...

    async def run_key(self, run: str) -> bytes: ...

    def check_here(self, run: str) -> None:
        """Raises ValueArchived of a run whose values lie in its archive."""
        ...

    async def call(self, call: str) -> Call | None: ...

    async def calls(self, run: str) -> list[Call]:
        """In the order in which they were opened."""
        ...

    async def approval(self, approval: str) -> Approval | None: ...

    async def approvals(
        self, *, states: Iterable[ApprovalState] = (), run: str = ""
    ) -> list[Approval]: ...

    async def standings(self) -> list[Standing]:
        """All that ever were given, the oldest first."""
        ...

    async def standing(self, standing: str) -> Standing | None: ...

    async def locks(self, *, tenant: str = "", run: str = "") -> list[Lock]:
        """Those that are held, expired ones among them, by resource."""
        ...

    async def newest_fence(self) -> int:
        """The highest fence that was ever given; 0: none."""
        ...

    async def messages(self, to: str, *, waiting: bool = True) -> list[Message]:
        """In the order in which they were sent."""
        ...

    async def message(self, to: str, number: int) -> Message | None: ...

    async def cap_used(self, key: str, window: int = 0) -> int:
        """In that window, or in a newer one that the counter has seen."""
        ...

    async def tenant(self, tenant: str) -> TenantRow:
        """What the journal holds of its runs."""
        ...

    async def crons(self) -> list[Cron]:
        """By name."""
        ...

    async def hooks(self) -> list[Hook]:
        """By name."""
        ...

    async def login(self, key: str) -> Login | None: ...

    async def logins(self) -> list[Login]:
        """All that were not ended, those whose time is over among them."""
        ...

    async def settings(self) -> dict[str, Setting]:
        """By name."""
        ...

    async def quarantines(self) -> list[Quarantine]:
        """Sources that are quarantined, by tenant and name."""
        ...

    async def runs_due(self, now_us: int, most: int) -> list[Run]:
        """Runs that wait and whose `wake_us` has come, the longest overdue first."""
        ...

    async def next_wake_us(self) -> int:
        """The earliest `wake_us` of a run that waits; 0: none."""
        ...

    async def files(self, run: str) -> list[File]: ...

    async def file(self, run: str, path: str) -> File | None: ...

    async def sandboxes_alive(self) -> list[SandboxRow]:
        """Those of runs."""
        ...

    async def sandboxes_parked(self) -> list[SandboxRow]:
        """Those that the kernel has made ahead, and nobody has claimed."""
        ...

    async def kill_generation(self) -> int: ...

    async def blob(self, address: str) -> bytes:
        """Raises StoreDamaged if it is not there."""
        ...

    def entries(self, run: str = "") -> AsyncIterator[Entry]:
        """Of one run, or of all in the order of the log."""
        ...

    def placed(self, run: str) -> AsyncIterator[tuple[int, Entry]]:
        """Of one run, each with its place in the log of all."""
        ...

    def stored_after(self, index: int, most: int) -> list[tuple[int, bytes, Entry]]:
        """The log behind that place (-1: all of it), at most so many: (place, leaf, entry)."""
        ...

    async def head(self) -> Head: ...

    def leaves(self, begin: int, end: int) -> list[bytes]:
        """The leaf hashes [begin, end) of the log, as far as it goes."""
        ...
