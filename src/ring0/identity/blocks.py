"""What a block that was added to a token may say: conditions that cost little to look at.

Whoever holds a token writes blocks without the kernel, and Biscuit's own bounds are looked at
between steps only: one join of a few facts takes it minutes, one pattern a tenth of a second. So
there is nothing to join (no rules, each fact once), and patterns are those of `tokens.narrow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ring0 import limits

_CONDITION: Final = re.compile(r"(?:check if|check all|reject if) ")
_FACT: Final = re.compile(r"([a-z_][a-z0-9_]*)\(")
_OURS: Final = frozenset({"asked", "time", "run", "epoch"})
"""What the kernel says itself: a second one would be a join."""
# Biscuit writes strings out as they are, quotes and all. None of those taken holds what a predicate
# or a pattern is written with, so that nothing of the kind hides in what looks like a string.
_STRING: Final = r'"[^"$();<>{}\r\n]*"'
_PATTERN: Final = r'"\^(?:\\[^\w\s"$();<>]|[^\\"^$.*+?()\[\]{}|;<>\r\n]|\.\*)*\$"'
_PIECE: Final = re.compile(
    "|".join(
        (
            rf"\.matches\({_PATTERN}\)",
            r"\.(?:starts_with|ends_with|contains)\(",
            r"[a-z_][a-z0-9_]*\(",
            _STRING,
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
            r"-?\d+",
            r"\$[a-z_][a-z0-9_]*",
            r"(?:ed25519|secp256r1)/[0-9a-f]{64,66}",
            r"(?:true|false|or|trusting|authority|previous)\b",
            r"===?|!==?|<=|>=|[<>](?!-)|&&|\|\||!",
            r"[ ,()\[\]]",
        )
    )
)


def are_cheap(sources: Iterable[str]) -> bool:
    """Whether blocks (as Biscuit prints them) hold conditions alone, and a few facts for them."""
    facts: set[str] = set(_OURS)
    for line in "\n".join(sources).split("\n"):
        if not line:
            continue
        statement = line.removesuffix(";")
        condition = _CONDITION.match(statement)
        if condition is None:
            # Every statement begins a line, so no fact is overlooked.
            fact = _FACT.match(statement)
            if fact is None or fact[1] in facts or len(facts) >= limits.TOKEN_BLOCK_FACTS_MAX:
                return False
            facts.add(fact[1])
        if not _is_of_pieces(statement[condition.end() if condition else 0 :]):
            return False
    return True


def _is_of_pieces(text: str) -> bool:
    place = 0
    while place < len(text):
        piece = _PIECE.match(text, place)
        if piece is None:
            return False
        place = piece.end()
    return True
