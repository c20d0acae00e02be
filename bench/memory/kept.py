"""Records in a real store, recalled as a kernel recalls them: `Memory` over a journal on disk.

Vectors are drawn from a seed that is the text itself: what embedding takes, and how well it finds,
is not here (`embedding.py`, `finding.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ring0.kernel.memory.manager import Memory
from ring0.memory.embedding.vectors import pack_all
from ring0.runtime import Runtime
from ring0.store import Store, Write, records
from ring0.store import events as ev
from ring0.store.rows import Indexed
from ring0.store.sqlite import SqliteStore, open_store
from ring0.store.terms import terms_of
from ring0.types import Integrity, Label, MemoryKind, NewRecord, Owner, Scope

DIMENSIONS = 384
AT_ONCE = 1_000
THREAD = 40
_KEY = b"k" * 32
_LABEL = Label(integrity=Integrity.USER, sources=("bench",))


class Drawn:
    """An embedder whose vectors mean nothing: the same of the same text, in every process."""

    name = "drawn"
    dimensions = DIMENSIONS

    async def embed(self, texts: Sequence[str], *, query: bool) -> list[bytes]:
        return drawn(texts)

    async def close(self) -> None: ...

    def for_label(self, label: Label) -> Drawn:
        """It stands for a kernel's `Embedders`, too."""
        return self


def drawn(texts: Sequence[str]) -> list[bytes]:
    seeds = [int.from_bytes(hashlib.sha256(one.encode()).digest()[:8]) for one in texts]
    wide = [np.random.default_rng(one).standard_normal(DIMENSIONS, np.float32) for one in seeds]
    return pack_all(np.stack(wide))


def opened(folder: Path) -> SqliteStore:
    folder.mkdir(exist_ok=True)
    return open_store(folder, Runtime(), write=True)


def memory_over(store: Store) -> Memory:
    memory = Memory(store, Runtime())
    memory.embedders = cast(Any, Drawn())
    return memory


def scope_of(owner: Owner) -> Scope:
    tenant, principal, agent = owner
    return Scope(tenant=tenant, principal=principal, agent=agent, run=None)


async def written(store: Store, owner: Owner, texts: Sequence[str], act: str) -> Write:
    """A durable write of an operator's, for the store to append; threads of 40."""
    new = [
        NewRecord(
            kind=MemoryKind.EPISODE,
            text=text,
            label=_LABEL,
            role="result",
            session=f"{act} {place // THREAD}",
        )
        for place, text in enumerate(texts)
    ]
    event, blobs = records.remembered(
        new, key=_KEY, scope_key=await store.scope_key(owner), owner=owner, act=act, by="bench"
    )
    return Write(run=ev.KERNEL, events=[event], blobs=blobs, keys={act: _KEY}, durable=True)


async def fill(store: Store, owner: Owner, texts: Sequence[str], act: str) -> None:
    for start in range(0, len(texts), AT_ONCE):
        part = texts[start : start + AT_ONCE]
        await store.append(await written(store, owner, part, f"{act}-{start}"))


async def index_all(store: Store, *, vectors: bool) -> None:
    """What a kernel does in the background: words, and `vectors`, beside every record."""
    model = Drawn.name if vectors else ""
    while page := await store.unindexed(model, AT_ONCE):
        made: Sequence[bytes | None] = [None] * len(page)
        if vectors:
            made = drawn([row.text for row in page])
        rows = []
        for row, vector in zip(page, made, strict=True):
            terms = terms_of(row.text)
            rows.append(Indexed(row.number, terms.packed, terms.length, vector))
        await store.index(model, rows)
