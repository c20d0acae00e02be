"""The interface of every store for memory: records by scope, what an index is made of, wiping.

What is written goes through `Store.append` (events/memory.py, records.py). Only `records` looks at
`Scope.run`; all else is of an owner, over all runs. Texts are filled in wherever a `Record` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ring0.store.rows import Indexed, Loaded, ScopeSize, Unindexed
from ring0.types import (
    Label,
    MemoryKind,
    Owner,
    Record,
    RecordState,
    Scope,
    Window,
    WorkingSet,
)


class Remembering(Protocol):
    """A part of `base.Store`."""

    async def scope_key(self, owner: Owner) -> bytes:
        """Under which a scope's facts and idempotency keys are compared (records.py). The first who
        asks makes it; it goes with the scope's last record."""
        ...

    async def record(self, record: str) -> Record | None: ...

    async def records(
        self,
        scope: Scope,
        *,
        kinds: Iterable[MemoryKind] = (),
        states: Iterable[RecordState] = (RecordState.CURRENT,),
        after: str = "",
        most: int = 200,
        document: str = "",
        subject: str = "",
        predicate: str = "",
        session: str = "",
        superseded: bool = False,
    ) -> list[Record]:
        """Newest first; `after`: the older ones behind that record, which must still be there
        (NotFound). `states` empty: any."""
        ...

    async def records_of(self, ids: Sequence[str]) -> dict[str, Record]:
        """By id; those that are gone are left out."""
        ...

    async def record_keyed(self, owner: Owner, kind: MemoryKind, key: str) -> Record | None:
        """The record that was written with that idempotency key."""
        ...

    async def children_of(self, ids: Iterable[str]) -> list[tuple[str, str, str]]:
        """Records that are there and come of one of these: (child, parent, `parents` or `seen`)."""
        ...

    async def recalled(self, run: str) -> list[str]:
        """Ids of what calls brought to the run, in order; forgotten ones among them."""
        ...

    async def recallers_of(self, ids: Iterable[str]) -> list[tuple[str, str]]:
        """Runs that calls brought these to: (run, record)."""
        ...

    async def failures(self, owner: Owner, fingerprint: str, most: int) -> list[Record]:
        """Newest first."""
        ...

    async def scopes(self) -> list[ScopeSize]: ...

    async def load_scope(self, owner: Owner, model: str, after: int = -1) -> list[Loaded]:
        """All that is remembered with a higher number, of every kind and state, by number; with
        the vectors of that model (empty: none)."""
        ...

    async def unindexed(self, model: str, most: int) -> list[Unindexed]:
        """What has no terms, or no vector of that model (empty: none is wanted); oldest first."""
        ...

    async def index(self, model: str, rows: Sequence[Indexed]) -> None:
        """Writes what is derived of records; rows of records that are gone are left out."""
        ...

    async def vector_models(self) -> dict[str, int]:
        """By the name of their model, how many vectors there are."""
        ...

    async def drop_vectors(self, model: str) -> int:
        """Takes away all vectors of every other model; how many there were. Call it again until
        it says 0: it takes away so many at once, and lets other writes in between."""
        ...

    async def wiped(self) -> None:
        """Returns when nothing of what was forgotten or erased so far is in the file or its WAL.
        Raises StoreFailed: somebody reads the journal as it was."""
        ...

    async def window(self, run: str) -> Window | None: ...

    async def working(self, run: str) -> tuple[WorkingSet, Label] | None: ...
