"""Scopes are strangers: random queries across them find nothing of another, and no score of one
moves with what another holds."""

from __future__ import annotations

import time

import numpy as np

from bench.memory.scale import loaded, texts
from bench.rows import Row, row, spread
from ring0.memory.index import Filter, ScopeIndex
from ring0.memory.index.question import question_of

SCOPES, IN_EACH = 50, 100
COMPARED_EVERY = 50


def rows(queries: int) -> list[Row]:
    """Every scope holds the same words; each id says whose it is."""
    indexes = []
    for scope in range(SCOPES):
        made = loaded(texts(IN_EACH, scope), scope)
        index = ScopeIndex("bench", 384)
        index.append([one._replace(id=f"scope-{scope}{one.id}") for one in made])
        indexes.append(index)
    alone = loaded(texts(IN_EACH, 0), 0)
    by_itself = ScopeIndex("bench", 384)
    by_itself.append([one._replace(id=f"scope-0{one.id}") for one in alone])
    luck = np.random.default_rng(9)
    asked = texts(1_000, 77)
    vectors = luck.standard_normal((1_000, 384), np.float32)
    leaks = moved = compared = 0
    taken = []
    for number in range(queries):
        place = int(luck.integers(1_000))
        scope = int(luck.integers(SCOPES))
        question = question_of(asked[place], vectors[place])
        begun = time.perf_counter()
        hits = indexes[scope].search(question, Filter(), 10)
        taken.append(time.perf_counter() - begun)
        leaks += sum(not hit.id.startswith(f"scope-{scope}r-") for hit in hits)
        if number % COMPARED_EVERY == 0:
            compared += 1
            mine = indexes[0].search(question, Filter(), 10)
            moved += mine != by_itself.search(question, Filter(), 10)
    return [
        row("hits of another scope", leaks, "hits", queries),
        row("answers that moved with other scopes' data", moved, "answers", compared),
        *spread("a query", taken),
    ]
