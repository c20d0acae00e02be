"""Scopes are strangers: random queries over 101 of them find nothing of another, and neither scores
nor times of one move with what the others hold.

All of it by way of `Memory.recall` over a journal on disk, with the vectors in memory (`exact`)
and in LanceDB (`lance`, where the extra is installed). What a record says tells whose it is: the
owner that the store names is not asked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.memory import kept
from bench.memory.scale import RIVAL, SHARES, fts5, search_fts5, texts
from bench.rows import Row, percentile, row, spread
from ring0.kernel.memory.manager import Memory
from ring0.kernel.memory.placing import fill
from ring0.memory.vectors.lance import LanceVectors
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.types import Owner

SCOPES, IN_EACH = 101, 1_000
QUERIES = {"exact": 90_000, "lance": 10_000}
COMPARED = 1_000
"""Of one scope, with and without the others."""
TIMED = 500
ASKED = 2_000
K = 5


class Asked(NamedTuple):
    """What queries found."""

    queries: int
    leaks: int
    """Hits whose text another scope holds."""
    hits: int


def rows() -> list[Row]:
    """A few minutes."""
    queries = dict(QUERIES)
    if importlib.util.find_spec("lancedb") is None:
        del queries["lance"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("RING0_BENCH_DIR")) as folder:
        return asyncio.run(_rows(Path(folder), queries, IN_EACH))


async def _rows(place: Path, queries: dict[str, int], in_each: int) -> list[Row]:
    alone, together = kept.opened(place / "alone"), kept.opened(place / "together")
    held = {owner_of(number): texts(in_each, 100 + number) for number in range(SCOPES)}
    mine = owner_of(0)
    # The others' records lie before, between and behind its own.
    half = in_each // 2
    await kept.fill(alone, mine, held[mine][:half], "m-first")
    for number, (owner, made) in enumerate(held.items()):
        if number == SCOPES // 2:
            await kept.fill(together, mine, held[mine][:half], "m-first")
        if owner != mine:
            await kept.fill(together, owner, made, f"m-of-{number}")
    for store in (alone, together):
        await kept.fill(store, mine, held[mine][half:], "m-second")
        await kept.index_all(store, vectors=True)
    told: list[Row] = []
    try:
        for backend, count in queries.items():
            pair = [await memory_of(store, backend, place) for store in (alone, together)]
            try:
                told += await _backend(backend, pair[0], pair[1], held, count)
            finally:
                for memory in pair:
                    for vectors in memory.indexes.places.values():
                        await vectors.close()
    finally:
        await alone.close()
        await together.close()
    return [*told, *await _rival(held, mine)]


def owner_of(number: int) -> Owner:
    """They differ in one name each: tenant, principal or agent."""
    names = ["acme", "ann", "clerk"]
    names[number % 3] += f"-{number}"
    return names[0], names[1], names[2]


async def memory_of(store: Store, backend: str, place: Path) -> Memory:
    memory = kept.memory_over(store)
    if backend == "lance":
        folder = place / f"lance-{id(store)}"
        vectors = LanceVectors(folder, kept.DIMENSIONS, Runtime())
        await fill(store, vectors, kept.Drawn.name)
        memory.indexes.places = {kept.Drawn.name: vectors}
    return memory


async def _backend(
    backend: str, alone: Memory, together: Memory, held: dict[Owner, list[str]], count: int
) -> list[Row]:
    found = await asked_at_random(together, held, count)
    mine = owner_of(0)
    moved = await answers_moved(alone, together, mine, min(COMPARED, count))
    queries = texts(TIMED, 78)

    def of(memory: Memory) -> Callable[[int], Awaitable[object]]:
        return lambda number: memory.recall(kept.scope_of(mine), queries[number], k=K)

    before, after = await _in_turns(of(alone), of(together))
    assert found.hits, "queries that find nothing leak nothing"
    return [
        row(f"{backend}: hits of another scope", found.leaks, "hits", found.queries),
        row(f"{backend}: answers moved by others' data", moved, "answers", min(COMPARED, count)),
        *_times(backend, before, after, len(held), len(held[mine]), RIVAL),
    ]


async def asked_at_random(memory: Memory, held: dict[Owner, list[str]], count: int) -> Asked:
    """`held`: what each scope was given."""
    luck = np.random.default_rng(9)
    owners = list(held)
    own = {owner: frozenset(made) for owner, made in held.items()}
    queries = [" ".join(text.split()[:8]) for text in texts(ASKED, 77)]
    leaks = hits = 0
    for _ in range(count):
        owner = owners[int(luck.integers(len(owners)))]
        query = queries[int(luck.integers(ASKED))]
        found = await memory.recall(kept.scope_of(owner), query, k=K)
        hits += len(found)
        leaks += sum(one.record.text not in own[owner] for one in found)
    return Asked(count, leaks, hits)


async def answers_moved(alone: Memory, together: Memory, owner: Owner, count: int) -> int:
    """How many answers are not the same, text by text and score by score, to the last bit."""
    moved = 0
    for query in texts(count, 79):
        told = []
        for memory in (alone, together):
            found = await memory.recall(kept.scope_of(owner), query, k=K)
            told.append([(one.record.text, one.score, one.why) for one in found])
        moved += told[0] != told[1]
    return moved


async def _in_turns(
    one: Callable[[int], Awaitable[object]], other: Callable[[int], Awaitable[object]]
) -> tuple[list[float], list[float]]:
    """The same queries, by turns, so that a noisy moment is noisy for both."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(TIMED):
        for side in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            await (one, other)[side](number)
            took[side].append(time.perf_counter() - begun)
    return took


def _times(
    name: str, before: list[float], after: list[float], scopes: int, in_each: int, rival: str = ""
) -> list[Row]:
    others = (scopes - 1) * in_each
    ratio = percentile(after, 0.5) / percentile(before, 0.5)
    return [
        *spread(f"{name}: a query, others hold 0", before, "", SHARES),
        *spread(f"{name}: a query, others hold {others:,}", after, rival, SHARES),
        row(f"{name}: p50 with others' data, to without", ratio, "times", TIMED, rival),
    ]


async def _rival(held: dict[Owner, list[str]], mine: Owner) -> list[Row]:
    few = fts5([(held[mine], "/".join(mine))])
    many = fts5([(made, "/".join(owner)) for owner, made in held.items()])
    queries = texts(TIMED, 78)

    async def of_few(number: int) -> object:
        return search_fts5(few, "/".join(mine), queries[number])

    async def of_many(number: int) -> object:
        return search_fts5(many, "/".join(mine), queries[number])

    before, after = await _in_turns(of_few, of_many)
    return _times(RIVAL, before, after, len(held), len(held[mine]))
