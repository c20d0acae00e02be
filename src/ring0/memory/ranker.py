"""The learned ranker: puts the best of the fusion in a better order (`scripts/train_ranker.py`).

A few trees, as arrays, walked with numpy. It knows conversations between people who have names;
of anything else it says so (`knows`), and the fusion's own order stands.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ring0.memory.index.columns import Columns
from ring0.memory.index.postings import Postings
from ring0.memory.index.question import ASKING, Question
from ring0.store.terms import hash_of, words_of

if TYPE_CHECKING:
    from ring0.memory.index.scoring import Channels

Floats = npt.NDArray[np.float32]

CHANNELS: Final = (
    *("words", "thread_words", "meaning", "beside", "answered", "thread", "speaker", "when"),
)
_OWN: Final = (
    *("fused", "behind_best", "rank", "own_words", "own_rarest", "own_names", "beside_words"),
    *("meaning_before", "meaning_after", "words_before", "words_after", "fused_before"),
    *("fused_after", "length", "query_words", "speaker_asked", "from_end", "in_thread"),
)
_AROUND: Final = (
    *("meaning_before_2", "meaning_after_2", "fused_before_2", "fused_after_2", "rank_words"),
    *("rank_meaning", "same_speaker_before", "thread_share", "thread_best_gap"),
)
_VOICES: Final[Mapping[str, str]] = {
    "says_when": "yesterday today tomorrow week weekend month year day ago last next recently "
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december morning night summer winter spring fall",
    "says_i": "i my me we our mine us",
    "says_you": "you your yours",
    "asks_itself": "what how when where who why which any",
    "counts": "one two three four five six seven eight nine ten first second few several many",
    "feels": "love like enjoy favorite favourite happy great amazing awesome fun excited feel",
    "greets": "hey hi hello thanks thank bye wow congrats cool sounds glad",
    "shares": "shares photo picture pic look check here",
    "plans": "going gonna want will plan planning hope hoping thinking soon",
    "did": "went was got had did made started took bought been just visited",
    "reasons": "because since so helps reason why inspired",
}
"""Common words of one kind each: what a turn that answers a kind of question tends to hold."""
FEATURES: Final = (
    *(*CHANNELS, *_OWN, *_AROUND, *_VOICES),
    *(f"asks_{word}" for word in ASKING),
)
"""Of one candidate, in this order."""
_NAMED_SHARE_MIN: Final = 0.5
"""Of a scope, which somebody with a name said."""


class Trees(msgspec.Struct, frozen=True):
    """Trees in one array each, one behind another."""

    features: tuple[str, ...]
    roots: list[int]
    feature: list[int]
    """Of an inner node, what it looks at; -1: a leaf."""
    threshold: list[float]
    """Lower or equal goes left."""
    left: list[int]
    right: list[int]
    value: list[float]
    depth: int
    about: dict[str, Any]
    """What it was trained on, by what, with what result."""


def knows(of: Mapping[str, Floats], columns: Columns, named: Sequence[bool], model: str) -> bool:
    """Whether these are turns of a conversation, with vectors of the model that it was trained
    with. `named`: by number of role, whether it is a name."""
    if "meaning" not in of or sum(named) < 2 or model != shipped().about["embeddings"]:
        return False
    said_by_name = np.asarray(named, np.bool_)[columns["role"]]
    return bool(said_by_name.mean() >= _NAMED_SHARE_MIN)


def features(
    question: Question,
    found: Channels,
    columns: Columns,
    postings: Postings,
    places: npt.NDArray[np.int64],
) -> Floats:
    """A row a candidate, FEATURES wide. `places`: best first."""
    count = len(places)
    zeros = np.zeros(count, np.float32)
    columns_of: dict[str, Any] = {
        name: found.of[name][places] if name in found.of else zeros for name in CHANNELS
    }
    fused = found.fused[places]
    best = float(fused[0]) or 1.0
    before, after = columns["previous"][places], columns["next"][places]
    own, rarest, names, beside = _coverage(question, found, columns, places)
    columns_of |= {
        "fused": fused,
        "behind_best": fused / best,
        "rank": np.log1p(np.arange(count)),
        "own_words": own,
        "own_rarest": rarest,
        "own_names": names,
        "beside_words": beside,
        "meaning_before": _beside(found.of.get("meaning"), before, zeros),
        "meaning_after": _beside(found.of.get("meaning"), after, zeros),
        "words_before": _beside(found.of["words"], before, zeros),
        "words_after": _beside(found.of["words"], after, zeros),
        "fused_before": _beside(found.fused, before, zeros) / best,
        "fused_after": _beside(found.fused, after, zeros) / best,
        "length": np.log1p(columns["length"][places]),
        "query_words": np.full(count, len(question.words)),
        "speaker_asked": np.full(count, float(found.of["speaker"].any())),
        "from_end": (after < 0).astype(np.float32),
        "in_thread": (before < 0).astype(np.float32),
    }
    columns_of |= _around(found, columns, places) | _voices(columns, postings, places)
    for number, word in enumerate(ASKING):
        columns_of[f"asks_{word}"] = np.full(count, float(question.asks == number))
    return np.stack([np.asarray(columns_of[name], np.float32) for name in FEATURES], axis=1)


@functools.cache
def shipped() -> Trees:
    """The weights that come with ring0."""
    data = importlib.resources.files("ring0.memory").joinpath("ranker.json").read_bytes()
    trees = msgspec.json.decode(data, type=Trees)
    assert trees.features == FEATURES, "the ranker was trained on other features"
    return trees


def _coverage(
    question: Question, found: Channels, columns: Columns, places: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Shares of what the query's words weigh: in the record, its rarest one, its names, and in
    the record with its neighbours."""
    count = columns.count
    # The place of a record among the candidates; behind them, one for all others.
    slot = np.full(count + 1, len(places), np.int32)
    slot[places] = np.arange(len(places), dtype=np.int32)
    own, rarest, names, beside = (np.zeros(len(places) + 1, np.float32) for _ in range(4))
    total = sum(one.idf for one in found.words) or 1.0
    named = sum(one.idf for one in found.words if one.word in question.names) or 1.0
    top = max((one.idf for one in found.words), default=1.0) or 1.0
    for one in found.words:
        here = slot[one.places]
        own[here] += one.idf / total
        rarest[here] = np.maximum(rarest[here], one.idf / top)
        if one.word in question.names:
            names[here] += one.idf / named
        near = np.zeros(len(places) + 1, np.bool_)
        near[here] = True
        near[slot[columns["previous"][one.places]]] = True
        near[slot[columns["next"][one.places]]] = True
        beside[near] += one.idf / total
    return own[:-1], rarest[:-1], names[:-1], beside[:-1]


def _around(found: Channels, columns: Columns, places: npt.NDArray[np.int64]) -> dict[str, Any]:
    zeros = np.zeros(len(places), np.float32)
    before, after = columns["previous"][places], columns["next"][places]
    before_2 = np.where(before >= 0, columns["previous"][before], -1)
    after_2 = np.where(after >= 0, columns["next"][after], -1)
    meaning = found.of.get("meaning")
    best = float(found.fused[places[0]]) or 1.0
    thread = columns["session"][places]
    shares = np.bincount(thread, weights=found.fused[places])
    role = columns["role"]
    return {
        "meaning_before_2": _beside(meaning, before_2, zeros),
        "meaning_after_2": _beside(meaning, after_2, zeros),
        "fused_before_2": _beside(found.fused, before_2, zeros) / best,
        "fused_after_2": _beside(found.fused, after_2, zeros) / best,
        "rank_words": _ranks(found.of["words"][places]),
        "rank_meaning": _ranks(meaning[places]) if meaning is not None else zeros,
        "same_speaker_before": (before >= 0) & (role[before] == role[places]),
        "thread_share": shares[thread] / (float(shares.sum()) or 1.0),
        "thread_best_gap": found.of["thread"][places] - found.fused[places] / best,
    }


def _voices(columns: Columns, postings: Postings, places: npt.NDArray[np.int64]) -> dict[str, Any]:
    """How many words of each kind a candidate has, of all its words."""
    counted = {}
    for name, words in _hashed_voices().items():
        sums = np.zeros(len(places), np.float32)
        for word in words:
            held, counts = postings.of(word)
            if len(held):
                at = np.minimum(np.searchsorted(held, places), len(held) - 1)
                sums += np.where(held[at] == places, counts[at], np.float32(0))
        counted[name] = sums
    return counted


@functools.cache
def _hashed_voices() -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(sorted({hash_of(word) for word in words_of(said)}))
        for name, said in _VOICES.items()
    }


def _ranks(values: Floats) -> Floats:
    ranks = np.empty(len(values), np.float32)
    ranks[np.argsort(-values, kind="stable")] = np.log1p(np.arange(len(values)))
    return ranks


def _beside(values: Floats | None, where: npt.NDArray[Any], zeros: Floats) -> Floats:
    if values is None:
        return zeros
    return np.where(where >= 0, values[where], np.float32(0))


def walked(trees: Trees, rows: Floats) -> Floats:
    """All trees at once, a level at a time."""
    feature, threshold, left, right, value = _arrays(trees)
    at = np.tile(np.asarray(trees.roots, np.int32), (len(rows), 1))
    line = np.arange(len(rows))[:, None]
    for _ in range(trees.depth):
        asked = feature[at]
        goes_left = rows[line, np.maximum(asked, 0)] <= threshold[at]
        at = np.where(asked < 0, at, np.where(goes_left, left[at], right[at]))
    return np.asarray(value[at].sum(axis=1), np.float32)


_kept: dict[int, tuple[Any, ...]] = {}


def _arrays(trees: Trees) -> tuple[Any, ...]:
    found = _kept.get(id(trees))
    if found is None or found[0] is not trees:
        found = (
            trees,
            np.asarray(trees.feature, np.int32),
            np.asarray(trees.threshold, np.float32),
            np.asarray(trees.left, np.int32),
            np.asarray(trees.right, np.int32),
            np.asarray(trees.value, np.float32),
        )
        _kept.clear()
        _kept[id(trees)] = found
    return found[1:]
