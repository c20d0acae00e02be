"""What a record's surroundings say of it: who spoke, when, in which thread, beside what.

Pure functions of words and times, for the index and for whoever embeds. Not scores: index/scoring.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Collection
from typing import Final, NamedTuple

from ring0 import limits

KERNEL_ROLES: Final = frozenset(
    {"task", "result", "answer", "note", "failure", "summary"}
    | {"user", "assistant", "system", "tool", "human", "ai", "agent", "model", "developer"}
)
"""Kinds of voices, not names: who asks for a `result` doesn't ask who said something."""

_MONTHS: Final = {
    name.lower(): number
    for names in (calendar.month_name, calendar.month_abbr)
    for number, name in enumerate(names)
    if name
} | {"sept": 9}
_WORD = re.compile(r"[A-Za-z]{3,9}|\d{1,4}")
_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DAY_US: Final = 86_400_000_000
_YEARS: Final = range(1900, 2200)
_ALSO_VERBS: Final = ("may", "mar", "march")
"""A month only where it begins with a capital letter."""


def embedded_text(text: str, *, previous: str, role: str, happened_us: int) -> str:
    """What is embedded of a record: with the end of what was said before it, and by whom.

    A turn alone ("Yes, last week!") says too little; a long text says enough. `happened_us` isn't
    in it: a date moves vectors by its digits, and dates are compared as dates (`Days`).
    """
    said = f"{role}: {text}" if is_name(role) else text
    if not previous or len(text) > limits.EMBEDDED_ALONE_CHARS:
        return said
    return f"{previous[-limits.EMBEDDED_PREVIOUS_CHARS :]}\n{said}"


def is_name(role: str) -> bool:
    """Whether the role says who spoke, and not only what kind of text it is."""
    return bool(role) and role.lower() not in KERNEL_ROLES


class Days(NamedTuple):
    """What a query says of when: any of these months, years, days of a month."""

    years: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    days: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.years or self.months)

    def fit(self, at_us: int) -> float:
        """0: another time; the more of it fits, the more. `at_us` since 1970, as UTC."""
        try:
            at = datetime.datetime.fromtimestamp(at_us // 1_000_000, datetime.UTC)
        except (OverflowError, ValueError, OSError):
            return 0.0
        if self.years and at.year not in self.years:
            return 0.0
        if not self.months:
            return 0.5
        if at.month not in self.months:
            return 0.0
        if not self.days:
            return 1.0
        apart = min(abs(at.day - day) for day in self.days)
        return 1.5 if apart <= 1 else 1.2 if apart <= 7 else 0.8


def days_of(query: str) -> Days:
    """Times that a query names: `May 2023`, `7 March`, `2023-05-07`. Nothing relative: what `last
    week` means depends on who asks when."""
    years, months, days = [], [], []
    for found in _DATE.finditer(query):
        year, month, day = (int(part) for part in found.groups())
        if year in _YEARS and 1 <= month <= 12 and 1 <= day <= 31:
            years.append(year)
            months.append(month)
            days.append(day)
    for found in _WORD.finditer(_DATE.sub(" ", query)):
        word = found.group()
        if word.isdigit():
            number = int(word)
            if len(word) == 4 and number in _YEARS:
                years.append(number)
            elif len(word) <= 2 and 1 <= number <= 31:
                days.append(number)
        elif month := _month(word):
            months.append(month)
    if not (years or months):
        return Days()
    bound = limits.QUERY_DATES_MAX
    return Days(tuple(years[:bound]), tuple(months[:bound]), tuple(days[:bound]) if months else ())


def day_of(at_us: int) -> int:
    """Its number since 1970: what is worked out once a day, not once a record."""
    return at_us // _DAY_US


def day_begins_us(day: int) -> int:
    return day * _DAY_US


def named(query_words: Collection[str], role_words: Collection[str]) -> bool:
    """Whether a query names who spoke."""
    return any(word in query_words for word in role_words)


def _month(word: str) -> int:
    lower = word.lower()
    if lower in _ALSO_VERBS and not word[0].isupper():
        return 0
    return _MONTHS.get(lower, 0)
