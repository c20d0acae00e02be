"""The objects in what a run has seen, and which of them the user's words name.

An object is a record. A field of it, as a whole, is the user's choice where another field of the
same record is what the user's words name, and no other record is so as well: what is written within
a text is nobody's choice. Names are matched when they are seen; a decision only looks up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from ring0 import limits
from ring0.guardrails import naming, shapes, tokens
from ring0.guardrails.echoes import Asked, key_of
from ring0.guardrails.fields import Scalar, Steps
from ring0.guardrails.vocabulary import LOOKING
from ring0.guardrails.words import Words, one, parts
from ring0.types import Integrity, Label

Strength = tuple[int, int, float, int]
"""How well a name fits: its level, how many words, how much of it; and how many of the user's words
the whole record fits."""

_Best = tuple[Strength, list["Record"]]

_At = TypeVar("_At")

_TRUSTED: Final = (Integrity.USER, Integrity.SYSTEM, Integrity.TRUSTED_FIELD)
_URL: Final = re.compile(r"(?:[a-z][a-z0-9+.\-]{1,20}://|www\.)[^\s\"'<>`|\0]+")
_URL_END: Final = ".,;:!?)]}"


class Field(msgspec.Struct, frozen=True):
    name: str
    key: str
    """What the value is looked up by (`key_of`)."""
    value: Scalar
    trusted: bool


class Record(msgspec.Struct, eq=False):
    kind: frozenset[str]
    """Words for what it is: of the tool that gave it and the way to it."""
    place: tuple[str, str]
    """Of its collection: the tool, and the way with `[]` for each place."""
    listing: int
    """Which result it is of."""
    fields: list[Field]
    names: dict[str, set[str]]
    """Of its fields, by the key of what they hold."""
    labels: list[str]
    """Short texts in it, as they are looked up: who selects it may use one for it."""
    texts: list[str]
    """Names of it."""
    urls: list[str]
    covers: dict[int, naming.Fit] = msgspec.field(default_factory=dict)
    """By place in the user's words: how well it is named there."""

    def strength(self, place: int) -> Strength:
        return (*self.covers[place], len(self.covers))

    def holds(self, names: set[str], key: str) -> bool:
        """In all of these fields."""
        return names <= self.names.get(key, set())


class Listing(msgspec.Struct, eq=False, kw_only=True):
    """One result, as a list of records."""

    records: dict[str, list[Record]] = msgspec.field(default_factory=dict)
    """By the way to them."""
    asked: Asked
    orders: dict[tuple[str, str], list[Any] | None] = msgspec.field(default_factory=dict)
    """By the way to records and a field's name: all its values in order; None: it has no order."""

    def is_whole(self, way: str) -> bool:
        """Nothing but the user's own words narrowed what was asked for."""
        return self.asked.is_whole(len(self.records[way]))


def urls_in(text: str) -> Iterator[str]:
    """Those in a text (folded), without what only ends a sentence."""
    for match in _URL.finditer(text):
        yield match.group().rstrip(_URL_END)


class Records:
    """Those of one run."""

    def __init__(self) -> None:
        self.words = Words()
        self.listings: list[Listing] = []
        self._all: list[Record] = []
        self._by_value: dict[str, list[Record]] = {}
        self._by_url: dict[str, list[Record]] = {}
        self._best: dict[tuple[tuple[str, str], int], _Best] = {}
        """By collection and place in the user's words: those that are named best there."""
        self._best_with: dict[tuple[str, int], _Best] = {}
        """Likewise, by the name of a field and over all collections."""
        self._partly: dict[tuple[tuple[str, str], int], list[Record]] = {}
        """Likewise: those of which the words are a part of the name only."""
        self._numbers: list[Decimal] | None = None
        self._wholes: set[frozenset[str]] = set()
        self._leaves = 0
        self.overflowed = False
        """There was more than may be remembered: which records there are beside, nobody knows."""

    # --- what is seen ---------------------------------------------------------------------------

    def typed(self, text: str) -> None:
        self.words.add(text)
        self._name_again()

    def begin(self, today: date) -> None:
        if self.words.begin(today):
            self._name_again()

    def add(self, source: str, leaves: Iterable[tuple[Steps, Scalar, Label]], asked: Asked) -> None:
        """The records of one result of our own driver, without what it only says back."""
        tool = source.partition("@")[0]
        found: dict[Steps, list[tuple[str, Scalar, bool]]] = {}
        for steps, leaf, label in leaves:
            if leaf is None or isinstance(leaf, bool) or leaf == "":
                continue
            if asked.is_echo(leaf):
                continue
            self._leaves += 1
            if self._leaves > limits.FLOW_LEAVES_MAX:
                self.overflowed = True
                return
            owner, name = shapes.owner(steps)
            found.setdefault(owner, []).append((name, leaf, label.integrity in _TRUSTED))
        listing = Listing(asked=asked)
        self.listings.append(listing)
        shapes.split_tables(found)
        made: dict[Steps, Record] = {}
        for steps in sorted(found, key=len):
            made[steps] = self._record(tool, steps, found[steps], made)
        for record in made.values():
            listing.records.setdefault(record.place[1], []).append(record)
            self._index(record)
        for way, records in listing.records.items():
            if listing.is_whole(way):
                self._keep_all(records)

    def _record(
        self,
        tool: str,
        steps: Steps,
        leaves: list[tuple[str, Scalar, bool]],
        made: dict[Steps, Record],
    ) -> Record:
        way = "".join("[]" if isinstance(step, int) else f".{step}" for step in steps)
        texts: list[str] = []
        urls: list[str] = []
        above = _above(steps, made)
        if steps and isinstance(steps[-1], str) and above is None:
            # One of many under a name each, or something by itself.
            texts.append(steps[-1])
            way = way.rpartition(".")[0] + ".*"
        for name, value, _ in leaves:
            if called := shapes.called(name, value):
                texts.append(called)
            if isinstance(value, str) and ("://" in value or "www." in value):
                urls += urls_in(tokens.folded(value[: limits.FLOW_CONTENT_CHARS_MAX]))
        if above is not None:
            # What is within a named thing is named with it.
            texts += above.texts
        kind = set(parts(tool)) - LOOKING
        for step in steps:
            kind.update(parts(step) if isinstance(step, str) else ())
        kind |= {word for name, _, _ in leaves for word in parts(name)[:-1]}
        fields = [
            Field(name, key, value, trusted)
            for name, value, trusted in leaves
            if (key := key_of(value)) and (trusted or shapes.is_plain(value, key))
        ]
        # `shared_with: {"ann@example.com": "read"}`
        fields += [Field("", key_of(name), name, False) for name, _, _ in leaves if "@" in name]
        labels = [key_of(value) for _, value, _ in leaves if shapes.is_label(value)]
        names: dict[str, set[str]] = {}
        for field in fields:
            names.setdefault(field.key, set()).add(field.name)
        return Record(
            kind=frozenset(kind),
            place=(tool, way),
            listing=len(self.listings) - 1,
            fields=fields,
            names=names,
            labels=labels,
            texts=texts,
            urls=urls[: limits.FLOW_URLS_MAX],
        )

    def _index(self, record: Record) -> None:
        self._all.append(record)
        for key in record.names.keys() | set(record.labels):
            self._by_value.setdefault(key, []).append(record)
        for url in record.urls:
            self._by_url.setdefault(url, []).append(record)
        self._name(record)

    def _keep_all(self, records: list[Record]) -> None:
        """The values of each field, as those of all records of a list."""
        columns: dict[str, set[str]] = {}
        for record in records[: limits.FLOW_CANDIDATES_MAX + 1]:
            for field in record.fields:
                columns.setdefault(field.name, set()).add(field.key)
            columns.setdefault(_LABELS, set()).update(record.labels)
        if len(records) <= limits.FLOW_CANDIDATES_MAX and len(self._wholes) < _WHOLES_MAX:
            self._wholes |= {
                # What several have in common tells them not apart.
                frozenset(keys)
                for keys in columns.values()
                if len(keys) >= len(records)
            }

    def are_all(self, keys: frozenset[str]) -> bool:
        """Whether these are all values of one field in a list that nobody narrowed."""
        return keys in self._wholes

    def _name_again(self) -> None:
        self._best.clear()
        self._best_with.clear()
        self._partly.clear()
        for record in self._all:
            self._name(record)

    def _name(self, record: Record) -> None:
        self._numbers = None
        if self.words.steps > limits.FLOW_STEPS_MAX:
            self.overflowed = True
        if self.overflowed:
            return
        record.covers = naming.covers(record.texts, self.words)
        for place in record.covers:
            strength = record.strength(place)
            _note(self._best, (record.place, place), strength, record)
            if strength[0] == naming.PARTLY and strength[1]:
                others = self._partly.setdefault((record.place, place), [])
                if len(others) <= limits.FLOW_CANDIDATES_MAX:
                    others.append(record)
            for name in {field.name for field in record.fields}:
                _note(self._best_with, (name, place), strength, record)

    # --- what is looked up ------------------------------------------------------------------------

    def holding(self, key: str, nouns: frozenset[str]) -> list[Record]:
        """The records that hold a value as a field of its own. `nouns`: what it is
        a value of, where it says little by itself (an id `7` of a file, and one of an invoice)."""
        found = self._by_value.get(key, [])
        if not found or self.overflowed or len(found) > limits.FLOW_CANDIDATES_MAX:
            return []
        if len(key) > _SAYS_ENOUGH_CHARS and not key.startswith("#"):
            return found
        most = max(len(nouns & record.kind) for record in found)
        if most == 0 and len({record.place for record in found}) > 1:
            return []
        return [record for record in found if len(nouns & record.kind) == most]

    def holding_url(self, url: str) -> list[Record]:
        found = self._by_url.get(url, [])
        return [] if len(found) > limits.FLOW_CANDIDATES_MAX or self.overflowed else found

    def level(
        self, record: Record, key: str = "", *, several: bool = False, anywhere: bool = False
    ) -> int:
        """How the user's words name this record, beside by the value `key` itself: 0, PARTLY or
        WHOLLY. `several`: others may be named just as well. `anywhere`: nor may a record of
        another collection, with a field of that name, be so."""
        level = 0
        names = record.names.get(key, set())
        if key and not names:
            return 0
        for place, (at, _, _) in record.covers.items():
            if at <= level or _is_there(self.words, place, key):
                continue
            rivals = [self._best[record.place, place]]
            rivals += [self._best_with[name, place] for name in names] if anywhere else []
            if anywhere and self._may_mean_another(record, place, names, key):
                continue
            if all(self._is_best(record, place, key, best, several=several) for best in rivals):
                level = at
        return level

    def _may_mean_another(self, record: Record, place: int, names: set[str], key: str) -> bool:
        """`Maria` may mean Maria Lopez, though a stranger is called no more than that."""
        if record.covers[place][1] > 1:
            return False
        others = self._partly.get((record.place, place), [])
        return not all(other is record or other.holds(names, key) for other in others)

    def _is_best(
        self, record: Record, place: int, key: str, found: _Best, *, several: bool
    ) -> bool:
        strength, best = found
        if strength != record.strength(place) or len(best) > limits.FLOW_CANDIDATES_MAX:
            return False
        names = record.names.get(key, set())
        alike = len(best) == 1 or (bool(names) and all(b.holds(names, key) for b in best))
        return several or alike or self._all_of(record)

    def name_of(self, record: Record) -> str:
        """The user's words that name it."""
        places = sorted(record.covers)
        said = " ".join(self.words.at(place).text for place in places)
        return said[:_SHOWN_CHARS_MAX]

    def numbers(self) -> list[Decimal]:
        """All numbers in records that the user's words name; as many as an amount is made of."""
        if self._numbers is None:
            found: dict[str, None] = {}
            for _, best in self._best.values():
                if len(found) > limits.FLOW_OPERANDS_MAX:
                    break
                for field in (field for record in best for field in record.fields):
                    if not isinstance(field.value, str):
                        found[field.key] = None
            self._numbers = [Decimal(key[1:]) for key in found]
        return self._numbers

    def names_any_of(self, tool: str) -> bool:
        """The user's words name a record of what this tool gave."""
        return any(place[0] == tool for place, _ in self._best)

    def _all_of(self, record: Record) -> bool:
        """The user's words say `all messages`, `every invoice` of what this record is."""
        return any(
            one(token.text) in record.kind
            for word in ("all", "every", "each", "both")
            for place in self.words.places.get(word, ())
            for token in self.words.after(place, _NEAR_WORDS)
        )


_LABELS: Final = "\0"
_WHOLES_MAX: Final = 256
_IDS: Final = (("id",), ("key",), ("uuid",), ("number",), ("email",))
_SAYS_ENOUGH_CHARS: Final = 5
_NEAR_WORDS: Final = 4
_SHOWN_CHARS_MAX: Final = 60


def _note(best: dict[_At, _Best], at: _At, strength: Strength, record: Record) -> None:
    known = best.get(at)
    if known is None or strength > known[0]:
        best[at] = (strength, [record])
    elif strength == known[0] and len(known[1]) <= limits.FLOW_CANDIDATES_MAX:
        known[1].append(record)


def _is_there(words: Words, place: int, key: str) -> bool:
    """The value itself, where the user typed it, is no name of its record."""
    return bool(key) and words.at(place).text == key.removeprefix("#")


def _above(steps: Steps, made: dict[Steps, Record]) -> Record | None:
    """The object that one is in. Through a list only where that is a thing of its own: what only
    wraps an answer may say back what was searched for."""
    if steps and isinstance(steps[-1], str):
        return made.get(steps[:-1])
    above = made.get(steps[:-2]) if len(steps) > 1 and isinstance(steps[-2], str) else None
    if above is None or not any(f.trusted and parts(f.name)[-1:] in _IDS for f in above.fields):
        return None
    return above
