"""`The largest file`, `the last two invoices`: what the user's words select, computed anew.

A small grammar: a superlative or an ordinal, and soon after it what kind of thing is meant. It
holds over all that one call listed, where nothing but the user's own words narrowed that, by a
number or a time that each has. Whatever is not exactly so selects nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails import tokens
from ring0.guardrails.records import Field, Listing, Record, Records
from ring0.guardrails.shapes import VALUE
from ring0.guardrails.vocabulary import AMOUNTS, COMMON, LENGTHS, MARKS, MONEY, TIMES
from ring0.guardrails.words import GAP, Words, one, parts

_WORDS: Final[dict[str, tuple[bool, frozenset[str]]]] = {
    **dict.fromkeys(("largest", "biggest", "heaviest"), (True, AMOUNTS)),
    **dict.fromkeys(("highest", "greatest", "maximum"), (True, AMOUNTS | MARKS)),
    **dict.fromkeys(("longest",), (True, LENGTHS)),
    **dict.fromkeys(("smallest", "tiniest", "lightest"), (False, AMOUNTS)),
    **dict.fromkeys(("lowest", "least", "minimum"), (False, AMOUNTS | MARKS)),
    **dict.fromkeys(("shortest",), (False, LENGTHS)),
    **dict.fromkeys(("cheapest",), (False, MONEY)),
    **dict.fromkeys(("dearest", "priciest"), (True, MONEY)),
    **dict.fromkeys(("best", "top"), (True, MARKS)),
    **dict.fromkeys(("worst",), (False, MARKS)),
    **dict.fromkeys(("latest", "newest", "last"), (True, TIMES)),
    **dict.fromkeys(("oldest", "earliest", "first"), (False, TIMES)),
}
"""Whether the highest is meant, and words of the fields that it can be by."""
_AFTER_MOST: Final = {"recent": (True, TIMES), "expensive": (True, MONEY)}
_AFTER_LEAST: Final = {"recent": (False, TIMES), "expensive": (False, MONEY)}
_RATED: Final = frozenset({"rated", "ranked", "scored", "reviewed"})
_COUNTS: Final = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1
    )
}
_ORDINALS: Final = {"second": 2, "third": 3, "fourth": 4, "fifth": 5}
_WHICH_MAX: Final = 100
_NEAR_WORDS: Final = 4
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?Z?)?\Z")


class Selector(msgspec.Struct, frozen=True):
    said: str
    highest: bool
    by: frozenset[str]
    place: int
    first: int = 1
    """Of those in order, from this one to `last`."""
    last: int = 1


def selectors(words: Words) -> list[Selector]:
    """All that the user's words hold."""
    if "selectors" not in words.memo:
        words.memo["selectors"] = list(_selectors(words))
    found: list[Selector] = words.memo["selectors"]
    return found


def _selectors(words: Words) -> Iterator[Selector]:
    for place, token in enumerate(words.tokens):
        before, after = words.at(place - 1).text, words.at(place + 1).text
        found = _WORDS.get(token.text)
        if found and after in _RATED:
            found = (found[0], MARKS)
        if token.text in ("most", "least"):
            found = (_AFTER_MOST if token.text == "most" else _AFTER_LEAST).get(after)
        if found is None:
            continue
        first = last = 1
        if before in _ORDINALS:
            first = last = _ORDINALS[before]
        else:
            beside = {before, after} if token.text != "most" else {before}
            counts = [count for word in beside if (count := _count(word)) > 1]
            if len(counts) > 1:
                continue
            last = counts[0] if counts else 1
        yield Selector(token.text, found[0], found[1], place, first, last)


def _count(word: str) -> int:
    if word.isdecimal() and len(word) < 4:
        return min(int(word), _WHICH_MAX)
    return _COUNTS.get(word, 0)


def selected(records: Records, record: Record) -> str:
    """How the user's words select this record among all that were listed with it; empty: not."""
    if records.overflowed or len(record.fields) > limits.FLOW_FIELDS_MAX:
        return ""
    known: dict[Record, str] = records.words.memo.setdefault("selected", {})
    if record not in known:
        known[record] = _selected(records, record)
    return known[record]


def _selected(records: Records, record: Record) -> str:
    listing = records.listings[record.listing]
    words = records.words
    if not listing.is_whole(record.place[1]):
        return ""
    for selector in selectors(words):
        if not _is_meant(selector, record, words):
            continue
        names = _ordering(selector, record, words)
        if names and all(_is_among(selector, name, record, listing) for name in names):
            return "the " + " ".join((selector.said, *_noun(words, selector.place)))
    return _all(record, words)


def _all(record: Record, words: Words) -> str:
    """`Every channel`: all of a kind, and nothing after it that could mean fewer."""
    for said in ("all", "every", "each"):
        for place in words.places.get(said, ()):
            for at in range(place + 1, place + 1 + _NEAR_WORDS):
                if one(words.at(at).text) in record.kind:
                    if words.at(at + 1).text in (GAP, "and", "then"):
                        return f"{said} {words.at(at).text}"
                    break
                if words.at(at).text not in COMMON:
                    break
    return ""


def _noun(words: Words, place: int) -> list[str]:
    return [token.text for token in words.after(place, 1)]


def _is_meant(selector: Selector, record: Record, words: Words) -> bool:
    return any(one(token.text) in record.kind for token in words.after(selector.place, _NEAR_WORDS))


def _ordering(selector: Selector, record: Record, words: Words) -> list[str]:
    """The fields that the superlative can be by. Where there are several, those that the user's
    words name; and where that leaves several, all have to agree."""
    able = [
        field.name
        for field in record.fields
        if _words_of(field, record) & selector.by and _value(field) is not None
    ]
    named = [name for name in able if set(parts(name)) & words.stems]
    return list(dict.fromkeys(named or able))


def _words_of(field: Field, record: Record) -> set[str]:
    """What a field is: by its name, or where it has none, by what the list is of."""
    return {*parts(field.name), *(record.kind if field.name == VALUE else ())}


def _is_among(selector: Selector, name: str, record: Record, listing: Listing) -> bool:
    order = _order(listing, record.place[1], name)
    own = _value_of(record, name)
    if order is None or own is None:
        return False
    first, last = bisect_left(order, own), bisect_right(order, own)
    ahead = len(order) - last if selector.highest else first
    # With others that are equal, it is one of those meant only if all of them are.
    return ahead + 1 >= selector.first and ahead + last - first <= selector.last


def _order(listing: Listing, way: str, name: str) -> list[Any] | None:
    """All values of this field in order; None where one has none, since that one could be the one
    that is meant."""
    if (way, name) not in listing.orders:
        values: list[Any] = [_value_of(record, name) for record in listing.records[way]]
        alike = len({type(value) for value in values}) == 1 and values[0] is not None
        listing.orders[way, name] = sorted(values) if alike else None
    return listing.orders[way, name]


def _value_of(record: Record, name: str) -> Decimal | str | None:
    field = next((field for field in record.fields if field.name == name), None)
    return _value(field) if field else None


def _value(field: Field) -> Decimal | str | None:
    """What a field is compared by: a number, or a time that is written so that it sorts."""
    if isinstance(field.value, str):
        return field.value.replace("T", " ") if _TIME.match(field.value) else None
    key = tokens.number_key(field.value) if not isinstance(field.value, bool) else None
    return Decimal(key[1:]) if key else None
