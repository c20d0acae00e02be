"""A query as an index reads it: words, what is a name among them, times, what kind of question."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ring0.memory.structure import Days, days_of
from ring0.memory.vectors import Nearest
from ring0.store.terms import hash_of, query_terms, words_of

ASKING: Final = ("when", "who", "where", "how", "why", "which", "what")
"""What a question can ask for, by the first of these words in it."""
_CAPITAL = re.compile(r"(?<!^)\b[A-Z][\w'-]+")
_ASKED = re.compile(r"\b(" + "|".join(ASKING) + r")\b", re.IGNORECASE)
_NAMES_MAX: Final = 16


class Question(NamedTuple):
    words: tuple[int, ...]
    """Hashes (store/terms.py), each once."""
    vector: npt.NDArray[np.float32] | None
    days: Days
    names: frozenset[int] = frozenset()
    """Of the words: those that begin with a capital letter, but for the first."""
    near: tuple[Nearest, ...] | None = None
    """What a vector store on disk found; None: the vectors are in memory."""
    asks: int = len(ASKING)
    """Which of ASKING; their number: none of them."""


def question_of(query: str, vector: npt.NDArray[np.float32] | None) -> Question:
    asked = _ASKED.search(query)
    names = _CAPITAL.findall(query)[:_NAMES_MAX]
    return Question(
        words=tuple(query_terms(query)),
        vector=vector,
        days=days_of(query),
        names=frozenset(hash_of(word) for name in names for word in words_of(name)),
        asks=ASKING.index(asked.group().lower()) if asked else len(ASKING),
    )
