"""What recall takes at 10,000 and 100,000 records a scope, and with 1,000 scopes of 100.

Records are made from a seed: words by Zipf's law, threads of 40, vectors of 384 numbers. Beside it:
FTS5 with a column for the scope, and numpy over all vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt

from bench.rows import Row, row, spread
from ring0.memory.embedding.vectors import pack_all
from ring0.memory.index import Filter, ScopeIndex
from ring0.memory.index.question import question_of
from ring0.store.rows import Loaded
from ring0.store.terms import terms_of

SIZES = (10_000, 100_000)
SCOPES, IN_EACH = 1_000, 100
QUERIES = 200
THREAD = 40
WORDS = 20_000
DIMENSIONS = 384
LENGTH = 25
KEPT = 10
RIVAL = "FTS5 with a scope column"
SHARES = (0.50, 0.95, 0.99)
GATE = "gate 60, aim 30"
"""p95, in milliseconds, at 100,000 records."""


def rows() -> list[Row]:
    told: list[Row] = []
    for count in SIZES:
        told += _of_one(count)
    return told + _of_many()


def texts(count: int, seed: int) -> list[str]:
    """Words by Zipf's law."""
    luck = np.random.default_rng(seed)
    chosen = luck.zipf(1.3, size=(count, LENGTH)) % WORDS
    return [" ".join(f"w{word}x" for word in line) for line in chosen.tolist()]


def loaded(made: list[str], seed: int, first: int = 1) -> list[Loaded]:
    luck = np.random.default_rng(seed)
    vectors = pack_all(luck.standard_normal((len(made), DIMENSIONS), np.float32))
    found = []
    for place, text in enumerate(made):
        terms = terms_of(text)
        number = first + place
        found.append(
            Loaded(
                number=number,
                id=f"r-{number // THREAD}#{number % THREAD}",
                kind="episode",
                role="result",
                session=f"r-{number // THREAD}",
                act=f"r-{number // THREAD}",
                at_us=number,
                happened_us=0,
                state="current",
                superseded_us=0,
                valid_from_us=0,
                valid_to_us=0,
                integrity=0,
                terms=terms.packed,
                length=terms.length,
                vector=vectors[place],
                text=None,
            )
        )
    return found


def _of_one(count: int) -> list[Row]:
    made = texts(count, 1)
    begun = time.perf_counter()
    records = loaded(made, 2)
    told_s = time.perf_counter() - begun
    index = ScopeIndex("bench", DIMENSIONS)
    begun = time.perf_counter()
    index.append(records)
    cold_s = time.perf_counter() - begun
    name = f"{count:,} records"
    singly = _singly(index, count)
    told = [
        row(f"{name}: words and packing of a record", told_s / count * 1e6, "µs", count),
        row(f"{name}: cold index, from rows", cold_s, "s", 1),
        row(f"{name}: a record more", singly * 1e6, "µs", QUERIES),
        row(f"{name}: index in memory", index.size_bytes / 1e6, "MB", 1),
    ]
    asked = _asked()
    told += spread(
        f"{name}: recall, words and vectors",
        _times(lambda place: index.search(question_of(*asked[place]), Filter(), KEPT)),
        f"{RIVAL}; p95: {GATE}" if count == SIZES[-1] else RIVAL,
        SHARES,
    )
    told += spread(
        f"{name}: recall, words alone",
        _times(lambda place: index.search(question_of(asked[place][0], None), Filter(), KEPT)),
        RIVAL,
        SHARES,
    )
    assert index.matrix is not None
    wide = index.matrix.rows
    told += spread(
        f"{name}: numpy over all vectors",
        _times(lambda place: np.argpartition(-(wide @ asked[place][1]), KEPT)),
        shares=SHARES,
    )
    connection = fts5([(made, "one")])
    told += spread(
        f"{name}: {RIVAL}",
        _times(lambda place: search_fts5(connection, "one", asked[place][0])),
        shares=SHARES,
    )
    return told


def _of_many() -> list[Row]:
    """1,000 scopes: a query goes to one of them."""
    indexes, held = [], []
    for scope in range(SCOPES):
        made = texts(IN_EACH, 10 + scope)
        index = ScopeIndex("bench", DIMENSIONS)
        index.append(loaded(made, 20 + scope))
        indexes.append(index)
        held.append((made, f"scope {scope}"))
    asked = _asked()
    name = f"{SCOPES:,} scopes of {IN_EACH}"
    size_bytes = sum(index.size_bytes for index in indexes)
    told = [row(f"{name}: indexes in memory", size_bytes / 1e6, "MB", SCOPES)]
    told += spread(
        f"{name}: recall",
        _times(
            lambda place: indexes[place * 7 % SCOPES].search(
                question_of(*asked[place]), Filter(), KEPT
            )
        ),
        RIVAL,
        SHARES,
    )
    connection = fts5(held)
    told += spread(
        f"{name}: {RIVAL}",
        _times(
            lambda place: search_fts5(connection, f"scope {place * 7 % SCOPES}", asked[place][0])
        ),
        shares=SHARES,
    )
    return told


def _asked() -> list[tuple[str, npt.NDArray[np.float32]]]:
    luck = np.random.default_rng(5)
    wide = luck.standard_normal((QUERIES, DIMENSIONS), np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    queries = [" ".join(text.split()[:10]) for text in texts(QUERIES, 6)]
    return list(zip(queries, wide, strict=True))


def _times(search: Callable[[int], Any]) -> list[float]:
    search(0)
    taken = []
    for place in range(QUERIES):
        begun = time.perf_counter()
        search(place)
        taken.append(time.perf_counter() - begun)
    return taken


def _singly(index: ScopeIndex, count: int) -> float:
    """Records that come one at a time."""
    more = loaded(texts(QUERIES, 3), 4, first=count + 1)
    begun = time.perf_counter()
    for one in more:
        index.append([one])
    return (time.perf_counter() - begun) / len(more)


def fts5(held: list[tuple[list[str], str]]) -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE t USING fts5 (text, scope UNINDEXED, tokenize = 'porter unicode61')"
    )
    with connection:
        for made, scope in held:
            connection.executemany("INSERT INTO t VALUES (?, ?)", [(one, scope) for one in made])
    return connection


def search_fts5(connection: apsw.Connection, scope: str, query: str) -> list[Any]:
    said = " OR ".join(f'"{word}"' for word in dict.fromkeys(query.split()))
    return connection.execute(
        "SELECT rowid FROM t WHERE t MATCH ? AND scope = ? ORDER BY bm25(t) LIMIT ?",
        (said, scope, KEPT),
    ).fetchall()
