"""Where the user's words name what a text names, and how well.

Not here: which record a name is of, and whether another has it too (records.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

from ring0 import limits
from ring0.guardrails.vocabulary import COMMON, GENERIC
from ring0.guardrails.words import Words, leaf_words, one, run_at

Fit = tuple[int, int, float]
"""Its level, how many words, how much of the name."""

PARTLY: Final = 1
"""A part of a name: `Nordwind` of `Nordwind Freight`."""
WHOLLY: Final = 2
"""All of it."""

NUMBER: Final = re.compile(r"#-?\d[\d.]*\Z")
AMOUNT: Final = "\0"
"""Before the key of a number that names a thing only where the user writes it as an amount."""
_DECIMALS: Final = re.compile(r"[.,]\d\d\Z")
DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].{0,40})?\Z", re.DOTALL)


def covers(texts: list[str], words: Words) -> dict[int, Fit]:
    """Where the user's words name what these texts name, and how well."""
    found: dict[int, Fit] = {}
    for text in texts if words else ():
        for place, count, strength in _fits(text, words):
            for covered in range(place, place + count):
                if words.at(covered).text not in COMMON:
                    found[covered] = max(found.get(covered, strength), strength)
    return found


def _fits(text: str, words: Words) -> Iterator[tuple[int, int, Fit]]:
    if text.startswith(AMOUNT):
        for place in words.numbers.get(text.removeprefix(AMOUNT), ()):
            if _DECIMALS.search(words.at(place).text):
                yield place, 1, (WHOLLY, 1, 1.0)
        return
    if NUMBER.match(text):
        if len(text) > 2:  # a single digit names nothing
            for place in words.numbers.get(text, ()):
                yield place, 1, (WHOLLY, 1, 1.0)
        return
    if DAY.match(text):
        try:
            places = words.days.get(date.fromisoformat(text[:10]), ())
        except ValueError:
            places = ()
        for place in places:
            yield place, 1, (PARTLY, 0, 0.0)
        return
    said = leaf_words(text) if words.may_hold(text) else []
    if not said:
        return
    whole = False
    for place in words.places.get(said[0], ()):
        if run_at(words, place, said) == len(said) and _is_name(said, words, place):
            whole = True
            yield place, len(said), (WHOLLY, len(said), 1.0)
    if not whole and 1 < len(said) <= limits.FLOW_PARTLY_WORDS_MAX:
        yield from _partly(said, words)


def _partly(said: list[str], words: Words) -> Iterator[tuple[int, int, Fit]]:
    for first in range(len(said)):
        if said[first] in COMMON:
            continue
        for place in words.places.get(said[first], ()):
            count = run_at(words, place, said[first:])
            own = [at for at in range(place, place + count) if _tells(words.at(at).text)]
            proper = any(words.at(at).proper for at in own)
            named = sum(words.at(at).text not in COMMON for at in range(place, place + count))
            if own and (proper or named > 1):
                yield place, count, (PARTLY, len(own), count / len(said))


def _is_name(said: list[str], words: Words, place: int) -> bool:
    """Whether so few words name anything: `Sauna` does, `email` and `the` don't."""
    return (
        any(
            _tells(word) or (words.at(place + at).proper and word not in COMMON)
            for at, word in enumerate(said)
        )
        or sum(word not in COMMON for word in said) > 1
    )


def _tells(word: str) -> bool:
    return len(word) > 1 and word not in COMMON and one(word) not in GENERIC
