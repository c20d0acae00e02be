"""Recall over a store: of its scope alone, at once, never what is gone, whatever the query is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import journals
from journal_memory import forgotten, note, of_run
from journals import SCOPE
from ring0 import limits
from ring0.errors import CallInvalid
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.memory.index import Indexes
from ring0.memory.recall import recall
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store.sqlite import open_store
from ring0.types import Scope
from simulated import Simulated

OTHER = Scope(tenant="other", principal=SCOPE.principal, agent=SCOPE.agent, run=None)


class Broken:
    """An embedder whose process is gone."""

    name = "broken"
    dimensions = 3

    async def embed(self, texts: object, *, query: bool) -> list[bytes]:
        raise EmbeddingFailed("No vectors.", todo="Look at its log.")

    async def close(self) -> None: ...


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path, Simulated(), write=True)
    yield store
    await store.close()


async def remember(store: Store, run: str, *texts: str, scope: Scope = SCOPE) -> None:
    await store.append(journals.queued(run, scope=scope, remember=False))
    await store.append(journals.moved(run, epoch=1))
    key = await store.scope_key(scope.owner)
    for text in texts:
        await store.append(of_run(run, [note(text)], scope_key=key))


async def found(
    store: Store, indexes: Indexes, query: str, scope: Scope = SCOPE, **how: object
) -> list[tuple[str, float]]:
    hits = await recall(indexes, store, None, scope, query, k=10, **how)  # type: ignore[arg-type]
    return [(hit.record.text, hit.score) for hit in hits]


async def test_what_was_acknowledged_is_found_at_once(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-1", "the boat is in the harbour")
    assert [text for text, _ in await found(store, indexes, "boats")] == [
        "the boat is in the harbour"
    ]
    await remember(store, "r-2", "a second boat")
    assert len(await found(store, indexes, "boats")) == 2


async def test_no_hit_and_no_score_moves_with_another_scopes_data(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-1", "the boat is in the harbour", "an invoice for the boat")
    before = await found(store, indexes, "boat invoice")
    await remember(store, "r-2", *["boat invoice boat"] * 30, scope=OTHER)
    assert await found(store, indexes, "boat invoice") == before
    assert await found(store, Indexes(store, Runtime()), "boat invoice") == before
    assert {text for text, _ in await found(store, indexes, "boat harbour", OTHER)} == {
        "boat invoice boat"
    }


async def test_what_was_forgotten_is_not_found_though_an_index_still_has_it(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-1", "the boat", "the other boat")
    hits = await recall(indexes, store, None, SCOPE, "boat", k=10)
    gone = next(hit.record for hit in hits if hit.record.text == "the boat")
    await store.append(forgotten(gone.id))
    assert [text for text, _ in await found(store, indexes, "boat")] == ["the other boat"]
    indexes.forget(SCOPE.owner)
    alone = Indexes(store, Runtime())
    assert await found(store, indexes, "boat") == await found(store, alone, "boat")


async def test_records_are_found_by_their_words_where_no_vector_can_be_made(store: Store) -> None:
    await remember(store, "r-1", "the boat")
    hits = await recall(Indexes(store, Runtime()), store, Broken(), SCOPE, "boat", k=1)
    assert [hit.record.text for hit in hits] == ["the boat"]


async def test_of_one_run_only_what_it_wrote(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-1", "the boat")
    await remember(store, "r-2", "my boat")
    of_one = Scope(tenant=SCOPE.tenant, principal=SCOPE.principal, agent=SCOPE.agent, run="r-2")
    assert [text for text, _ in await found(store, indexes, "boat", of_one)] == ["my boat"]


async def test_hostile_queries_find_nothing_and_break_nothing(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-1", "the boat")
    for query in ('"', "boat OR NEAR(", "\0\0", "!?" * 900, "mango " * 300, "\ud800", "* -"):
        assert all(text == "the boat" for text, _ in await found(store, indexes, query))
    for query in ("", "   ", "x" * (limits.RECALL_QUERY_CHARS_MAX + 1)):
        with pytest.raises(CallInvalid):
            await found(store, indexes, query)
    with pytest.raises(CallInvalid):
        await recall(indexes, store, None, SCOPE, "boat", k=0)


async def test_indexes_keep_to_their_bound_and_find_the_same_without(store: Store) -> None:
    small = Indexes(store, Runtime(), size_bytes_max=1)
    await remember(store, "r-1", "the boat")
    await remember(store, "r-2", "the boat", scope=OTHER)
    for scope in (SCOPE, OTHER, SCOPE):
        assert [text for text, _ in await found(store, small, "boat", scope)] == ["the boat"]
        assert len(small) == 1


async def test_searches_and_appends_at_the_same_time_agree(store: Store) -> None:
    indexes = Indexes(store, Runtime())
    await remember(store, "r-0", "the boat")

    async def searches() -> None:
        for _ in range(10):
            assert "the boat" in {text for text, _ in await found(store, indexes, "boat")}

    async def writes(number: int) -> None:
        await remember(store, f"r-{number}", "orchid", "mango")

    await asyncio.gather(*(searches() for _ in range(4)), *(writes(n) for n in range(1, 6)))
    alone = Indexes(store, Runtime())
    assert await found(store, indexes, "orchid") == await found(store, alone, "orchid")
