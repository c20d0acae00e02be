"""What all parts of memory at work share: the store, the indexes of scopes, the embedder in use.

Not here: what a call may do with it (calls.py), how it is indexed (indexing.py), what an operator
may do (directing.py, forgetting.py, exchanging.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import StoreFailed
from ring0.kernel.lineage.reaching import is_out, quarantined
from ring0.memory import facts
from ring0.memory.index import Indexes
from ring0.memory.recall import Found, recall
from ring0.memory.vectors import lance
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.types import Confidentiality, Integrity, Label, MemoryKind, Owner, Record, Run, Scope

if TYPE_CHECKING:
    from ring0.kernel.memory.consolidating import Consolidating
    from ring0.kernel.memory.embedders import Embedders
    from ring0.kernel.memory.indexing import Indexing

VECTORS: Final = "vectors"
"""In the data folder."""
PRIVATE: Final = Label(integrity=Integrity.UNTRUSTED, confidentiality=Confidentiality.PRIVATE)
"""Of a query of which nothing else is known."""


def scope_of(run: Run) -> Scope:
    """All that the run may recall: no argument of a call can name another scope."""
    return Scope(tenant=run.tenant, principal=run.principal, agent=run.agent, run=None)


class Memory:
    """One a kernel."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.store = store
        self.runtime = runtime
        self.indexes = Indexes(store, runtime)
        self.folder = Path(VECTORS)
        """Of vector stores on disk, one a model."""
        self.embedders: Embedders | None = None
        """Make vectors of texts and queries; None: what is recalled is found by its words."""
        self.indexing: Indexing | None = None
        """Makes words and vectors ready in the background; None: they are made when searched."""
        self.consolidating: Consolidating | None = None
        """Set when the kernel is wired."""

    async def ready(self) -> None:
        """At boot: whose vectors are compared, and none but theirs."""
        if self.indexing is not None:
            await self.indexing.choose()

    def begin(self) -> None:
        """From here on words and vectors are made in the background."""
        if self.indexing is not None:
            self.indexing.begin()

    @contextlib.asynccontextmanager
    async def forgetting(self, owners: Iterable[Owner]) -> AsyncIterator[None]:
        """Around what takes records of theirs away: no vector of them is on disk, nor is put there,
        before that is on record; no word of it is in memory after it. What is left of theirs is
        read again. Raises StoreFailed."""
        held = tuple(dict.fromkeys(owners))
        async with contextlib.AsyncExitStack() as stack:
            for owner in held:
                if self.indexing is not None:
                    stack.callback(self.indexing.release, owner)
                    await self.indexing.hold(owner)
                await self._wipe(owner)
            try:
                yield
            finally:
                for owner in held:
                    self.indexes.forget(owner)

    async def _wipe(self, owner: Owner) -> None:
        """Where nobody has the vector stores open, too: another model's, say."""
        try:
            await self.runtime.in_thread(lance.wipe_owner, self.folder, owner)
        except OSError as error:
            raise StoreFailed(
                "Nothing can be forgotten: vectors on disk do not go.",
                why=f"{type(error).__name__}: {error}"[:300],
                todo=f"Look at the disk. All of {self.folder} can be deleted while the kernel is"
                " down: it is made again from the journal.",
            ) from error

    async def close(self) -> None:
        """Before the sandboxes in which vectors are made."""
        if self.indexing is not None:
            await self.indexing.close()
        if self.embedders is not None:
            await self.embedders.close()

    async def recall(
        self,
        scope: Scope,
        query: str,
        *,
        k: int,
        kinds: Sequence[MemoryKind] = (),
        as_of_us: int = 0,
        min_integrity: Integrity | None = None,
        task_of: str = "",
        label: Label = PRIVATE,
    ) -> list[Found]:
        """The `k` records of the scope that fit the query best, but nothing that is quarantined.

        `task_of`: a run that has its task before it anyway. `label`: of the query, which no
        embedder beyond this machine sees unless it is public. Raises CallInvalid.
        """
        out = quarantined(scope.tenant, await self.store.quarantines())
        more = 1 if task_of else 0
        found = await recall(
            self.indexes,
            self.store,
            self.embedders.for_label(label) if self.embedders is not None else None,
            scope,
            query,
            k=min(k + more, limits.RECALL_K_MAX),
            as_of_us=as_of_us,
            min_integrity=min_integrity,
            kinds=tuple(kinds),
            without=out,
            back=await self._back(scope, out),
            now_us=self.store.now_us(),
        )
        return [one for one in found if (one.record.act, one.record.role) != (task_of, "task")][:k]

    async def recalled(self, run: str) -> frozenset[str]:
        """Ids of the records that the run has recalled so far."""
        await self.store.flush()
        return frozenset(await self.store.recalled(run))

    async def is_disputed(self, record: Record) -> bool:
        """Whether another fact says something else, and neither could supersede the other."""
        if record.kind is not MemoryKind.FACT or record.many:
            return False
        scope = Scope(
            tenant=record.tenant, principal=record.principal, agent=record.agent, run=None
        )
        others = await self.store.records(
            scope,
            kinds=(MemoryKind.FACT,),
            subject=record.subject,
            predicate=record.predicate,
            most=limits.FACTS_OF_A_SLOT_MAX,
        )
        return facts.disputed(record, others)

    async def _back(self, scope: Scope, out: Mapping[str, int]) -> frozenset[str]:
        """Facts that count again: all that had taken their place is quarantined."""
        if not await self._concerns(scope, out):
            return frozenset()
        heirs: dict[str, str] = {}
        after = ""
        while len(heirs) < limits.RESTORED_FACTS_MAX:
            page = await self.store.records(
                scope, superseded=True, after=after, most=limits.RECORDS_PAGE_MAX
            )
            heirs |= {row.id: row.superseded_by for row in page if row.superseded_us}
            if len(page) < limits.RECORDS_PAGE_MAX:
                break
            after = page[-1].id
        return frozenset(one for one in heirs if _stands_again(one, heirs, out))

    async def _concerns(self, scope: Scope, out: Mapping[str, int]) -> bool:
        """Whether one of these acts may have written in the scope."""
        for act in out:
            row = await self.store.run(act)
            if row is None or (row.tenant, row.principal, row.agent) == scope.owner:
                return True
        return False


def _stands_again(record: str, heirs: Mapping[str, str], out: Mapping[str, int]) -> bool:
    """Nothing that is not quarantined has taken its place, or the place of what did."""
    if is_out(record, out):
        return False
    heir = heirs[record]
    for _ in heirs:
        if not heir or not is_out(heir, out):
            return False
        if not heirs.get(heir):
            return True
        heir = heirs[heir]
    return False
