"""The index of one scope: what it holds, what of it may be seen, the best of it for a query.

Independent of the store: rows come in by `append`, vectors that come later by `fill`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ring0 import limits
from ring0.memory import ranker
from ring0.memory.embedding.vectors import unpack_all
from ring0.memory.index.columns import Columns, Matrix
from ring0.memory.index.near import ALONG, matrix_of
from ring0.memory.index.postings import Postings
from ring0.memory.index.question import Question
from ring0.memory.index.scoring import WEIGHTS, Channels, Mask, channels
from ring0.memory.structure import is_name
from ring0.store.rows import Loaded
from ring0.store.terms import hash_of, terms_of, words_of
from ring0.types import Frozen, MemoryKind, RecordState


class Filter(Frozen, frozen=True, kw_only=True):
    """What may be seen; all of it holds before anything is scored."""

    kinds: tuple[MemoryKind, ...] = ()
    """Empty: all."""
    act: str | None = None
    """What that run wrote alone."""
    as_of_us: int = 0
    """What was known then, and facts that held then; 0: what is known now."""
    integrity_rank_max: int | None = None
    """Higher is worse (`types.INTEGRITY_RANK`)."""
    without: Mapping[str, int] = {}
    """Runs, and the seq from which on nothing of theirs is seen."""
    back: frozenset[str] = frozenset()
    """Superseded records that count all the same: what took their place is quarantined."""


class Hit(NamedTuple):
    id: str
    score: float
    why: dict[str, float]
    """By channel, what it gave to the score; `ranker`, where that put it in order."""


class ScopeIndex:
    """`model`: whose vectors it holds; empty: none."""

    def __init__(self, model: str = "", dimensions: int = 0) -> None:
        self.model = model
        self.columns = Columns()
        self.postings = Postings()
        self.matrix = Matrix(dimensions) if model and dimensions else None
        self.role_words: list[frozenset[int]] = []
        """By number of role: its words, where it is a name."""

    def __len__(self) -> int:
        return self.columns.count

    @property
    def newest(self) -> int:
        """The number of the newest record; -1: there is none."""
        return int(self.columns["number"][-1]) if len(self) else -1

    @property
    def first_without_vector(self) -> int | None:
        """The number of the oldest record that has none."""
        if self.matrix is None or self.matrix.there.all():
            return None
        return int(self.columns["number"][int(np.argmin(self.matrix.there))])

    @property
    def size_bytes(self) -> int:
        held = self.columns.size_bytes + self.postings.size_bytes
        return held + (self.matrix.size_bytes if self.matrix else 0)

    def append(self, rows: Sequence[Loaded]) -> None:
        """Records with higher numbers than all before them, in their order. What has no terms yet
        is tokenised here."""
        if not rows:
            return
        assert rows[0].number > self.newest, "records come in the order of their numbers"
        packed, lengths = [], []
        for one in rows:
            terms, length = one.terms, one.length
            if terms is None:
                made = terms_of(one.text or "")
                terms, length = made.packed, made.length
            packed.append(terms)
            lengths.append(length)
        first = self.columns.append(rows, lengths)
        self._name_roles()
        also = [tuple(self.role_words[number]) for number in self.columns["role"][first:].tolist()]
        self.columns["length"][first:] += np.array([len(one) for one in also], np.float32)
        self.postings.append(first, packed, also)
        self._append_vectors(rows)

    def fill(self, rows: Sequence[Loaded]) -> None:
        """Vectors of records that are here without one."""
        if self.matrix is None:
            return
        numbers = self.columns["number"]
        for one in rows:
            place = int(np.searchsorted(numbers, one.number))
            if place == len(numbers) or numbers[place] != one.number or one.vector is None:
                continue
            if self._fits(one.vector):
                self.matrix.put(place, unpack_all([one.vector], self.matrix.dimensions)[0])

    def search(
        self,
        question: Question,
        kept: Filter,
        most: int,
        *,
        trained: bool = True,
        trees: ranker.Trees | None = None,
    ) -> list[Hit]:
        """The best `most`, best first; of two that score alike the newer one. `trained`: put in
        order by the ranker (`trees`; None: the one that is shipped), where it knows such data."""
        found, places = self._found(question, kept, max(most, limits.RECALL_CANDIDATES))
        if found is None or not len(places):
            return []
        scores = found.fused[places]
        is_ranked = trained and self._is_known(found)
        if is_ranked:
            # What the ranker doesn't look at stays behind, in the fusion's order.
            judged = places[: limits.RECALL_CANDIDATES]
            rows = ranker.features(question, found, self.columns, self.postings, judged)
            first = ranker.walked(trees or ranker.shipped(), rows)
            order = np.lexsort((-places[: len(first)], -first))
            places[: len(first)], scores[: len(first)] = places[order], first[order]
            behind = scores[len(first) :]
            behind[:] = np.minimum(behind - behind.max(initial=0) + first.min(), first.min())
        return [
            self._hit(int(place), float(score), found, is_ranked)
            for place, score in zip(places[:most], scores[:most], strict=True)
        ]

    def candidates(
        self, question: Question, kept: Filter, most: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """What a ranker is trained on: places of the fusion's best, and their features."""
        found, places = self._found(question, kept, most)
        assert found is not None, "there is something in it"
        return places, ranker.features(question, found, self.columns, self.postings, places)

    def numbers_seen(self, kept: Filter) -> tuple[list[int], int]:
        """The numbers of what may be seen, and how many others there are."""
        seen = self._seen(kept)
        return self.columns["number"][seen].tolist(), len(self) - int(seen.sum())

    # --- parts -------------------------------------------------------------------------------

    def _found(
        self, question: Question, kept: Filter, most: int
    ) -> tuple[Channels | None, npt.NDArray[np.int64]]:
        """How all of it fits, and the places of the best `most`."""
        if not len(self):
            return None, np.zeros(0, np.int64)
        seen = self._seen(kept)
        matrix = self.matrix
        if question.near is not None:  # Its vectors are on disk.
            matrix = matrix_of(question.near, self.columns["number"])
            question = question._replace(vector=ALONG)
        found = channels(question, self.columns, self.postings, matrix, seen, self.role_words)
        return found, _best(found.fused, _told_of(found, seen), most)

    def _is_known(self, found: Channels) -> bool:
        named = [bool(words) for words in self.role_words]
        return ranker.knows(found.of, self.columns, named, self.model)

    def _hit(self, place: int, score: float, found: Channels, ranked: bool) -> Hit:
        why = {
            name: round(float(WEIGHTS[name] * scores[place]), 4)
            for name, scores in found.of.items()
            if scores[place] > 0
        }
        if ranked:
            why["ranker"] = round(score, 4)
        return Hit(self.columns.ids[place], score, why)

    def _seen(self, kept: Filter) -> Mask:
        columns = self.columns
        current = columns.states.numbers.get(str(RecordState.CURRENT), -2)
        seen = columns["state"] == current
        superseded = columns["superseded_us"]
        if kept.as_of_us:
            seen &= (superseded == 0) | (superseded > kept.as_of_us)
            seen &= columns["at_us"] <= kept.as_of_us
            ends = columns["valid_to_us"]
            seen &= columns["valid_from_us"] <= kept.as_of_us
            # That it ended became known with what superseded it.
            seen &= (ends == 0) | (ends > kept.as_of_us) | (superseded > kept.as_of_us)
        else:
            holds = superseded == 0
            if kept.back:
                again = [at for at, one in enumerate(columns.ids) if one in kept.back]
                holds[again] = True
            seen &= holds
        if kept.kinds:
            numbers = [columns.kinds.numbers.get(str(kind), -2) for kind in kept.kinds]
            seen &= np.isin(columns["kind"], numbers)
        if kept.integrity_rank_max is not None:
            seen &= columns["integrity"] <= kept.integrity_rank_max
        if kept.act is not None:
            seen &= columns["act"] == columns.acts.numbers.get(kept.act, -2)
        for act, seq in kept.without.items():
            if (number := columns.acts.numbers.get(act)) is not None:
                seen &= (columns["act"] != number) | (columns["seq"] < seq)
        return np.asarray(seen)

    def _name_roles(self) -> None:
        for role in self.columns.roles.names[len(self.role_words) :]:
            words = words_of(role) if is_name(role) else []
            self.role_words.append(frozenset(hash_of(word) for word in words))

    def _append_vectors(self, rows: Sequence[Loaded]) -> None:
        if self.matrix is None:
            return
        there = [one.vector is not None and self._fits(one.vector) for one in rows]
        wide = np.zeros((len(rows), self.matrix.dimensions), np.float32)
        held = [one.vector for one, is_there in zip(rows, there, strict=True) if is_there]
        if held:
            wide[np.flatnonzero(there)] = unpack_all(
                [one for one in held if one is not None], self.matrix.dimensions
            )
        self.matrix.append(wide, np.array(there, np.bool_))

    def _fits(self, vector: bytes) -> bool:
        """One of another size is as good as none: the indexer writes it anew."""
        return self.matrix is not None and len(vector) == 4 + self.matrix.dimensions


def _told_of(found: Channels, seen: Mask) -> Mask:
    """What has something of its own that fits; a place in a thread that fits is not enough."""
    if "meaning" in found.of:
        return seen
    fits = found.of["words"] > 0
    if "when" in found.of:
        fits |= found.of["when"] > 0
    return seen & fits


def _best(scores: npt.NDArray[np.float32], seen: Mask, most: int) -> npt.NDArray[np.int64]:
    """Places of the best that may be seen and score anything, best first, then the newest."""
    places = np.flatnonzero(seen & (scores > 0))
    if len(places) > most:
        held = scores[places]
        least = np.partition(held, len(held) - most)[len(held) - most]
        places = places[held >= least]
    order = np.lexsort((-places, -scores[places]))
    return np.asarray(places[order][:most])
