"""Which records hold a word, and how often: sorted arrays, appended to in segments.

A segment is never changed; small ones are merged as they come, so that a record is moved no more
than O(log n) times. Not scores: scoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ring0.store.terms import DTYPE, WORD_BYTES

Numbers = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float32]

_MERGE_FROM: Final = 2
"""A segment that is less than so many times as large as the newer one is merged with it."""
_NOTHING: Final = (np.zeros(0, np.int32), np.zeros(0, np.float32))


class _Segment(NamedTuple):
    words: npt.NDArray[np.uint64]
    """Ascending, each once."""
    begins: Numbers
    """Where the postings of each word begin, and behind them the end."""
    places: npt.NDArray[np.int32]
    counts: Counts

    @property
    def size_bytes(self) -> int:
        return int(sum(array.nbytes for array in self))


class Postings:
    """Of the records of one scope, by their place in it."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self._segments)

    def append(
        self, first: int, packed: Sequence[bytes], also: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.int32]:
        """Records that lie at `first` and behind it: their words (`Terms.packed`), and further
        hashes of each. How many words each has that differ."""
        held = np.frombuffer(b"".join(packed), dtype=DTYPE)
        each = np.array([len(one) // WORD_BYTES for one in packed], np.int64)
        more = np.array([len(one) for one in also], np.int64)
        places = np.arange(first, first + len(packed), dtype=np.int32)
        words = np.concatenate(
            [held["hash"], np.array([word for one in also for word in one], np.uint64)]
        )
        all_places = np.concatenate([np.repeat(places, each), np.repeat(places, more)])
        counts = np.concatenate(
            [held["count"].astype(np.float32), np.ones(int(more.sum()), np.float32)]
        )
        made = _segment(words, all_places, counts)
        while self._segments and len(self._segments[-1].places) < _MERGE_FROM * len(made.places):
            made = _merged(self._segments.pop(), made)
        self._segments.append(made)
        return each.astype(np.int32)

    def of(self, word: int) -> tuple[npt.NDArray[np.int32], Counts]:
        """Where the word is, ascending, each place once; and how often."""
        found = []
        wanted = np.uint64(word)
        for one in self._segments:
            at = int(np.searchsorted(one.words, wanted))
            if at < len(one.words) and one.words[at] == wanted:
                held = slice(int(one.begins[at]), int(one.begins[at + 1]))
                found.append((one.places[held], one.counts[held]))
        if not found:
            return _NOTHING
        if len(found) == 1:
            return found[0]
        return (
            np.concatenate([places for places, _ in found]),
            np.concatenate([counts for _, counts in found]),
        )


def _segment(
    words: npt.NDArray[np.uint64], places: npt.NDArray[np.int32], counts: Counts
) -> _Segment:
    order = np.lexsort((places, words))
    words, places, counts = words[order], places[order], counts[order]
    if len(words):
        # The same word twice at one place: in the text and in what was added.
        new = np.concatenate([[True], (words[1:] != words[:-1]) | (places[1:] != places[:-1])])
        starts = np.flatnonzero(new)
        words, places, counts = words[starts], places[starts], np.add.reduceat(counts, starts)
    return _grouped(words, places, counts)


def _grouped(words: npt.NDArray[np.uint64], places: Any, counts: Any) -> _Segment:
    if not len(words):
        return _Segment(words, np.zeros(1, np.int64), places, counts)
    first = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))
    return _Segment(words[first], np.append(first, len(words)), places, counts)


def _merged(older: _Segment, newer: _Segment) -> _Segment:
    """All places of the older one lie before those of the newer one: a stable sort is enough."""
    words = np.concatenate([np.repeat(one.words, np.diff(one.begins)) for one in (older, newer)])
    order = np.argsort(words, kind="stable")
    places = np.concatenate([older.places, newer.places])[order]
    counts = np.concatenate([older.counts, newer.counts])[order]
    return _grouped(words[order], places, counts)
