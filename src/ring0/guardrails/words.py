"""What the user typed, as words with their places: what names a thing, chooses or computes one.

English only: what is said in other words chooses nothing here, and is asked about. Nothing here
knows of labels; only text that an authenticated principal typed comes in.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails import tokens

_PIECE: Final = re.compile(
    r"(?P<whole>[a-z][a-z0-9+.\-]{1,20}://[^\s\"'<>`|]+|[\w.+\-]+@[\w.\-]*\w)"
    r"|(?P<day>\d{4}-\d{2}-\d{2})(?![\d\-])"
    r"|(?P<number>(?<![\w.])\d+(?:[.,]\d+)*(?![\w]))"
    r"|(?P<word>[^\W_]+(?:'s\b)?)"
    r"|(?P<gap>[.!?;:](?=\s|\Z)|\n|[\"()\[\]])"
    r"|(?P<percent>%)",
    re.IGNORECASE,
)
_PLAIN: Final = re.compile(r"[^\W_]+")
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        ("jan january", "feb february", "mar march", "apr april", "may", "jun june", "jul july",
         "aug august", "sep sept september", "oct october", "nov november", "dec december"), 1
    )
    for name in names.split()
}  # fmt: skip
_WEEKDAYS: Final = {
    name: number
    for number, name in enumerate(
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    )
}
_DAY_OF_MONTH: Final = re.compile(r"([0-3]?\d)(?:st|nd|rd|th)?")
GAP: Final = "\0"


def one(word: str) -> str:
    """The singular, roughly: `invoices` → `invoice`, `entries` → `entry`."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


@functools.lru_cache(maxsize=4_096)
def parts(name: str) -> tuple[str, ...]:
    """The words of a name in code: `list_openInvoices` → list, open, invoice."""
    return _parts(name[: limits.FLOW_NAME_CHARS_MAX])


@functools.lru_cache(maxsize=4_096)
def _parts(name: str) -> tuple[str, ...]:
    """The same few names come with each call."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(one(word.casefold()) for word in _PLAIN.findall(split))


class Token(msgspec.Struct, frozen=True):
    """One word, number or address that the user typed."""

    text: str
    """Folded; GAP between sentences and at quotes and brackets."""
    proper: bool = False
    """Written with a capital or a digit where a common word is not, or within quotes."""
    number: str = ""
    """Its key (`tokens.number_key`)."""
    percent: bool = False


def leaf_words(text: str) -> list[str]:
    """A value's words as `Words` has them; an address or a URL is one."""
    return [
        token.text
        for token in _tokens(text[: limits.FLOW_NAMING_CHARS_MAX])
        if token.text not in (GAP, "%")
    ]


def _tokens(text: str) -> Iterator[Token]:
    plain = tokens.visible(unicodedata.normalize("NFKC", text))
    begins, quoted = True, ""
    for match in _PIECE.finditer(plain):
        kind, word = match.lastgroup, match.group()
        if kind == "gap":
            begins = begins or word in ".!?\n"
            yield Token(GAP)
            continue
        before = plain[match.start() - 1 : match.start()]
        if not quoted and before in ("'", '"', "`", "\u2018", "\u201c") and before:
            quoted = {"\u2018": "\u2019", "\u201c": "\u201d"}.get(before, before)
        folded = word.casefold()
        if kind == "word" and folded.endswith("'s"):
            folded = folded[:-2]
        proper = bool(quoted) or kind in ("whole", "day")
        proper = proper or (not begins and word[0].isupper()) or word[0].isdigit()
        proper = proper or any(letter.isupper() or letter.isdigit() for letter in word[1:])
        number = ""
        if kind == "number":
            number = next(tokens.number_keys(folded), "")
        yield Token(folded, proper, number, kind == "percent")
        begins = False
        if quoted and plain[match.end() : match.end() + 1] == quoted:
            quoted = ""


class Words:
    """All that one run's user typed."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.places: dict[str, list[int]] = {}
        """Where each word stands."""
        self.vocabulary: set[str] = set()
        """All words, also those within an address."""
        self.numbers: dict[str, list[int]] = {}
        """Where each number stands, by its key."""
        self.days: dict[date, list[int]] = {}
        self._today: date | None = None
        self.stems: set[str] = set()
        """All words, in the singular."""
        self.steps = 0
        """Places that were compared, over all that was seen: hostile names must not take long."""
        self.memo: dict[str, Any] = {}
        """What was worked out of these words; until there are more."""
        self.too_long = False
        """What is so long is a document that somebody pasted rather than words of their own."""

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def add(self, text: str) -> None:
        """More that the user typed."""
        room = limits.FLOW_WORDS_CHARS_MAX - sum(len(token.text) + 1 for token in self.tokens)
        if len(text) > room:
            self.too_long = True
            return
        self.memo.clear()
        first = len(self.tokens)
        self.tokens.append(Token(GAP))
        self.tokens += _tokens(text)
        for place in range(first, len(self.tokens)):
            token = self.tokens[place]
            if token.text == GAP:
                continue
            self.places.setdefault(token.text, []).append(place)
            self.vocabulary.update(_PLAIN.findall(token.text))
            self.stems.add(one(token.text))
            if token.number:
                self.numbers.setdefault(token.number, []).append(place)
        self._find_days()

    def begin(self, today: date) -> bool:
        """Tells what `tomorrow` counts from. Whether that changes anything."""
        if today == self._today:
            return False
        self._today = today
        before = self.days
        self._find_days()
        return self.days != before

    def _find_days(self) -> None:
        self.days = {}
        for day, place in self._days(self._today):
            self.days.setdefault(day, []).append(place)

    def may_hold(self, text: str) -> bool:
        """False: no word of this text is the user's. Cheap."""
        return not self.vocabulary.isdisjoint(_PLAIN.findall(tokens.folded(text)))

    def values(self) -> list[Decimal]:
        """All numbers but percentages."""
        return [
            Decimal(key[1:])
            for key, places in self.numbers.items()
            if not all(self.is_percentage(place) for place in places)
        ]

    def percentages(self) -> list[Decimal]:
        return [
            Decimal(key[1:])
            for key, places in self.numbers.items()
            if any(self.is_percentage(place) for place in places)
        ]

    def is_percentage(self, place: int) -> bool:
        after = self.at(place + 1)
        return after.percent or after.text in ("percent", "pct")

    def at(self, place: int) -> Token:
        return self.tokens[place] if 0 <= place < len(self.tokens) else Token(GAP)

    def after(self, place: int, most: int) -> Iterator[Token]:
        """The words that follow, to the end of the sentence."""
        for token in self.tokens[place + 1 : place + 1 + most]:
            if token.text == GAP:
                return
            yield token

    def _days(self, today: date | None) -> Iterator[tuple[date, int]]:
        for place in range(len(self.tokens)):
            text = self.tokens[place].text
            if len(text) == 10 and text[4] == "-":
                try:
                    yield date.fromisoformat(text), place
                except ValueError:
                    continue
            elif text in _MONTHS:
                yield from self._day_of_month(place, today)
            elif today is not None:
                yield from _relative(self, place, today)

    def _day_of_month(self, place: int, today: date | None) -> Iterator[tuple[date, int]]:
        """`May 15th`, `15 May 2024`, `15th of May`."""
        before = self.at(place - 2) if self.at(place - 1).text == "of" else self.at(place - 1)
        for found, year_at in ((self.at(place + 1), place + 2), (before, place + 1)):
            day = _DAY_OF_MONTH.fullmatch(found.text)
            if day is None:
                continue
            said = self.at(year_at).text
            if not (len(said) == 4 and said.isdecimal()):
                said = str(today.year) if today else ""
            try:
                yield date(int(said), _MONTHS[self.tokens[place].text], int(day.group(1))), place
            except ValueError:
                continue
            return


def _relative(words: Words, place: int, today: date) -> Iterator[tuple[date, int]]:
    text = words.tokens[place].text
    if text == "today":
        yield today, place
    elif text == "tomorrow":
        is_after = words.at(place - 1).text == "after" and words.at(place - 2).text == "day"
        yield today + timedelta(days=2 if is_after else 1), place
    elif text == "yesterday":
        yield today - timedelta(days=1), place
    elif text in _WEEKDAYS:
        ahead = (_WEEKDAYS[text] - today.weekday()) % 7 or 7
        before = words.at(place - 1).text
        yield today + timedelta(days=ahead - 7 if before == "last" else ahead), place
    elif text in ("days", "day", "weeks", "week") and words.at(place - 2).text == "in":
        count = words.at(place - 1).text
        number = int(count) if count.isdecimal() and len(count) < 4 else 1
        if count.isdecimal() or count in ("a", "one"):
            yield today + timedelta(days=number * (7 if text.startswith("week") else 1)), place


def run_at(words: Words, place: int, said: list[str]) -> int:
    """How many of `said` stand in the user's words from `place` on, one after the other."""
    count = 0
    for word in said:
        if words.at(place + count).text != word:
            break
        count += 1
    words.steps += count + 1
    return count
