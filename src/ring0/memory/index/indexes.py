"""The indexes of scopes that were asked for last, within a bound of bytes; kept at what is stored.

Each is read from the store when its scope is first asked for, then only what is new. What changes
in an old record (superseded, forgotten, settled) makes it anew: `forget`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from ring0 import limits
from ring0.errors import StoreFailed
from ring0.memory.embedding.vectors import pack
from ring0.memory.index.question import Question
from ring0.memory.index.scope import Filter, Hit, ScopeIndex
from ring0.memory.vectors import VectorStore
from ring0.runtime import Runtime
from ring0.store.base import Store
from ring0.store.rows import Loaded
from ring0.types import Owner


class _Held:
    """An index, and who may touch it: one at a time."""

    def __init__(self, index: ScopeIndex) -> None:
        self.index = index
        self.lock = asyncio.Lock()
        self.vectors_came = False
        self.stale = False
        """Nobody holds it any more."""
        self.size_bytes = 0
        """When it was last asked."""


class Indexes:
    """One a kernel."""

    def __init__(
        self, store: Store, runtime: Runtime, *, size_bytes_max: int | None = None
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._size_bytes_max = size_bytes_max or limits.SCOPE_INDEXES_SIZE_BYTES_MAX
        self._held: OrderedDict[Owner, _Held] = OrderedDict()
        self._size_bytes = 0
        self.places: dict[str, VectorStore] = {}
        """Vector stores on disk, by model: their vectors are not read into memory."""
        self.broken: Callable[[Owner], None] = lambda owner: None
        """Told of whom such a store could not search."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def size_bytes(self) -> int:
        """Kept, not summed up: no query takes longer because others have indexes, too."""
        return self._size_bytes

    def forget(self, owner: Owner) -> None:
        """Its index is made anew when it is next asked for: a record of it was forgotten,
        superseded or settled."""
        if held := self._held.pop(owner, None):
            held.stale = True
            self._size_bytes -= held.size_bytes

    def indexed(self, owner: Owner) -> None:
        """Vectors of its records were written: they are read when it is next asked for."""
        if held := self._held.get(owner):
            held.vectors_came = True

    async def search(
        self,
        owner: Owner,
        question: Question,
        kept: Filter,
        most: int,
        *,
        model: str = "",
        dimensions: int = 0,
        trained: bool = True,
    ) -> list[Hit]:
        """The best `most` of the owner's records. `model`: of the question's vector."""
        while True:
            held = self._of(owner, model, dimensions)
            async with held.lock:
                await self._refresh(owner, held)
                if held.stale:
                    continue  # Something of it was forgotten while we read.
                asked = await self._near(owner, held.index, question, kept, model)
                hits = await self._searched(held.index, asked, kept, most, trained)
            self._count(held)
            self._evict(owner)
            return hits

    def _of(self, owner: Owner, model: str, dimensions: int) -> _Held:
        held = self._held.get(owner)
        if model in self.places:
            dimensions = 0
        if held is None or (model and held.index.model != model):
            self.forget(owner)
            held = self._held[owner] = _Held(ScopeIndex(model, dimensions))
        self._held.move_to_end(owner)
        return held

    async def _refresh(self, owner: Owner, held: _Held) -> None:
        index = held.index
        if held.vectors_came:
            held.vectors_came = False
            if (first := index.first_without_vector) is not None:
                rows = await self._store.load_scope(owner, index.model, first - 1)
                newest = index.newest
                index.fill([one for one in rows if one.number <= newest])
                await self._append(index, [one for one in rows if one.number > newest])
                return
        model = "" if index.matrix is None else index.model
        rows = await self._store.load_scope(owner, model, index.newest)
        await self._append(index, rows)

    async def _append(self, index: ScopeIndex, rows: list[Loaded]) -> None:
        if len(rows) < limits.SCOPE_INDEX_THREAD_RECORDS_MIN // 8:
            index.append(rows)
        else:
            await self._runtime.in_thread(index.append, rows)

    async def _searched(
        self, index: ScopeIndex, question: Question, kept: Filter, most: int, trained: bool
    ) -> list[Hit]:
        if len(index) < limits.SCOPE_INDEX_THREAD_RECORDS_MIN:
            return index.search(question, kept, most, trained=trained)
        found: list[Hit] = await self._runtime.in_thread(
            lambda: index.search(question, kept, most, trained=trained)
        )
        return found

    async def _near(
        self, owner: Owner, index: ScopeIndex, question: Question, kept: Filter, model: str
    ) -> Question:
        """With the nearest of what may be seen, where the vectors are on disk."""
        place = self.places.get(model)
        if place is None or index.matrix is not None or question.vector is None:
            return question
        seen, others = index.numbers_seen(kept)
        query, most = pack(question.vector), limits.RECALL_NEAR_RECORDS
        try:
            if others > most:
                found = await place.search(owner, query, most, seen)
            else:  # So many more, that enough of what may be seen is among them.
                found = await place.search(owner, query, most + others)
        except StoreFailed:  # What is recalled is found by its words.
            self.broken(owner)
            return question._replace(near=())
        allowed = frozenset(seen)
        return question._replace(near=tuple([one for one in found if one.number in allowed][:most]))

    def _count(self, held: _Held) -> None:
        if not held.stale:
            size_bytes = held.index.size_bytes
            self._size_bytes += size_bytes - held.size_bytes
            held.size_bytes = size_bytes

    def _evict(self, used: Owner) -> None:
        """The one just used stays, however large it is."""
        while len(self._held) > 1 and self.size_bytes > self._size_bytes_max:
            oldest = next(iter(self._held))
            if oldest == used:
                return
            self.forget(oldest)
