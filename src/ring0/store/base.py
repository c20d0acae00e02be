"""The interface of every store: append events under guards, read projections. One suite tests all.

A `Write` is one transaction: its guards are checked, then its events and their projections are
written, or nothing is. Writes take effect in the order in which they were appended, and what is on
disk after a crash is a prefix of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from ring0.errors import Ring0Error
from ring0.store.events import AnyEvent, Entry
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    Episode,
    File,
    Frozen,
    Run,
    RunState,
    Scope,
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
    """The run's budget has room for this many more calls and this much money."""

    run: str
    reserve_microusd: int = 0
    calls: int = 1


class ApprovalGood(Frozen, frozen=True, kw_only=True, tag=True):
    """The approval is approved, in time, and bound to exactly this."""

    approval: str
    bound_to: str


class ApprovalPending(Frozen, frozen=True, kw_only=True, tag=True):
    """Nobody has answered it yet, and it has not expired (unless that is what is written)."""

    approval: str
    or_expired: bool = False


class CallFresh(Frozen, frozen=True, kw_only=True, tag=True):
    """No call of that id stands in the journal."""

    call: str


class CallOpen(Frozen, frozen=True, kw_only=True, tag=True):
    """The call was intended and has no outcome yet (or is unknown and waits to be settled)."""

    call: str


class AsksBelow(Frozen, frozen=True, kw_only=True, tag=True):
    """Fewer than `most` approvals are pending in the tree."""

    root: str
    most: int


Guard = (
    RunLive
    | NotKilled
    | LabelUnmoved
    | Room
    | ApprovalGood
    | ApprovalPending
    | CallFresh
    | CallOpen
    | AsksBelow
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
    key: bytes = b""
    """The run's digest key, with its first event only."""
    durable: bool = False
    """True: `append` returns when it is on disk. False: it rides the next group commit."""


# --- what recall needs to score within a scope -----------------------------------------------


class Candidate(Frozen, frozen=True, kw_only=True):
    """An episode that holds at least one of the terms."""

    episode: Episode
    length: int
    """In tokens."""
    frequencies: tuple[int, ...]
    """Of each term, in the order asked."""


class Candidates(Frozen, frozen=True, kw_only=True):
    """Candidates with the statistics of their scope, and of no other."""

    found: tuple[Candidate, ...]
    episodes: int
    """In the scope."""
    length_mean: float
    episodes_with: tuple[int, ...]
    """Of each term."""


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


class KillRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `kill`: the newest generation for one target."""

    scope: str
    target: str
    generation: int


class Store(Protocol):
    """What the kernel needs of a journal and its projections."""

    async def append(self, write: Write) -> int:
        """Commits the write; returns the seq of its first event.

        Raises GuardFailed, WriteImpossible, StoreFull, StoreFailed.
        """
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

    async def call(self, call: str) -> Call | None: ...

    async def calls(self, run: str) -> list[Call]:
        """In the order in which they were opened."""
        ...

    async def approval(self, approval: str) -> Approval | None: ...

    async def approvals(
        self, *, states: Iterable[ApprovalState] = (), run: str = ""
    ) -> list[Approval]: ...

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

    async def candidates(self, scope: Scope, terms: Sequence[str], most: int) -> Candidates:
        """The newest `most` episodes of the scope that hold one of the terms."""
        ...

    async def head(self) -> Head: ...


def address(key: bytes, value: bytes) -> str:
    """A blob's address: HMAC-SHA-256 under its run's key, 64 hex digits.

    Keyed, so that the address of an erased value tells nobody what the value was.
    """
    return hmac.new(key, value, hashlib.sha256).hexdigest()
