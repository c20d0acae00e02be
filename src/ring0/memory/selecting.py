"""Which records are worth their tokens: score for each token, less for what is said already.

Maximal marginal relevance (Carbonell & Goldstein, 1998) as a greedy knapsack: at each step the
record with the best gain for its tokens; what stands next to one that was taken gains a little.
Not here: scores (recall.py), and what else is in the window (assembly.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ring0 import limits
from ring0.memory.tokens import Counter
from ring0.memory.working import one_line
from ring0.types import Frozen, Label

RELEVANCE: Final = 0.7
"""How much a record's own score counts; the rest: that it says what no other one says."""
NEIGHBOUR: Final = 0.1
"""What it gains where the turn before or behind it was taken."""
SAME: Final = 0.9
"""From that overlap of words on it is the same once more."""
_TOKENS_MIN: Final = 24
"""A record of two words is not better for being short."""
_WORD: Final = re.compile(r"\w+")
_NO_NAME: Final = re.compile(r"[\[\](){}<>«»,:;#|`*=]")


class Candidate(Frozen, frozen=True, kw_only=True):
    """One record that recall found."""

    record: str
    text: str
    label: Label
    score: float
    """Higher is better; only compared with those of the same recall."""
    role: str = ""
    session: str = ""
    place: int = 0
    """In its session: its neighbours are one before and one behind."""
    at_us: int = 0
    quarantined: bool = False


class Chosen(Frozen, frozen=True, kw_only=True):
    candidate: Candidate
    tokens: int
    taken: bool
    why: str

    @property
    def place(self) -> tuple[str, int, str]:
        """In which order they are told: as they came, session by session."""
        return (self.candidate.session, self.candidate.place, self.candidate.record)


def shown(one: Candidate) -> str:
    """A record as it is quoted: where it is from, then its text, whose further lines are indented,
    so that none of them can begin as another record does."""
    date = ""
    if one.at_us > 0:
        date = f", {datetime.fromtimestamp(one.at_us / 1_000_000, UTC):%Y-%m-%d}"
    text = "\n  ".join(one.text.splitlines())
    return f"- [{role_line(one.role) or 'record'}, {one.label.integrity}{date}] {text}"


def role_line(role: str) -> str:
    """Who spoke, as it stands in the head of a quoted record: no file may write the rest of it."""
    return one_line(_NO_NAME.sub(" ", role))[: limits.RECORD_ROLE_SHOWN_CHARS]


def choose(
    candidates: Sequence[Candidate], *, most_tokens: int, count: Counter, overhead_tokens: int
) -> list[Chosen]:
    """Every candidate, taken or not and why; the taken ones first, in the order in which they were
    taken. `overhead_tokens`: what the first one takes with it."""
    rest = [_Item(one, count(shown(one)) + 1) for one in _ordered(candidates)]
    best = max((item.candidate.score for item in rest), default=0.0)
    least = min((item.candidate.score for item in rest), default=0.0)
    spread = best - least or 1.0
    for item in rest:
        item.relevance = 0.5 + 0.5 * (item.candidate.score - least) / spread
    left = most_tokens - overhead_tokens
    taken: list[Chosen] = []
    dropped: list[Chosen] = []
    while rest:
        item = max(rest, key=lambda one: one.worth)
        rest.remove(item)
        if item.overlap >= SAME:
            dropped.append(item.chosen("duplicate"))
            continue
        if item.tokens > left:
            dropped.append(item.chosen("over budget"))
            continue
        left -= item.tokens
        taken.append(item.chosen("neighbour" if item.near else "score", taken=True))
        for other in rest:
            other.beside(item)
    return [*taken, *dropped]


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best first; of equal ones the newer, then by id: the same for the same candidates."""
    ranked = sorted(candidates, key=lambda one: (-one.score, -one.at_us, one.record))
    return ranked[: limits.ASSEMBLY_CANDIDATES_MAX]


class _Item:
    """A candidate while others are chosen."""

    __slots__ = ("candidate", "near", "overlap", "relevance", "tokens", "words")

    def __init__(self, candidate: Candidate, tokens: int) -> None:
        self.candidate = candidate
        self.tokens = tokens
        self.relevance = 0.0
        self.words = frozenset(_WORD.findall(candidate.text.lower()))
        self.overlap = 0.0
        """With the most similar one that was taken, 0 to 1."""
        self.near = False

    @property
    def worth(self) -> float:
        gain = RELEVANCE * self.relevance + (1 - RELEVANCE) * (1 - self.overlap)
        gain += NEIGHBOUR if self.near else 0.0
        return gain / max(self.tokens, _TOKENS_MIN)

    def beside(self, taken: _Item) -> None:
        one, other = self.candidate, taken.candidate
        self.near = self.near or (
            bool(one.session) and one.session == other.session and abs(one.place - other.place) == 1
        )
        union = len(self.words | taken.words)
        same = len(self.words & taken.words) / union if union else float(one.text == other.text)
        self.overlap = max(self.overlap, same)

    def chosen(self, why: str, *, taken: bool = False) -> Chosen:
        return Chosen(candidate=self.candidate, tokens=self.tokens, taken=taken, why=why)
