"""What is found: R@5, R@10, R@20 and MRR by category, for ring0 and its rivals, with time and CPU.

Each conversation is a scope. The ranker of a conversation is one that never saw it: where it was
among those that the shipped one was trained on, one that was trained on the others.
"""

from __future__ import annotations

import functools
import lzma
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec
import numpy as np

from bench.memory import locomo
from bench.memory.embedding import Vectors
from bench.rows import Row, row, spread
from ring0.memory import ranker
from ring0.memory.embedding.offlinemodels import MINILM, STATIC
from ring0.memory.index import Filter
from ring0.memory.index.question import question_of

MOST = 100
GATES = {
    "ring0": {"r@10": (0.75, 0.80)},
    "ring0 with ranker": {"r@5": (0.71, 0.76), "r@10": (0.79, 0.84), "mrr": (0.62, 0.68)},
}
"""Gate and aim."""
_FIGURES = ("r@5", "r@10", "r@20", "mrr")
_WORD = re.compile(r"\w+")

Search = Callable[[locomo.Asked], list[int]]


class Result(NamedTuple):
    measured: list[locomo.Measured]
    wall_s: list[float]
    cpu_s: float


def rows(path: str) -> list[Row]:
    """Raises InvalidInput."""
    conversations = locomo.read(path)
    found, notes = _measured(conversations)
    told: list[Row] = []
    for name, result in found.items():
        told += _figures(name, result)
        told += spread(f"{name}: a query", result.wall_s)
        cpu_ms = result.cpu_s / len(result.wall_s) * 1e3
        told.append(row(f"{name}: a query, CPU", cpu_ms, "ms", len(result.wall_s)))
    return [*told, *notes, *_table(found)]


def _measured(conversations: Sequence[locomo.Conversation]) -> tuple[dict[str, Result], list[Row]]:
    results: dict[str, Result] = {}
    embedded_s = cpu_s = 0.0
    texts = 0
    for conversation in conversations:
        turns = locomo.embedded_turns(conversation)
        asked = [one.question for one in conversation.asked]
        with Vectors(MINILM) as model:
            wide = model.of(turns)
            begun, before = time.perf_counter(), model.cpu_s()
            vectors = np.concatenate([model.of([one]) for one in asked])
            embedded_s += time.perf_counter() - begun
            cpu_s += model.cpu_s() - before
            texts += len(asked)
        for name, search in _searches(conversation, wide, vectors).items():
            _add(results, name, _asked(conversation, search))
    notes = [
        row("embedding of a query, in its process", embedded_s / texts * 1e3, "ms", texts),
        row("embedding of a query, CPU", cpu_s / texts * 1e3, "ms", texts),
    ]
    return results, notes


def _searches(conversation: locomo.Conversation, wide: Any, vectors: Any) -> dict[str, Search]:
    index = locomo.index_of(conversation, wide)
    words_only = locomo.index_of(conversation, None)
    of = {one: vectors[place] for place, one in enumerate(conversation.asked)}
    trees = _trees(conversation)

    def ours(asked: locomo.Asked, **how: Any) -> list[int]:
        hits = index.search(question_of(asked.question, of[asked]), Filter(), MOST, **how)
        return [locomo.place_of(hit.id) for hit in hits]

    def words(asked: locomo.Asked) -> list[int]:
        hits = words_only.search(question_of(asked.question, None), Filter(), MOST)
        return [locomo.place_of(hit.id) for hit in hits]

    def dense(asked: locomo.Asked) -> list[int]:
        return _order(wide @ of[asked])

    searches: dict[str, Search] = {
        "FTS5, raw bm25()": _fts5(conversation),
        "BM25": _bm25(conversation),
        "dense": dense,
        "ring0, words alone": words,
        "ring0": functools.partial(ours, trained=False),
        "ring0 with ranker": functools.partial(ours, trained=True, trees=trees),
    }
    try:
        searches |= _static(conversation)
    except LookupError:
        pass
    return searches


def _static(conversation: locomo.Conversation) -> dict[str, Search]:
    """With vectors of the extra `static`, alone and fused; the ranker knows MiniLM's only. Raises
    LookupError."""
    with Vectors(STATIC) as model:
        turns = model.of(locomo.embedded_turns(conversation))
        asked = model.of([one.question for one in conversation.asked])
    of = {one: asked[place] for place, one in enumerate(conversation.asked)}
    index = locomo.index_of(conversation, turns, STATIC)

    def fused(one: locomo.Asked) -> list[int]:
        hits = index.search(question_of(one.question, of[one]), Filter(), MOST)
        return [locomo.place_of(hit.id) for hit in hits]

    return {"dense, static": lambda one: _order(turns @ of[one]), "ring0, static": fused}


def _bm25(conversation: locomo.Conversation) -> Search:
    """Of single turns, `who: what`: textbook, from the postings that ring0 has."""
    index = locomo.index_of(conversation, None)
    lengths = index.columns["length"]
    norm = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())

    def search(asked: locomo.Asked) -> list[int]:
        scores = np.zeros(len(index))
        for word in question_of(asked.question, None).words:
            places, counts = index.postings.of(word)
            idf = np.log1p((len(index) - len(places) + 0.5) / (len(places) + 0.5))
            scores[places] += idf * counts * 2.2 / (counts + norm[places])
        return _order(scores)

    return search


def _fts5(conversation: locomo.Conversation) -> Search:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5 (text, tokenize = 'porter unicode61')")
    connection.executemany(
        "INSERT INTO t (rowid, text) VALUES (?, ?)",
        [(n, f"{turn.speaker}: {turn.text}") for n, turn in enumerate(conversation.turns)],
    )

    def search(asked: locomo.Asked) -> list[int]:
        said = " OR ".join(f'"{word}"' for word in dict.fromkeys(_WORD.findall(asked.question)))
        found = connection.execute(
            "SELECT rowid FROM t WHERE t MATCH ? ORDER BY bm25(t), rowid LIMIT ?", (said, MOST)
        )
        return [place for (place,) in found]

    return search


def _trees(conversation: locomo.Conversation) -> ranker.Trees:
    """That never saw it. Raises KeyError."""
    shipped = ranker.shipped()
    if conversation.digest not in shipped.about["conversations"]:
        return shipped
    return _without()[conversation.digest]


@functools.cache
def _without() -> dict[str, ranker.Trees]:
    held = Path(__file__).with_name("ranker_without.json.xz").read_bytes()
    return msgspec.json.decode(lzma.decompress(held), type=dict[str, ranker.Trees])


def _asked(conversation: locomo.Conversation, search: Search) -> Result:
    measured, wall_s = [], []
    search(conversation.asked[0])
    cpu_begun = time.process_time()
    for one in conversation.asked:
        begun = time.perf_counter()
        ranked = search(one)
        wall_s.append(time.perf_counter() - begun)
        measured.append(locomo.measured(one, ranked))
    return Result(measured, wall_s, time.process_time() - cpu_begun)


def _add(results: dict[str, Result], name: str, more: Result) -> None:
    before = results.get(name, Result([], [], 0.0))
    results[name] = Result(
        before.measured + more.measured, before.wall_s + more.wall_s, before.cpu_s + more.cpu_s
    )


def _order(scores: Any) -> list[int]:
    return np.argsort(-scores, kind="stable")[:MOST].tolist()  # type: ignore[no-any-return]


def _figures(name: str, result: Result) -> list[Row]:
    told = []
    for figure, value in _means(result.measured).items():
        gate, aim = GATES.get(name, {}).get(figure, (0.0, 0.0))
        beside = f"gate {gate}, aim {aim}" if gate else ""
        told.append(row(f"{name}: {figure}", value, "", len(result.measured), beside))
    return told


def _means(measured: Sequence[locomo.Measured]) -> dict[str, float]:
    if not measured:
        return dict.fromkeys(_FIGURES, 0.0)
    means = np.array([one[1:] for one in measured]).mean(axis=0)
    return dict(zip(_FIGURES, (float(mean) for mean in means), strict=True))


def _table(results: dict[str, Result]) -> list[Row]:
    """By category, a line each."""
    told = []
    for category, called in locomo.CATEGORIES.items():
        for name, result in results.items():
            mine = [one for one in result.measured if one.category == category]
            said = "  ".join(f"{key} {value:.3f}" for key, value in _means(mine).items())
            told.append(row(f"  {called:<12} {name:<20} {said}", 0, "", len(mine)))
    return told
