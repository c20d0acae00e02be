"""Amounts and times that follow from the user's words: computed anew, in exact decimals.

Only where the words say that something is to be computed (`split`, `10 % more`, `the difference`),
and only from numbers that the user typed and whole fields of records that the user's words name:
one that a stranger may have written, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, time, timedelta
from decimal import Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Final

from ring0 import limits
from ring0.guardrails.vocabulary import ALL, MEAN, MINUS, MULTIPLY, PLUS, SPLIT
from ring0.guardrails.words import Words

_TIMES: Final = {"double": 2, "twice": 2, "triple": 3, "thrice": 3, "quadruple": 4}
_FRACTIONS: Final = {"half": 2, "third": 3, "quarter": 4}

_CENT: Final = Decimal("0.01")


class Amounts:
    """All that the user's words compute to, in at most two steps: worked out once for each call,
    whatever number of amounts it has."""

    def __init__(self, words: Words, fields: Iterable[Decimal]) -> None:
        self._exact: set[Decimal] = set()
        self._rounded: set[Decimal] = set()
        said = words.stems | words.places.keys()
        typed = words.values()
        seen = list(dict.fromkeys(fields))
        if len(typed) + len(seen) > limits.FLOW_OPERANDS_MAX:
            return
        with suppress(InvalidOperation, DivisionByZero, Overflow):
            self._exact.update(_results(typed, seen, words, said))
        for found in self._exact:
            with suppress(InvalidOperation):  # It is too large to have hundredths.
                self._rounded.add(found.quantize(_CENT))

    def hold(self, value: Decimal) -> bool:
        """Exactly, or as it is rounded to a hundredth."""
        return value in self._exact or value in self._rounded


def _results(
    typed: list[Decimal], seen: list[Decimal], words: Words, said: set[str]
) -> Iterator[Decimal]:
    once: list[Decimal] = []
    both = [*typed, *seen]
    for share in words.percentages():
        for base in both:
            part = base * share / 100
            once += (part, base + part, base - part)
    for word, factor in _TIMES.items():
        once += [base * factor for base in both] if word in said else []
    for word, divisor in _FRACTIONS.items():
        once += [base / divisor for base in both] if word in said else []
    if said & SPLIT:
        # `split it` without a number: between two.
        divisors = [number for number in typed if number > 1 and number % 1 == 0]
        once += [base / divisor for base in both for divisor in (*divisors, Decimal(2))]
    if said & MULTIPLY:
        once += [base * number for base in both for number in typed]
    if said & ALL and len(seen) > 1:
        once.append(sum(seen, Decimal(0)))
    if said & MEAN and seen:
        once.append(sum(seen, Decimal(0)) / len(seen))
    yield from once
    for one_ in (*once, *both):
        for other in both:
            if said & PLUS and (one_ in once or other in typed):
                yield one_ + other
            if said & MINUS:
                yield one_ - other
                yield other - one_


_CLOCK: Final = re.compile(r"(\d{1,2})(?::?(\d{2}))?(am|pm)?")
_MINUTES: Final = re.compile(r"(\d{2})(am|pm)?")
_NAMED: Final = {"noon": time(12), "midday": time(12), "midnight": time(0)}
_LENGTHS: Final = {"minute": 1, "min": 1, "hour": 60, "hr": 60, "day": 1_440}


def is_said_time(value: str, words: Words) -> bool:
    """Whether a date, or a date with a time, follows from what the user typed: the day, the time
    of day, or that and the length."""
    try:
        said = datetime.fromisoformat(value.strip()[:40])
    except ValueError:
        return False
    if said.tzinfo is not None:
        said = said.replace(tzinfo=None)
    days = set(words.days)
    if len(value.strip()) <= len("2026-01-03"):
        return said.date() in days
    times = set(_clocks(words))
    lengths = [timedelta(), *_lengths(words)]
    return any(
        datetime.combine(day, begins) + length == said
        for day in days
        for begins in times
        for length in lengths
    )


def _clocks(words: Words) -> Iterator[time]:
    for place, token in enumerate(words.tokens):
        if token.text in _NAMED:
            yield _NAMED[token.text]
        # `10:00` is two numbers with a colon between them, which is no word.
        after = words.at(place + 1).text
        if token.text.isdecimal() and (minutes := _MINUTES.fullmatch(after)):
            yield from _clock(token.text, minutes[1], minutes[2] or words.at(place + 2).text)
        elif match := _CLOCK.fullmatch(token.text):
            half = match[3] or (after if after in ("am", "pm") else "")
            if half:
                yield from _clock(match[1], match[2] or "00", half)
            elif words.at(place - 1).text == "at" and len(token.text) <= 2:
                yield from _clock(match[1], "00", "")


def _clock(hour: str, minute: str, half: str) -> Iterator[time]:
    hours, minutes = int(hour), int(minute)
    if half in ("am", "pm"):
        if not 1 <= hours <= 12:
            return
        hours = hours % 12 + (12 if half == "pm" else 0)
    if len(hour) <= 2 and hours < 24 and minutes < 60:
        yield time(hours, minutes)


def _lengths(words: Words) -> Iterator[timedelta]:
    counts = {"an": 1, "a": 1, "one": 1, "two": 2, "three": 3, "four": 4}
    for place, token in enumerate(words.tokens):
        unit = _LENGTHS.get(token.text.removesuffix("s"))
        if unit is None:
            continue
        before = words.at(place - 1).text
        if words.at(place - 2).text == "half" and before in ("an", "a"):
            yield timedelta(minutes=unit / 2)
        elif before.isdecimal() and len(before) < 4:
            yield timedelta(minutes=int(before) * unit)
        elif counts.get(before):
            yield timedelta(minutes=counts[before] * unit)
