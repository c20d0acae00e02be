"""How well each record of a scope fits a query: channels of evidence, fused convexly.

Words: BM25 (Robertson & Zaragoza 2009) over a record and, at half weight, its two neighbours in the
same thread; and over whole threads. Meaning: the cosine of vectors, of a record and of those beside
it. Structure: who spoke, when, the best of its thread. Each channel is scaled by its best record
that may be seen, then summed with WEIGHTS. (Summing ranks, RRF, is worse than BM25 alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ring0.memory.index.columns import NOWHERE, Columns, Matrix
from ring0.memory.index.postings import Postings
from ring0.memory.index.question import Question
from ring0.memory.structure import Days, day_begins_us

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

K1: Final = 1.2
B: Final = 0.4
"""Turns and results are of one kind however long they are: length counts for less than in prose."""
SESSION_B: Final = 0.75
BESIDE: Final = 0.5
"""What a word in a neighbour counts, of one in the record itself."""

WEIGHTS: Final = {
    "words": 1.1,
    "meaning": 0.8,
    "speaker": 0.7,
    "beside": 0.3,
    "answered": 0.3,
    "thread": 0.3,
    "thread_words": 0.3,
    "when": 0.8,
}
"""Chosen by hand on five conversations of LoCoMo; nothing was trained. `answered`: the meaning of
what follows it: a question is found by its answer."""
_MEANING_IN_BASE: Final = 0.8


class WordCounts(NamedTuple):
    """Where one word of a query is, of what may be seen."""

    places: npt.NDArray[np.int32]
    counts: Scores
    idf: float
    word: int


class Channels(NamedTuple):
    """By name: a figure a record, best 1 (`speaker` and `when` are as they are)."""

    of: dict[str, Scores]
    fused: Scores
    words: list[WordCounts]


def channels(
    question: Question,
    columns: Columns,
    postings: Postings,
    matrix: Matrix | None,
    seen: Mask,
    role_words: Sequence[frozenset[int]],
) -> Channels:
    """Of every record; what may not be seen (`seen`) scores nothing and lends nothing.

    `role_words`: by number of role, the words of it that name somebody.
    """
    count = columns.count
    words = _found(question, columns, postings, seen)
    of = {"words": _scaled(_windowed(words, columns), seen)}
    of["thread_words"] = _scaled(_threads(words, columns), seen)
    base = of["words"]
    if question.vector is not None and matrix is not None and matrix.there.any():
        meaning = _meaning(question.vector, matrix, seen)
        of["meaning"] = meaning
        before, after = _shifted(meaning, columns)
        of["beside"] = _scaled(np.maximum(before, after), seen)
        of["answered"] = _scaled(after, seen)
        base = of["words"] + _MEANING_IN_BASE * meaning
    of["thread"] = _best_of_thread(_scaled(base, seen), columns, seen)
    of["speaker"] = _speaker(question, columns, role_words, seen)
    if question.days:
        of["when"] = _when(question.days, columns, seen)
    fused = np.zeros(count, np.float32)
    for name, scores in of.items():
        fused += np.float32(WEIGHTS[name]) * scores
    return Channels(of, fused, words)


def _found(
    question: Question, columns: Columns, postings: Postings, seen: Mask
) -> list[WordCounts]:
    found = []
    everything = bool(seen.all())
    for word in question.words:
        places, counts = postings.of(word)
        if not len(places):
            continue
        # How rare a word is, is of the whole scope: the same for whoever searches it.
        idf = float(np.log1p((columns.count - len(places) + 0.5) / (len(places) + 0.5)))
        if not everything:
            kept = seen[places]
            places, counts = places[kept], counts[kept]
        found.append(WordCounts(places, counts, idf, word))
    return found


def _windowed(words: Sequence[WordCounts], columns: Columns) -> Scores:
    scores = np.zeros(columns.count, np.float32)
    previous, following = columns["previous"], columns["next"]
    before, after = _shifted(columns["length"], columns)
    lengths = columns["length"] + np.float32(BESIDE) * (before + after)
    norm = _norm(lengths, float(columns["length"].mean()) if columns.count else 0.0, B)
    # One place more than there are records: where neighbours that are not there fall.
    room = np.zeros(columns.count + 1, np.float32)
    for one in words:
        room[:] = 0
        room[one.places] = one.counts
        beside = np.float32(BESIDE) * one.counts
        # Each place is the neighbour of one other: no two of them meet within a line.
        room[previous[one.places]] += beside
        room[following[one.places]] += beside
        # NOWHERE is the last place, which is no record.
        counted = room[:-1]
        scores += np.float32(one.idf * (K1 + 1)) * counted / (counted + norm)
    return scores


def _norm(lengths: Scores, mean: float, b: float) -> Scores:
    return np.asarray(K1 * (1 - b + b * lengths / (mean or 1.0)), np.float32)


def _threads(words: Sequence[WordCounts], columns: Columns) -> Scores:
    """BM25 of each record's whole thread."""
    count = len(columns.sessions.names)
    session = columns["session"]
    if count < 2:
        return np.zeros(columns.count, np.float32)
    lengths = np.bincount(session, weights=columns["length"], minlength=count)
    norm = _norm(lengths.astype(np.float32), float(lengths.mean()), SESSION_B)
    scores = np.zeros(count, np.float32)
    for one in words:
        counted = np.bincount(session[one.places], weights=one.counts, minlength=count)
        held = float(np.count_nonzero(counted))
        idf = np.log1p((count - held + 0.5) / (held + 0.5))
        scores += (idf * counted * (K1 + 1) / (counted + norm)).astype(np.float32)
    return np.asarray(scores[session])


def _meaning(vector: npt.NDArray[np.float32], matrix: Matrix, seen: Mask) -> Scores:
    likeness: Scores = matrix.rows @ vector
    known = matrix.there & seen
    if not known.all():
        # Of what has no vector yet nobody knows: neither better nor worse than what is usual.
        usual = float(likeness[known].mean()) if known.any() else 0.0
        likeness = np.where(matrix.there, likeness, np.float32(usual))
    return _scaled(np.where(seen, np.maximum(likeness, 0), np.float32(0)), seen)


def _shifted(values: Scores, columns: Columns) -> tuple[Scores, Scores]:
    """Of the record before each in its thread, and of the one behind it; 0: there is none."""
    room = np.append(values, np.float32(0))
    return room[columns["previous"]], room[columns["next"]]


def _best_of_thread(base: Scores, columns: Columns, seen: Mask) -> Scores:
    best = np.zeros(len(columns.sessions.names), np.float32)
    np.maximum.at(best, columns["session"], base)
    return np.where(seen, best[columns["session"]], np.float32(0))


def _speaker(
    question: Question, columns: Columns, role_words: Sequence[frozenset[int]], seen: Mask
) -> Scores:
    asked = frozenset(question.words)
    flags = np.array([bool(asked & words) for words in role_words], np.bool_)
    if not flags.any():
        return np.zeros(columns.count, np.float32)
    return np.asarray(flags[columns["role"]] & seen, np.float32)


def _when(days: Days, columns: Columns, seen: Mask) -> Scores:
    fits = np.array([days.fit(day_begins_us(day)) for day in columns.days.names], np.float32)
    return np.where(seen, fits[columns["day"]], np.float32(0))


def _scaled(scores: Any, seen: Mask) -> Scores:
    """By the best that may be seen; nothing of the rest is left."""
    kept = np.where(seen, scores, np.float32(0)).astype(np.float32, copy=False)
    best = float(kept.max()) if len(kept) else 0.0
    return np.asarray(kept / np.float32(best), np.float32) if best > 0 else kept


assert NOWHERE == -1, "the last place of an array that is one longer"
