"""Words and vectors of what is remembered, made in the background and written beside it.

It works from what the store says is missing, so a crash costs nothing but time; it takes a share of
the time and leaves the rest to calls. Nothing waits for it: what has no words yet is read when its
scope is searched.

A change of model leaves no gap: the old model's vectors are compared until as many are there of the
new one (the oldest records come first), and go when all are there. Where the old model can't be
asked any more, what is recalled is found by its words meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from ring0 import limits
from ring0.kernel.memory.embedders import Embedders
from ring0.kernel.memory.placing import OpenPlace, Placing
from ring0.memory import structure
from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import Embedder, EmbeddingFailed
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store.rows import Indexed, Unindexed
from ring0.store.terms import terms_of
from ring0.types import Confidentiality, Frozen, Owner

EmbeddedText = Callable[[Unindexed], str]
"""What is embedded of a record: more than its text (`memory/structure.py`)."""
_PROBE = "ring0"
_ROWS_A_TURN = 16
"""Whose words are taken at once: a few milliseconds."""


def embedded_of(row: Unindexed) -> str:
    """As recall was measured with it."""
    return structure.embedded_text(
        row.text, previous=row.previous, role=row.role, happened_us=row.happened_us
    )


class IndexingStatus(Frozen, frozen=True, kw_only=True):
    """How far it is."""

    embeddings: str
    """Who makes vectors, for people."""
    model: str = ""
    """Whose vectors are made; empty: none are."""
    serving: str = ""
    """Whose vectors are compared now."""
    records: int = 0
    vectors: dict[str, int] = msgspec.field(default_factory=dict)
    """By model."""
    trouble: str = ""
    """Why none are made just now."""


class Indexing:
    """One a kernel. `begin` it, `close` it before its sandboxes and its store."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        embedders: Embedders,
        embedded: EmbeddedText,
        told: Callable[[Owner], None] = lambda owner: None,
        open_place: OpenPlace | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`told`: a scope has more words and vectors than before; `say`: a line for whoever
        operates it; `open_place`: the vector store on disk of a model, where one is wanted."""
        self._store = store
        self._runtime = runtime
        self._embedders = embedders
        self._embedded = embedded
        self._told = told
        self.say = say
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rests_until_us = 0
        self._vectors_from_us = 0
        """Before that a few records are no reason to start a process."""
        self._trouble = ""
        self._counted = False
        self._pages = 0
        """Since vectors were counted last."""
        self.placing = Placing(store, open_place)
        """Vector stores on disk that are filled as well."""

    def begin(self) -> None:
        self._vectors_from_us = (
            self._runtime.monotonic_us() + limits.INDEXING_VECTORS_AFTER_S * 1_000_000
        )
        self._task = self._runtime.start(self._run(), name="indexing")

    def wake(self) -> None:
        """Something was remembered."""
        self._wanted.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.placing.close()

    async def status(self) -> IndexingStatus:
        wanted, serving = self._embedders.wanted, self._embedders.serving
        return IndexingStatus(
            embeddings=self._embedders.told,
            model=wanted.name if wanted else "",
            serving=serving.name if serving else "",
            records=sum(size.records for size in await self._store.scopes()),
            vectors=await self._store.vector_models(),
            trouble=self._trouble if self._is_resting() else "",
        )

    async def hold(self, owner: Owner) -> None:
        """No vector of the owner's is on disk until `release`. Raises StoreFailed."""
        await self.placing.hold(owner)

    def release(self, owner: Owner) -> None:
        self.placing.release(owner)
        self.wake()

    def broken(self, owner: Owner) -> None:
        """A vector store on disk fails at the owner's vectors: they are put there anew."""
        self.placing.broken(owner)
        self.wake()

    async def choose(self) -> None:
        """Whose vectors are compared from here on: those of the model that is wanted, or, while an
        older one has more, that one's."""
        wanted = self._embedders.wanted
        if wanted is None:
            self._embedders.serving = None
            return
        counts = await self._store.vector_models()
        others = {name: count for name, count in counts.items() if name != wanted.name}
        old = max(others, key=lambda name: (others[name], name), default="")
        if not counts:
            self._embedders.serving = None  # Nothing to compare a query with.
        elif others.get(old, 0) <= counts.get(wanted.name, 0):
            self._embedders.serving = wanted
        else:
            self._embedders.serving = self._embedders.named(old)
        self._counted, self._pages = True, 0

    async def _run(self) -> None:
        while True:
            began_us = self._runtime.monotonic_us()
            try:
                more = await self.step()
            except Exception as error:  # The store can't be read just now, say: it goes on later.
                self.say(f"memory is not indexed just now: {type(error).__name__}: {error}"[:300])
                await self._runtime.sleep(limits.EMBEDDER_REST_S)
                continue
            if more:
                took_s = (self._runtime.monotonic_us() - began_us) / 1_000_000
                rest_s = min(took_s * (limits.INDEXING_SHARE - 1), limits.INDEXING_REST_S_MAX)
                await self._runtime.sleep(rest_s)
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Until something is remembered, or for a while."""
        try:
            await self._runtime.wait_for(self._wanted.wait(), limits.INDEXING_WAIT_S)
        except TimeoutError:
            pass
        self._wanted.clear()

    async def step(self) -> bool:
        """One page; False: there was nothing to do."""
        wanted = None if self._is_resting() else self._embedders.wanted
        if self._embedders.serving is not self._embedders.wanted:
            self._pages += 1
        if not self._counted or self._pages >= limits.INDEXING_COUNT_PAGES:
            await self.choose()
        model = wanted.name if wanted else ""
        page = await self._store.unindexed(model, limits.INDEXING_PAGE_RECORDS)
        if wanted is not None and 0 < len(page) < limits.INDEXING_PAGE_RECORDS and self._is_young():
            wanted, model = None, ""
            page = await self._store.unindexed(model, limits.INDEXING_PAGE_RECORDS)
        if not page:
            if wanted is not None:
                self._embedders.serving = wanted
                if await self._store.drop_vectors(model) > 0:
                    return True
                await self.placing.fill(wanted)
            return False
        made: Sequence[bytes | None] = [None] * len(page)
        if wanted is not None:
            try:
                made = await self._vectors(wanted, page)
            except EmbeddingFailed as error:  # Their words are written at least, in the next step.
                self._rest(error)
                return True
        await self._store.index(model, await self._rows(page, made))
        await self.placing.put(model, page, made)
        for owner in dict.fromkeys(row.owner for row in page):
            self._told(owner)
        return True

    async def _rows(self, page: Sequence[Unindexed], made: Sequence[bytes | None]) -> list[Indexed]:
        found = []
        for place, (row, vector) in enumerate(zip(page, made, strict=True)):
            terms = terms_of(row.text)
            found.append(Indexed(row.number, terms.packed, terms.length, vector))
            if place % _ROWS_A_TURN == 0:
                await self._runtime.sleep(0)  # Whoever works has their turn.
        return found

    async def _vectors(self, embedder: Embedder, page: Sequence[Unindexed]) -> list[bytes]:
        """Raises EmbeddingFailed where it is the embedder that fails, and no text."""
        found = {row.number: vectors.nothing(embedder.dimensions) for row in page}
        shown = await self._shown(page)
        texts = [self._embedded(row) for row in shown]
        try:
            made = await embedder.embed(texts, query=False)
        except EmbeddingFailed:
            made = [await self._alone(embedder, text) for text in texts]
        found.update((row.number, vector) for row, vector in zip(shown, made, strict=True))
        return [found[row.number] for row in page]

    async def _alone(self, embedder: Embedder, text: str) -> bytes:
        """Its vector, or one like no other where this very text is what the embedder fails at:
        one record never keeps the others from having theirs."""
        try:
            return (await embedder.embed([text], query=False))[0]
        except EmbeddingFailed:
            await embedder.embed([_PROBE], query=False)
            return vectors.nothing(embedder.dimensions)

    async def _shown(self, page: Sequence[Unindexed]) -> Sequence[Unindexed]:
        """Those whose texts the embedder may have: what leaves this machine is public, and each
        goes without the one before it, of which nobody has asked."""
        if not self._embedders.sends_away():
            return page
        records = await self._store.records_of([row.id for row in page])
        public = {
            record.id
            for record in records.values()
            if record.label.confidentiality is Confidentiality.PUBLIC
        }
        return [row._replace(previous="") for row in page if row.id in public]

    def _is_young(self) -> bool:
        return self._runtime.monotonic_us() < self._vectors_from_us

    def _is_resting(self) -> bool:
        return self._runtime.monotonic_us() < self._rests_until_us

    def _rest(self, error: EmbeddingFailed) -> None:
        told = f"{error.what} {error.why}"
        if told != self._trouble:
            self.say(f"no vectors are made just now, it is tried again: {told}"[:300])
        self._trouble = told
        self._rests_until_us = self._runtime.monotonic_us() + limits.EMBEDDER_REST_S * 1_000_000
