"""Recall: the records of a scope that fit a query best, with what made them fit.

The index proposes; what is handed out is read from the store, and looked at once more: an index
that is a moment behind shows nothing that was forgotten or superseded. Not here: what a run may
recall (kernel/memory/), how it gets into a prompt (assembly.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.memory.embedding.base import Embedder, EmbeddingFailed
from ring0.memory.embedding.vectors import size_bytes, unpack
from ring0.memory.index import Filter, Hit, Indexes
from ring0.memory.index.question import question_of
from ring0.store.base import Store
from ring0.types import (
    INTEGRITY_RANK,
    Frozen,
    Integrity,
    MemoryKind,
    Record,
    RecordState,
    Scope,
)


class Found(Frozen, frozen=True):
    """A record, and how well it fits."""

    record: Record
    score: float
    """Comparable within one answer alone."""
    why: dict[str, float]
    """By channel (index/scoring.py), what it gave to the score."""


async def recall(
    indexes: Indexes,
    store: Store,
    embedder: Embedder | None,
    scope: Scope,
    query: str,
    *,
    k: int,
    as_of_us: int = 0,
    min_integrity: Integrity | None = None,
    kinds: Sequence[MemoryKind] = (),
    without: Mapping[str, int] | None = None,
    back: frozenset[str] = frozenset(),
    now_us: int = 0,
    trained: bool = True,
) -> list[Found]:
    """The `k` records of the scope that fit the query best, best first; newer before older.

    `as_of_us`: what was known then, and facts that held then. `without`: runs, and the seq from
    which on nothing of theirs is recalled; `back`: records that only these superseded. Without an
    embedder, or where it fails, records are found by their words. Raises CallInvalid.
    """
    _check(query, k)
    if as_of_us and now_us:
        as_of_us = min(as_of_us, now_us)
    kept = Filter(
        kinds=tuple(kinds),
        act=scope.run,
        as_of_us=as_of_us,
        integrity_rank_max=INTEGRITY_RANK[min_integrity] if min_integrity else None,
        without=dict(without or {}),
        back=back,
    )
    packed = await _vector(embedder, query)
    question = question_of(query, unpack(packed) if packed else None)
    if not question.words and question.vector is None and not question.days:
        return []
    await store.flush()
    most = k
    while True:
        hits = await indexes.search(
            scope.owner,
            question,
            kept,
            most,
            model=embedder.name if embedder and packed else "",
            dimensions=embedder.dimensions if embedder and packed else 0,
            trained=trained,
        )
        found = _without_copies(await _read(store, scope, hits, kept))
        if len(found) >= k or len(hits) < most or most >= limits.RECALL_LOOKED_AT_MAX:
            return found[:k]
        most *= 2  # Some were gone: they must not take the place of what is there.


async def _vector(embedder: Embedder | None, query: str) -> bytes | None:
    if embedder is None:
        return None
    try:
        packed = (await embedder.embed([query], query=True))[0]
    except EmbeddingFailed:
        return None
    return packed if len(packed) == size_bytes(embedder.dimensions) else None


async def _read(store: Store, scope: Scope, hits: Sequence[Hit], kept: Filter) -> list[Found]:
    records = await store.records_of([hit.id for hit in hits])
    return [
        Found(record=record, score=hit.score, why=hit.why)
        for hit in hits
        if (record := records.get(hit.id)) is not None and _may_be_seen(record, scope, kept)
    ]


def _without_copies(found: Sequence[Found]) -> list[Found]:
    """Of what says the very same the one with the best label: a question that was asked five times
    takes the place of no answer."""
    best: dict[tuple[str, ...], Found] = {}
    for one in found:
        record = one.record
        said = (record.subject, record.predicate, " ".join(record.text.split()).casefold())
        there = best.get(said)
        if there is None:
            best[said] = one
        elif _rank(record) < _rank(there.record):
            best[said] = replace(one, score=there.score, why=there.why)
    return list(best.values())


def _rank(record: Record) -> int:
    return INTEGRITY_RANK[record.label.integrity]


def _may_be_seen(record: Record, scope: Scope, kept: Filter) -> bool:
    owner = (record.tenant, record.principal, record.agent)
    assert owner == scope.owner, "an index holds its own scope alone"
    superseded = record.superseded_us
    return record.state is RecordState.CURRENT and (
        not superseded
        or record.id in kept.back
        or bool(kept.as_of_us and superseded > kept.as_of_us)
    )


def _check(query: str, k: int) -> None:
    if not 1 <= k <= limits.RECALL_K_MAX:
        raise CallInvalid(
            f"k is {k}.", why=f"1 to {limits.RECALL_K_MAX} can be recalled.", todo="Ask for fewer."
        )
    if not query.strip() or len(query) > limits.RECALL_QUERY_CHARS_MAX:
        raise CallInvalid(
            "The query can't be searched for.",
            why=f"It has {len(query):,} characters; 1 to {limits.RECALL_QUERY_CHARS_MAX:,} are "
            "taken.",
            todo="Ask with a few words.",
        )
