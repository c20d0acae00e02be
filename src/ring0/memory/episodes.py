"""Episodes: raw turns and results, found again by their words, within one scope and no other.

Scores are BM25 over the scope's own statistics: what another scope stores moves nothing here.
Source: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009), k1 = 1.2, b = 0.75.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.store.base import Store
from ring0.store.rows import Candidates
from ring0.types import Episode, Scope

K1: Final = 1.2
B: Final = 0.75
CANDIDATES_MAX: Final = 500
_WORD = re.compile(r"\w(?:[\w@.+-]*\w)?")
"""A word, an address or a version. It begins with a letter or digit, so that it never searches the
same punctuation twice."""


def terms(query: str) -> list[str]:
    """The words of a query, each once, as it is asked of the index."""
    if not query.strip() or len(query) > limits.RECALL_QUERY_CHARS_MAX:
        raise CallInvalid(
            "The query can't be searched for.",
            why=f"It has {len(query)} characters; 1 to {limits.RECALL_QUERY_CHARS_MAX} are taken.",
            todo="Ask with a few words.",
        )
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query))
    return list(words)[: limits.RECALL_TERMS_MAX]


async def recall(
    store: Store, scope: Scope, query: str, k: int, without: Mapping[str, int] | None = None
) -> list[Episode]:
    """The `k` episodes of the scope that fit the query best, best first; newer before older.

    The newest CANDIDATES_MAX that hold one of its words are judged. `without`: runs, and the seq
    from which on nothing of theirs is recalled. Raises CallInvalid.
    """
    if not 1 <= k <= limits.RECALL_K_MAX:
        raise CallInvalid(
            f"k is {k}.", why=f"1 to {limits.RECALL_K_MAX} can be recalled.", todo="Ask for fewer."
        )
    wanted = terms(query)
    if not wanted:
        return []
    await store.flush()
    most = CANDIDATES_MAX
    while True:
        candidates = await store.candidates(scope, wanted, most)
        kept = tuple(one for one in candidates.found if not _is_out(one.episode, without or {}))
        # What is out must not take the place of what is not.
        all_seen = len(candidates.found) < most or most >= limits.EPISODES_LOOKED_AT_MAX
        if len(kept) == len(candidates.found) or len(kept) >= CANDIDATES_MAX or all_seen:
            break
        most = min(2 * most, limits.EPISODES_LOOKED_AT_MAX)
    candidates = replace(candidates, found=kept[:CANDIDATES_MAX])
    ranked = sorted(scores(candidates), key=lambda found: (-found[0], -found[1].at_us))
    return [episode for _, episode in ranked[:k]]


def _is_out(episode: Episode, without: Mapping[str, int]) -> bool:
    begins = without.get(episode.run)
    return begins is not None and episode.seq >= begins


def scores(candidates: Candidates) -> list[tuple[float, Episode]]:
    """BM25 of each candidate, from nothing but the statistics of its scope."""
    total = candidates.episodes
    weights = [
        math.log(1 + (total - found + 0.5) / (found + 0.5)) for found in candidates.episodes_with
    ]
    scored = []
    for candidate in candidates.found:
        length = candidate.length / candidates.length_mean if candidates.length_mean else 1.0
        norm = K1 * (1 - B + B * length)
        score = sum(
            weight * count * (K1 + 1) / (count + norm)
            for weight, count in zip(weights, candidate.frequencies, strict=True)
        )
        scored.append((score, candidate.episode))
    return scored
