"""Vector stores on disk, kept at what the store says: filled from it, emptied before something is
forgotten, made anew where they are broken.

Files on disk are in no transaction: so an owner's are gone before it is on record that something
was forgotten, and nothing is put back until it is. A crash leaves too little there, never too much.
Not here: how vectors are searched (memory/vectors/), who makes them (indexing.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ring0 import limits
from ring0.errors import StoreFailed
from ring0.memory.embedding.base import Embedder
from ring0.memory.vectors import VectorStore
from ring0.store import Store
from ring0.store.rows import Unindexed
from ring0.types import Owner

OpenPlace = Callable[[Embedder], VectorStore]


class Placing:
    """One a kernel."""

    def __init__(self, store: Store, open_place: OpenPlace | None) -> None:
        """`open_place`: the vector store of a model; None: none is wanted."""
        self._store = store
        self._open_place = open_place
        self.places: dict[str, VectorStore] = {}
        """Those that are searched, by model: all is in them."""
        self._open: dict[str, VectorStore] = {}
        """Those, and one that is filled for the first time."""
        self._held: Counter[Owner] = Counter()
        """Something of theirs is being forgotten."""
        self._empty: set[Owner] = set()
        """Wiped, and not filled since."""
        self._broken: set[Owner] = set()
        self._filled = False

    async def hold(self, owner: Owner) -> None:
        """Nothing of the owner's is on disk when this returns, nor until `release`. Raises
        StoreFailed."""
        self._held[owner] += 1
        self._empty.add(owner)
        for place in list(self._open.values()):
            await place.wipe(owner)

    def release(self, owner: Owner) -> None:
        """What is left of the owner's may be put there again."""
        self._held[owner] -= 1
        self._filled = False
        if self._held[owner] <= 0:
            del self._held[owner]

    def broken(self, owner: Owner) -> None:
        """Its vectors can't be searched: they are made anew."""
        self._broken.add(owner)
        self._filled = False

    async def put(
        self, model: str, page: Sequence[Unindexed], made: Sequence[bytes | None]
    ) -> None:
        """What was made just now. Raises StoreFailed."""
        place = self.places.get(model)
        if place is None:
            return
        by_owner: dict[Owner, list[tuple[int, bytes]]] = {}
        for row, vector in zip(page, made, strict=True):
            if vector is not None:
                by_owner.setdefault(row.owner, []).append((row.number, vector))
        for owner, rows in by_owner.items():
            if owner not in self._empty:  # Else some of it may be forgotten: `fill` asks the store.
                try:
                    await place.put(owner, rows)
                except StoreFailed:
                    self.broken(owner)
                    raise

    async def fill(self, embedder: Embedder) -> None:
        """The model's, with what the store has and it has not. Raises StoreFailed."""
        if self._open_place is None or self._filled:
            return
        self._filled = True
        try:
            place = self._open.get(embedder.name)
            if place is None:
                place = self._open[embedder.name] = self._open_place(embedder)
            for owner in tuple(self._broken):
                self._empty.add(owner)
                await place.wipe(owner)
                self._broken.discard(owner)
            for size in await self._store.scopes():
                if size.owner not in self._held:
                    self._empty.discard(size.owner)
                    await self._fill(place, embedder.name, size.owner)
        except BaseException:
            self._filled = False
            raise
        self.places[embedder.name] = place

    async def close(self) -> None:
        for place in self._open.values():
            await place.close()

    async def _fill(self, place: VectorStore, model: str, owner: Owner) -> None:
        try:
            await _fill(self._store, place, model, owner, lambda: owner in self._empty)
        except StoreFailed:
            self.broken(owner)
            raise


async def fill(store: Store, place: VectorStore, model: str) -> int:
    """What a vector store on disk misses of the model's vectors; how many there were."""
    return sum([await _fill(store, place, model, size.owner) for size in await store.scopes()])


async def _fill(
    store: Store,
    place: VectorStore,
    model: str,
    owner: Owner,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Nothing of it is lost by a crash in the middle: it is asked from where it is on. `stop`: it
    was wiped meanwhile."""
    after = await place.newest(owner)
    rows = await store.load_scope(owner, model, after)
    there = [(row.number, row.vector) for row in rows if row.vector is not None]
    for start in range(0, len(there), limits.VECTORS_LOADED_AT_ONCE):
        if stop():
            return start
        await place.put(owner, there[start : start + limits.VECTORS_LOADED_AT_ONCE])
    return len(there)
